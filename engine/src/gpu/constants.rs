//! Where a plan's small vectors lie in the one buffer that kernels read them from: norms, biases, factors, rotation
//! frequencies. No device here.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::{Epilogue, Heads, Norm, Op, Plan, Prologue, WeightId};

/// Words at which vectors begin are multiples of this, so that kernels can read four elements at once.
const ALIGN: u64 = 4;

/// The vectors that a plan's ops name, and its rotation tables, by their first word.
#[derive(Debug)]
pub(super) struct Constants {
    vectors: BTreeMap<WeightId, u64>,
    ropes: Vec<u64>,
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
        Constants { vectors, ropes, bytes: 4 * words }
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

    /// First byte of a rotation table's frequencies.
    pub(super) fn rope_byte(&self, rope: usize) -> u64 {
        4 * self.ropes[rope]
    }

    /// First word of a rotation table's frequencies.
    pub(super) fn rope_word(&self, rope: usize) -> u32 {
        self.ropes[rope] as u32
    }
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
                relative: _,
                sinks,
                out: _,
            } => all.extend(slopes.into_iter().chain(sinks)),
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
