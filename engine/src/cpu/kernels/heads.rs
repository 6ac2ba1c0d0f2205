//! What follows a product of queries, keys and values: clamp, norms, rotation, cache write.

use super::kv_write::{Columns, KvLayer, kv_write};
use super::norm::{Norm, norm_in_place};
use super::rope::{Angles, rope};
use crate::cpu::pool::Pool;
use crate::cpu::simd::Table;
use crate::plan::{Inputs, RopeStyle, View};

/// What is done to queries, keys and values, with vectors and angles at hand.
#[derive(Debug)]
pub struct Heads<'a> {
    /// Query heads.
    pub n_heads: usize,
    /// All columns are limited to `-clamp..clamp`.
    pub clamp: Option<f32>,
    /// Norms of queries, keys and values.
    pub norms: [Option<Norm<'a>>; 3],
    /// Rotation of queries and keys.
    pub rope: Option<(RopeStyle, &'a Angles)>,
    /// Whether the norms follow the rotation.
    pub norms_after_rope: bool,
}

/// Changes `rows` (`[q | k | v]` each) in place and stores keys and values.
pub fn heads(t: &Table, pool: &Pool, inputs: &Inputs, rows: &mut [f32], op: &Heads<'_>, layer: &mut KvLayer) {
    let shape = layer.shape();
    let n_cols = [op.n_heads * shape.k_dim, shape.n_kv_heads * shape.k_dim, shape.n_kv_heads * shape.v_dim];
    let width = n_cols.iter().sum();
    if let Some(clamp) = op.clamp {
        pool.rows_mut(rows, width, |_, row| row.iter_mut().for_each(|x| *x = x.clamp(-clamp, clamp)));
    }
    // Views name a slot for the plan's sake only; here they are columns of `rows`.
    let view = |start: usize, cols: usize| View { slot: crate::plan::Slot(0), start, cols };
    let views = [view(0, n_cols[0]), view(n_cols[0], n_cols[1]), view(n_cols[0] + n_cols[1], n_cols[2])];
    let normalise = |rows: &mut [f32]| {
        for (view, norm) in views.iter().zip(&op.norms) {
            if let Some(norm) = norm {
                norm_in_place(t, pool, rows, width, *view, norm);
            }
        }
    };
    if !op.norms_after_rope {
        normalise(rows);
    }
    if let Some((style, angles)) = op.rope {
        rope(pool, rows, width, view(0, n_cols[0] + n_cols[1]), shape.k_dim, style, angles);
    }
    if op.norms_after_rope {
        normalise(rows);
    }
    let columns = |view: View| Columns { data: rows, width, view };
    kv_write(t, inputs, columns(views[1]), columns(views[2]), layer);
}
