//! `route`: the experts of each row and their weights.

use super::act;
use crate::cpu::pool::Pool;
use crate::plan::{Act, Routing, Scoring};

/// The least sum that weights are divided by: the smallest normal half, as in the original implementations.
const MIN_SUM: f32 = 6.103_515_6e-5;

/// Chooses by `logits` (rows of `experts`); rows of `out` are indices as bits, then weights.
pub fn route(pool: &Pool, logits: &[f32], experts: usize, bias: Option<&[f32]>, routing: &Routing, out: &mut [f32]) {
    pool.rows_mut(out, 2 * routing.used, |r, out| {
        let logits = &logits[r * experts..(r + 1) * experts];
        let scores = scores(routing.scoring, logits);
        let mut keys = scores.clone();
        if let Some(bias) = bias {
            keys.iter_mut().zip(bias).for_each(|(key, bias)| *key += bias);
        }
        if routing.groups_used < routing.groups {
            leave_groups(&mut keys, routing);
        }
        let chosen = largest(&keys, routing.used);
        let (ids, weights) = out.split_at_mut(routing.used);
        for ((id, weight), e) in ids.iter_mut().zip(weights.iter_mut()).zip(&chosen) {
            (*id, *weight) = (f32::from_bits(*e as u32), scores[*e]);
        }
        if let Scoring::SparseMixer { within } = routing.scoring {
            mix(weights, &chosen, logits, within);
        }
        weigh(weights, routing);
    });
}

fn scores(scoring: Scoring, logits: &[f32]) -> Vec<f32> {
    match scoring {
        Scoring::Softmax => softmax(logits),
        Scoring::Sigmoid => logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
        Scoring::SoftmaxOfPicked | Scoring::SparseMixer { .. } => logits.to_vec(),
        Scoring::SqrtSoftplus => logits.iter().map(|x| act::value(Act::Softplus, *x).sqrt()).collect(),
    }
}

fn softmax(x: &[f32]) -> Vec<f32> {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp: Vec<f32> = x.iter().map(|x| (x - max).exp()).collect();
    let sum: f32 = exp.iter().sum();
    exp.into_iter().map(|x| x / sum).collect()
}

/// The places of the `n` largest, largest first, of equals the first. Damaged values come last.
fn largest(keys: &[f32], n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    let key = |i: &usize| if keys[*i].is_nan() { f32::NEG_INFINITY } else { keys[*i] };
    order.sort_by(|a, b| key(b).total_cmp(&key(a)).then(a.cmp(b)));
    order.truncate(n);
    order
}

/// Leaves the keys of the best groups and makes the others the least.
fn leave_groups(keys: &mut [f32], routing: &Routing) {
    let size = keys.len() / routing.groups;
    let sums: Vec<f32> =
        keys.chunks_exact(size).map(|group| largest(group, 2).into_iter().map(|i| group[i]).sum()).collect();
    let kept = largest(&sums, routing.groups_used);
    for (i, group) in keys.chunks_exact_mut(size).enumerate().filter(|(i, _)| !kept.contains(i)) {
        debug_assert!(i < routing.groups);
        group.fill(f32::NEG_INFINITY);
    }
}

/// Makes logits of the chosen experts their shares among those near them that were not chosen before.
fn mix(weights: &mut [f32], chosen: &[usize], logits: &[f32], within: f32) {
    for (j, weight) in weights.iter_mut().enumerate() {
        let top = *weight;
        let near = logits.iter().enumerate().filter(|(e, x)| {
            let far = top - **x > within * x.abs().max(top);
            !far && !chosen[..j].contains(e)
        });
        *weight = 1.0 / near.map(|(_, x)| (x - top).exp()).sum::<f32>();
    }
}

fn weigh(weights: &mut [f32], routing: &Routing) {
    if routing.scoring == Scoring::SoftmaxOfPicked {
        weights.copy_from_slice(&softmax(weights));
    }
    if routing.renorm {
        let sum = weights.iter().sum::<f32>().max(MIN_SUM);
        weights.iter_mut().for_each(|w| *w /= sum);
    }
    weights.iter_mut().for_each(|w| *w *= routing.scale);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(logits: &[f32], bias: Option<&[f32]>, routing: Routing) -> (Vec<u32>, Vec<f32>) {
        let mut out = vec![0.0; 2 * routing.used];
        route(&Pool::new(1), logits, logits.len(), bias, &routing, &mut out);
        let (ids, weights) = out.split_at(routing.used);
        (ids.iter().map(|id| id.to_bits()).collect(), weights.to_vec())
    }

    const PLAIN: Routing =
        Routing { scoring: Scoring::Sigmoid, used: 2, groups: 1, groups_used: 1, renorm: true, scale: 1.0 };

    #[test]
    fn equal_scores_go_to_the_lower_index_and_the_bias_only_chooses() {
        assert_eq!(routed(&[0.0; 5], None, PLAIN), (vec![0, 1], vec![0.5, 0.5]));
        let (ids, weights) = routed(&[0.0; 5], Some(&[0.0, 0.0, 0.0, 2.0, 1.0]), Routing { scale: 3.0, ..PLAIN });
        assert_eq!((ids, weights), (vec![3, 4], vec![1.5, 1.5]));
    }

    #[test]
    fn groups_are_chosen_by_their_two_best() {
        let logits = [3.0, -9.0, -9.0, 1.0, 1.0, -9.0];
        let routing = Routing { groups: 2, groups_used: 1, ..PLAIN };
        assert_eq!(routed(&logits, None, routing).0, [3, 4]);
        assert_eq!(routed(&logits, None, PLAIN).0, [0, 3]);
    }

    #[test]
    fn the_softmax_is_over_all_or_over_the_chosen() {
        let logits = [1.0, 2.0, 0.0];
        let of = |scoring| routed(&logits, None, Routing { scoring, renorm: false, ..PLAIN }).1;
        let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(close(&of(Scoring::Softmax), &[0.665_241, 0.244_728]));
        assert!(close(&of(Scoring::SoftmaxOfPicked), &[0.731_059, 0.268_941]));
    }

    /// Worked out by hand: nothing is near 2; beside -1 is -1.01, since 0.01 is at most 0.02 * 1.01, and -1.03 is not.
    #[test]
    fn a_sparse_mixer_weighs_each_expert_among_those_near_it() {
        let routing = Routing { scoring: Scoring::SparseMixer { within: 0.02 }, renorm: false, ..PLAIN };
        let (ids, weights) = routed(&[-1.03, 2.0, -1.01, -1.0], None, routing);
        assert_eq!((ids, weights[0]), (vec![1, 3], 1.0));
        assert!((weights[1] - 1.0 / (1.0 + (-0.01f32).exp())).abs() < 1e-6, "{weights:?}");
        let (ids, weights) = routed(&[2.0, 1.99, 0.0], None, routing);
        assert_eq!((ids, weights[1]), (vec![0, 1], 1.0));
        assert!((weights[0] - 1.0 / (1.0 + (-0.01f32).exp())).abs() < 1e-6, "{weights:?}");
    }
}
