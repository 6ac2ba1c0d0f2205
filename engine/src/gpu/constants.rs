//! Where a plan's small vectors lie in the one buffer that kernels read them from: norms, biases, factors, rotation
//! frequencies, where buckets of distances begin. No device here.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::{AttentionMask, Epilogue, Heads, Norm, Op, Plan, Prologue, Relative, WeightId};

/// Words at which vectors begin are multiples of this, so that kernels can read four elements at once.
const ALIGN: u64 = 4;

/// What says where buckets of distances begin: their number, from which distance on they are the last, and whether they are of
/// both directions.
type Buckets = (usize, usize, bool);

/// The vectors that a plan's ops name, its rotation tables, and its buckets of distances, by their first word.
#[derive(Debug)]
pub(super) struct Constants {
    vectors: BTreeMap<WeightId, u64>,
    ropes: Vec<u64>,
    buckets: BTreeMap<Buckets, (u64, Vec<f32>)>,
    /// Bytes of all.
    pub bytes: u64,
}

impl Constants {
    pub(super) fn new(plan: &Plan) -> Constants {
        let mut words = 0;
        let mut place = |n: usize| {
            let at = words;
            words += (n as u64).next_multiple_of(ALIGN);
            at
        };
        let vectors = named(plan).into_iter().map(|id| (id, place(plan.weight(id).rows()))).collect();
        let ropes = plan.ropes.iter().map(|rope| place(rope.inv_freq.len())).collect();
        let mut buckets = BTreeMap::new();
        for (relative, both) in plan.ops.iter().filter_map(|entry| distances(&entry.op)) {
            let begin = || {
                let begins = begins(&relative, both);
                (place(begins.len()), begins)
            };
            buckets.entry((relative.buckets, relative.far, both)).or_insert_with(begin);
        }
        Constants { vectors, ropes, buckets, bytes: 4 * words }
    }

    /// First byte of a vector; `None` for weights that no op reads as one.
    pub(super) fn byte(&self, weight: WeightId) -> Option<u64> {
        self.vectors.get(&weight).map(|word| 4 * word)
    }

    /// First word of a vector, as kernels are given it; `u32::MAX` for no vector. Buffers that exceed what words of 32 bits
    /// can name are refused when they are allocated.
    pub(super) fn word(&self, weight: Option<WeightId>) -> u32 {
        weight.and_then(|id| self.vectors.get(&id)).map_or(u32::MAX, |word| *word as u32)
    }

    /// How many buckets of distances one direction has, and the word at which the list of their first distances begins.
    pub(super) fn buckets(&self, relative: &Relative, both: bool) -> (u32, u32) {
        let found = self.buckets.get(&(relative.buckets, relative.far, both));
        found.map_or((0, u32::MAX), |(word, begins)| (begins.len() as u32, *word as u32))
    }

    /// First bytes of all lists of buckets' first distances, and what they hold.
    pub(super) fn all_buckets(&self) -> impl Iterator<Item = (u64, &[f32])> {
        self.buckets.values().map(|(word, begins)| (4 * word, &begins[..]))
    }

    /// First byte of a rotation table's frequencies.
    pub(super) fn rope_byte(&self, rope: usize) -> u64 {
        4 * self.ropes[rope]
    }

    /// First word of a rotation table's frequencies.
    pub(super) fn rope_word(&self, rope: usize) -> u32 {
        self.ropes[rope] as u32
    }
}

/// What attention adds to scores by distance, and whether rows see those behind them.
fn distances(op: &Op) -> Option<(Relative, bool)> {
    match *op {
        Op::Attend {
            q: _,
            layer: _,
            n_heads: _,
            scale: _,
            cap: _,
            mask,
            window: _,
            chunk: _,
            chosen: _,
            temperature: _,
            slopes: _,
            relative,
            sinks: _,
            out: _,
        } => relative.map(|relative| (relative, mask == AttentionMask::Bidirectional)),
        _ => None,
    }
}

/// The first distances of the buckets of one direction. Bucket numbers rise with the distance.
fn begins(relative: &Relative, both: bool) -> Vec<f32> {
    let n = if both { relative.buckets / 2 } else { relative.buckets };
    let begin = |bucket: usize| {
        let (mut low, mut high) = (0, relative.far);
        while low < high {
            let middle = low + (high - low) / 2;
            if relative.bucket(middle, false, both) < bucket { low = middle + 1 } else { high = middle }
        }
        low as f32
    };
    (0..n).map(begin).collect()
}

/// The weights that ops read as vectors.
fn named(plan: &Plan) -> BTreeSet<WeightId> {
    let mut all = BTreeSet::new();
    let of_norm = |norm: Norm| {
        let Norm { kind: _, eps: _, group: _, weight, bias } = norm;
        weight.into_iter().chain(bias)
    };
    for entry in &plan.ops {
        match entry.op {
            Op::Norm { x: _, norm, out: _ } => all.extend(of_norm(norm)),
            Op::Linear { x: _, norm, weight: _, scale, bias, then } => {
                all.extend(norm.into_iter().flat_map(|Prologue { norm, normed: _ }| of_norm(norm)));
                all.extend(scale.into_iter().chain(bias));
                if let Epilogue::Heads { heads, out: _ } = then {
                    let Heads { layer: _, n_heads: _, clamp: _, q_norm, k_norm, v_norm, rope: _, norms_after_rope: _ } =
                        plan.heads[heads];
                    all.extend([q_norm, k_norm, v_norm].into_iter().flatten().flat_map(of_norm));
                }
            }
            Op::Scale { x: _, factor: _, weight } => all.extend(weight),
            Op::TakeCols { x: _, columns, out: _ } => all.extend([columns]),
            Op::Attend {
                q: _,
                layer: _,
                n_heads: _,
                scale: _,
                cap: _,
                mask: _,
                window: _,
                chunk: _,
                chosen: _,
                temperature: _,
                slopes,
                relative,
                sinks,
                out: _,
            } => all.extend(slopes.into_iter().chain(sinks).chain(relative.map(|of| of.weight))),
            Op::Route { x: _, bias, routing: _, out: _ } => all.extend(bias),
            Op::ExpertLinear { x: _, each: _, pick: _, weight: _, scale, bias, then: _ } => {
                all.extend(scale.into_iter().chain(bias));
            }
            Op::Conv { x: _, weight, bias, act: _, state: _, out: _ } => all.extend(bias.into_iter().chain([weight])),
            Op::Recur { q: _, k: _, v: _, decay: _, rates, beta: _, v_scale: _, skip, form: _, state: _, out: _ } => {
                all.extend(rates.into_iter().chain(skip));
            }
            Op::Act { x: _, act: _, bias, factor } => all.extend(bias.into_iter().chain(factor)),
            Op::Embed { table: _, by: _, out: _ }
            | Op::Rope { x: _, head_dim: _, first: _, rope: _ }
            | Op::KvWrite { k: _, tail: _, v: _, layer: _ }
            | Op::HeadLinear { x: _, weight: _, n_heads: _, pass: _, out: _ }
            | Op::Combine { x: _, pick: _, weighted: _, out: _ }
            | Op::Gate { x: _, gate: _, act: _, group: _ }
            | Op::Mix { x: _, coef: _, width: _, out: _ }
            | Op::Balance { x: _, n: _, rounds: _, eps: _ }
            | Op::Glu { x: _, gated: _, out: _ }
            | Op::Add { x: _, y: _, factor: _ }
            | Op::Softcap { x: _, cap: _ }
            | Op::TakeRows { x: _, out: _ }
            | Op::Select { q: _, weights: _, layer: _, out: _ }
            | Op::AdapterScales { out: _ }
            | Op::Pool { x: _, out: _ } => {}
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_begin_where_their_number_rises() {
        for (buckets, far, both) in [(32, 128, true), (32, 128, false), (8, 16, true), (4, 4, true), (5, 1000, false)] {
            let relative = Relative { weight: WeightId(0), buckets, far };
            let begins = begins(&relative, both);
            for distance in 0..2 * far {
                let bucket = begins.iter().rposition(|begin| *begin <= distance as f32);
                assert_eq!(bucket, Some(relative.bucket(distance, false, both)), "{relative:?} at {distance}");
            }
        }
    }
}
