//! `norm`: normalisation of runs of columns.

use super::kv_write::Columns;
use crate::cpu::pool::Pool;
use crate::cpu::simd::Table;
use crate::plan::{NormKind, View};

/// A norm with its vectors as f32.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// The formula.
    pub kind: NormKind,
    /// Added under the root.
    pub eps: f32,
    /// Columns normalised together.
    pub group: usize,
    /// Factors: one per column of a run, or one per column.
    pub weight: Option<&'a [f32]>,
    /// Summands, likewise.
    pub bias: Option<&'a [f32]>,
}

/// Normalises every row of `x` by runs. `out` has rows of as many columns as `x` views.
pub fn norm(t: &Table, pool: &Pool, x: Columns<'_>, norm: &Norm<'_>, out: &mut [f32]) {
    pool.rows_mut(out, x.view.cols, |r, out| {
        let runs = x.row(r).chunks_exact(norm.group).zip(out.chunks_exact_mut(norm.group));
        for (i, (x, out)) in runs.enumerate() {
            norm.run(t, i, x, out);
        }
    });
}

/// Normalises, in place, the columns `view` of `x` (rows of `cols`).
pub fn norm_in_place(t: &Table, pool: &Pool, x: &mut [f32], cols: usize, view: View, norm: &Norm<'_>) {
    pool.rows_mut(x, cols, |_, row| {
        let mut before = vec![0.0; norm.group];
        let row = &mut row[view.start..view.start + view.cols];
        for (i, run) in row.chunks_exact_mut(norm.group).enumerate() {
            before.copy_from_slice(run);
            norm.run(t, i, &before, run);
        }
    });
}

impl Norm<'_> {
    /// The vector's part for run `i`.
    fn of_run<'a>(&self, vector: &'a [f32], i: usize) -> &'a [f32] {
        if vector.len() == self.group { vector } else { &vector[i * self.group..][..self.group] }
    }

    /// Normalises run `i`.
    fn run(&self, t: &Table, i: usize, x: &[f32], out: &mut [f32]) {
        let n = self.group as f32;
        match self.kind {
            NormKind::Rms => self.scaled(t, i, x, (t.sum_squares)(x) / n, out),
            NormKind::Layer => {
                let mean = (t.sum)(x) / n;
                let centred: Vec<f32> = x.iter().map(|x| x - mean).collect();
                self.scaled(t, i, &centred, (t.sum_squares)(&centred) / n, out);
            }
        }
        if let Some(bias) = self.bias {
            (t.add)(out, self.of_run(bias, i));
        }
    }

    fn scaled(&self, t: &Table, i: usize, x: &[f32], mean_square: f32, out: &mut [f32]) {
        let factor = 1.0 / (mean_square + self.eps).sqrt();
        match self.weight {
            Some(weight) => (t.scale_mul)(x, factor, self.of_run(weight, i), out),
            None => {
                out.copy_from_slice(x);
                (t.scale)(out, factor);
            }
        }
    }
}
