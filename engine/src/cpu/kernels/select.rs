//! `select`: the positions that an index of keys finds most alike to a row.

use super::kv_write::{Columns, KvLayer};
use crate::cpu::pool::Pool;
use crate::cpu::simd::Table;
use crate::plan::{Inputs, PAGE};

/// For every row the positions up to its own with the largest `sum over heads of weights[h] * max(q[h] . k, 0)`, equal ones by
/// the lower position: in order, as the bits of unsigned integers, and `u32::MAX` where there are fewer than `top`, the columns
/// of a row of `out`.
pub fn select(
    t: &Table,
    pool: &Pool,
    inputs: &Inputs,
    (q, weights): (Columns<'_>, Columns<'_>),
    layer: &KvLayer,
    top: usize,
    out: &mut [f32],
) {
    let (dim, n_heads) = (layer.shape().k_dim, weights.view.cols);
    pool.rows_mut(out, top, |r, out| {
        let n = inputs.positions[r] as usize + 1;
        let pages = &inputs.tables[inputs.seqs[r] as usize];
        let mut scores = vec![0.0; n];
        let mut of_heads = vec![0.0; n_heads * PAGE];
        for (scores, page) in scores.chunks_mut(PAGE).zip(pages) {
            let of_heads = &mut of_heads[..n_heads * scores.len()];
            (t.attend_scores)(layer.dtype(), q.row(r), layer.keys(*page, 0), dim, scores.len(), of_heads);
            for (head, weight) in of_heads.chunks_exact(scores.len()).zip(weights.row(r)) {
                scores.iter_mut().zip(head).for_each(|(sum, score)| *sum += weight * score.max(0.0));
            }
        }
        let mut best: Vec<u32> = (0..n as u32).collect();
        if n > top {
            let order = |a: &u32, b: &u32| scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b));
            best.select_nth_unstable_by(top, order);
            best.truncate(top);
            best.sort_unstable();
        }
        out.fill(f32::from_bits(u32::MAX));
        out.iter_mut().zip(best).for_each(|(out, position)| *out = f32::from_bits(position));
    });
}
