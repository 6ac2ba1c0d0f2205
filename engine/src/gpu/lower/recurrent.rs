//! Lowering of convolutions and recurrences over the rows of sequences. No device here.

use super::{ANY, Lowering, WG, rows};
use crate::error::Result;
use crate::gpu::dispatch::{Count, Dispatch, Grid, Key, Resource};
use crate::plan::{Act, Recurrence, Rows, Slot, View, WeightId};

/// Taps that an invocation keeps the rows of.
const MOST_TAPS: usize = 64;
/// Elements of a key that a workgroup of the kernel `recur` has room for, and an invocation of `recur_columns`.
const MOST_KEY: usize = 512;
/// Columns of values that a workgroup of `recur` takes.
const COLUMNS: usize = 16;

/// The fields of the op `recur`.
pub(super) struct Recur {
    pub q: View,
    pub k: View,
    pub v: View,
    pub decay: View,
    pub rates: Option<WeightId>,
    pub beta: Option<View>,
    pub v_scale: Option<View>,
    pub skip: Option<WeightId>,
    pub form: Recurrence,
    pub state: usize,
    pub to: Slot,
}

impl Lowering<'_> {
    pub(super) fn conv(
        &self,
        x: View,
        weight: WeightId,
        bias: Option<WeightId>,
        act: Option<Act>,
        state: usize,
        to: Slot,
    ) -> Result<Dispatch> {
        let taps = self.plan.weight(weight).rows() / x.cols;
        if taps > MOST_TAPS {
            return Err(Lowering::too_large(format!("a convolution of {taps} taps")));
        }
        let mut features: Vec<_> = act.into_iter().flat_map(|act| ["ACT", rows::feature(act)]).collect();
        features.extend(bias.map(|_| "BIAS"));
        Ok(Dispatch {
            key: Key { kernel: "conv", features, consts: vec![("WG", WG), ("TAPS", taps as u32)] },
            bindings: vec![("x", self.buffer(x.slot)), ("states", Resource::States(state)), ("out", self.buffer(to))],
            params: vec![
                ("start", x.start as u32),
                ("stride", self.plan.slot(x.slot).cols as u32),
                ("cols", x.cols as u32),
                ("weight_at", self.constants.word(Some(weight))),
                ("bias_at", self.constants.word(bias)),
            ],
            grid: Grid { count: Count::Runs, block: 1, times: x.cols, per: WG as usize },
            when: (Rows::Tokens, ANY),
            op: 0,
            work: 0,
        })
    }

    pub(super) fn recur(&self, op: &Recur) -> Result<Dispatch> {
        let Recur { q, k, v, decay, rates, beta, v_scale, skip, form, state, to } = *op;
        let Recurrence { n_heads, n_k_heads, k_dim, v_dim, tiled, q_scale, k_scale } = form;
        if k_dim > MOST_KEY {
            return Err(Lowering::too_large(format!("a recurrence of {k_dim} elements to a key")));
        }
        // Gates that lie beside the decays need no buffer of their own: every device binds eight at once.
        let gates = beta.or(v_scale).filter(|view| view.slot != decay.slot);
        let apart = k.slot != q.slot;
        let together = beta.zip(v_scale).is_none_or(|(beta, v_scale)| beta.slot == v_scale.slot);
        let constants = skip.is_some() || rates.is_some();
        if !together || apart && constants && gates.is_some() {
            return Err(Lowering::too_large("a recurrence whose inputs lie in many places".into()));
        }
        let mut bindings = vec![
            ("q", self.buffer(q.slot)),
            ("v", self.buffer(v.slot)),
            ("decay", self.buffer(decay.slot)),
            ("states", Resource::States(state)),
            ("out", self.buffer(to)),
        ];
        if apart {
            bindings.push(("k", self.buffer(k.slot)));
        }
        bindings.extend(gates.map(|view| ("gates", self.buffer(view.slot))));
        let features = [
            (apart, "K_APART"),
            (gates.is_some(), "GATES"),
            (beta.is_some(), "BETA"),
            (v_scale.is_some(), "V_SCALE"),
            (rates.is_some(), "RATES"),
            (decay.cols != n_heads, "DECAYS"),
            (skip.is_some(), "SKIP"),
        ];
        let stride = |view: View| self.plan.slot(view.slot).cols as u32;
        let features = features.into_iter().filter(|f| f.0).map(|f| f.1).collect();
        let k_dim = ("K_DIM", k_dim as u32);
        let (kernel, consts, times, per) = match rates {
            Some(_) => ("recur_columns", vec![("WG", WG), k_dim], n_heads * v_dim, WG as usize),
            None => ("recur", vec![k_dim], n_heads * v_dim.div_ceil(COLUMNS), 1),
        };
        Ok(Dispatch {
            key: Key { kernel, features, consts },
            bindings,
            params: vec![
                ("n_heads", n_heads as u32),
                ("n_k_heads", n_k_heads as u32),
                ("tiled", u32::from(tiled)),
                ("v_dim", v_dim as u32),
                ("q_scale", q_scale.to_bits()),
                ("k_scale", k_scale.to_bits()),
                ("q_start", q.start as u32),
                ("q_stride", stride(q)),
                ("k_start", k.start as u32),
                ("k_stride", stride(k)),
                ("v_start", v.start as u32),
                ("v_stride", stride(v)),
                ("decay_start", decay.start as u32),
                ("decay_stride", stride(decay)),
                ("beta_start", beta.map_or(0, |view| view.start as u32)),
                ("v_scale_start", v_scale.map_or(0, |view| view.start as u32)),
                ("gates_stride", gates.map_or(0, stride)),
                ("skip_at", self.constants.word(skip)),
                ("rates_at", self.constants.word(rates)),
            ],
            grid: Grid { count: Count::Runs, block: 1, times, per },
            when: (Rows::Tokens, ANY),
            op: 0,
            work: 6 * form.n_state() as u64,
        })
    }
}
