//! `balance`: factors between streams, whose sums are about 1 both ways.

use crate::cpu::pool::Pool;
use crate::plan::View;

/// In the columns `view` of rows of `cols`, `n` sums of `n` factors each: the softmax over the sums for every stream, plus `eps`;
/// then, `rounds` times, factors are divided by the sum of their sum's plus `eps`, and between two rounds by that of their
/// stream's.
pub fn balance(pool: &Pool, x: &mut [f32], cols: usize, view: View, n: usize, rounds: usize, eps: f32) {
    pool.rows_mut(x, cols, |_, row| {
        let x = &mut row[view.start..view.start + view.cols];
        for stream in 0..n {
            let most = (0..n).map(|i| x[i * n + stream]).fold(f32::NEG_INFINITY, f32::max);
            let of = |x: f32| (x - most).exp();
            let sum: f32 = (0..n).map(|i| of(x[i * n + stream])).sum();
            (0..n).for_each(|i| x[i * n + stream] = of(x[i * n + stream]) / sum + eps);
        }
        for round in 0..rounds {
            for stream in (0..n).filter(|_| round > 0) {
                let sum = (0..n).map(|i| x[i * n + stream]).sum::<f32>() + eps;
                (0..n).for_each(|i| x[i * n + stream] /= sum);
            }
            for factors in x.chunks_exact_mut(n) {
                let sum = factors.iter().sum::<f32>() + eps;
                factors.iter_mut().for_each(|x| *x /= sum);
            }
        }
    });
}
