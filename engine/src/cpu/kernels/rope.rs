//! `rope`: rotation of heads by position.

use crate::cpu::pool::Pool;
use crate::plan::{RopeStyle, RopeTable, View};

/// Sines and cosines of every row of a step: `[rows, pairs]` each. Made once per step, used by every layer.
#[derive(Debug, Default)]
pub struct Angles {
    pairs: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Angles {
    /// Fills in the angles `position * inv_freq`.
    pub fn fill(&mut self, table: &RopeTable, positions: &[u32]) {
        self.pairs = table.inv_freq.len();
        self.cos.clear();
        self.sin.clear();
        for position in positions {
            for freq in &table.inv_freq {
                let (sin, cos) = (*position as f32 * freq).sin_cos();
                self.cos.push(cos * table.magnitude);
                self.sin.push(sin * table.magnitude);
            }
        }
    }
}

/// Turns, in place, the heads of `head_dim` in the columns `view` of `x` (rows of `x_cols`), each from its element `first`
/// on.
#[expect(clippy::too_many_arguments, reason = "an op with its operands; each is named at the call")]
pub fn rope(
    pool: &Pool,
    x: &mut [f32],
    x_cols: usize,
    view: View,
    head_dim: usize,
    first: usize,
    style: RopeStyle,
    angles: &Angles,
) {
    let n = angles.pairs;
    pool.rows_mut(x, x_cols, |r, row| {
        let (cos, sin) = (&angles.cos[r * n..(r + 1) * n], &angles.sin[r * n..(r + 1) * n]);
        for head in row[view.start..view.start + view.cols].chunks_exact_mut(head_dim) {
            let head = &mut head[first..];
            match style {
                RopeStyle::Halves => {
                    let (a, b) = head[..2 * n].split_at_mut(n);
                    for i in 0..n {
                        (a[i], b[i]) = (a[i] * cos[i] - b[i] * sin[i], a[i] * sin[i] + b[i] * cos[i]);
                    }
                }
                RopeStyle::Interleaved => {
                    for (pair, (cos, sin)) in head[..2 * n].chunks_exact_mut(2).zip(cos.iter().zip(sin)) {
                        (pair[0], pair[1]) = (pair[0] * cos - pair[1] * sin, pair[0] * sin + pair[1] * cos);
                    }
                }
            }
        }
    });
}
