//! Lowering of what follows the logits: changes, the largest logits of a row, picks. No device here.

use crate::gpu::dispatch::{Count, Dispatch, Grid, Key, Resource};
use crate::gpu::forms::Forms;
use crate::plan::{Plan, Rows, TOP};

/// Values that one workgroup of top_k sorts.
const SORTED: usize = 1024;
const WG: u32 = 256;

/// Workgroups per row of each round of top_k, until one is left.
pub(in crate::gpu) fn rounds(n_vocab: usize) -> Vec<usize> {
    let mut rounds = vec![n_vocab.div_ceil(SORTED).max(1)];
    while let Some(last) = rounds.last().copied().filter(|n| *n > 1) {
        rounds.push((last * TOP).div_ceil(SORTED));
    }
    rounds
}

/// The dispatches behind the logits, in order. Which of them run is the step's: see [`Count`].
pub(in crate::gpu) fn sample(plan: &Plan, forms: Forms) -> Vec<Dispatch> {
    if !plan.has_head() {
        return Vec::new();
    }
    let n_vocab = plan.n_vocab();
    let logits = Resource::Buffer(plan.slot(plan.logits).buffer);
    let when = (Rows::Outputs, 1..=usize::MAX);
    let dispatch = |kernel, consts: &[(&'static str, u32)], bindings: &[(&'static str, Resource)], grid| Dispatch {
        key: Key { kernel, features: vec![], consts: consts.to_vec() },
        bindings: bindings.to_vec(),
        params: vec![("n", n_vocab as u32)],
        grid,
        when: when.clone(),
        op: plan.ops.len(),
        work: 0,
    };
    let changes = Grid { count: Count::Changes, block: 1, times: 1, per: 64 };
    let picks = Grid { count: Count::Picks, block: 1, times: 1, per: 1 };
    let mut out = vec![
        dispatch("penalise", &[("WG", 64)], &[("logits", logits)], changes),
        dispatch("pick", &[("WG", WG)], &[("logits", logits), ("picked", Resource::Picked)], picks),
    ];
    let mut before: Option<usize> = None;
    for (round, chunks) in rounds(n_vocab).into_iter().enumerate() {
        let mut features = if before.is_none() { vec!["FIRST"] } else { vec![] };
        if forms.subgroups {
            features.push("SUBGROUPS");
        }
        let source = [("pairs", Resource::Pairs(1 - round % 2)), ("stats", Resource::Stats(1 - round % 2))];
        let source = if before.is_none() { &[("logits", logits)][..] } else { &source };
        let result = [("out_pairs", Resource::Pairs(round % 2)), ("out_stats", Resource::Stats(round % 2))];
        out.push(Dispatch {
            key: Key { kernel: "top_k", features, consts: vec![("WG", WG), ("K", TOP as u32)] },
            bindings: [source, &result].concat(),
            params: vec![
                ("n", before.map_or(n_vocab, |n| n * TOP) as u32),
                ("chunks", chunks as u32),
                ("n_stats", before.unwrap_or(0) as u32),
            ],
            grid: Grid { count: Count::Tops, block: 1, times: chunks, per: 1 },
            when: when.clone(),
            op: plan.ops.len(),
            work: 0,
        });
        before = Some(chunks);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_end_with_one_workgroup() {
        assert_eq!(rounds(40), [1]);
        assert_eq!(rounds(1025), [2, 1]);
        assert_eq!(rounds(128_256), [126, 8, 1]);
    }
}
