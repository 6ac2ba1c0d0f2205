//! Lowering of norms, and of ops that take one element at a time. No device here.

use std::ops::RangeInclusive;

use super::{ANY, Lowering, WG, rows_at};
use crate::error::Result;
use crate::gpu::dispatch::{Count, Dispatch, Grid, Key};
use crate::plan::{Act, Gated, Norm, NormKind, Slot, View, WeightId};

/// Streams whose factors an invocation of the kernel `balance` holds.
const MOST_STREAMS: usize = 16;

/// The feature that makes a kernel compute this activation.
pub(super) fn feature(act: Act) -> &'static str {
    match act {
        Act::Silu => "SILU",
        Act::GeluTanh => "GELU_TANH",
        Act::GeluErf => "GELU_ERF",
        Act::GeluQuick => "GELU_QUICK",
        Act::Relu => "RELU",
        Act::ReluSquared => "RELU_SQUARED",
        Act::Sigmoid => "SIGMOID",
        Act::Tanh => "TANH",
        Act::Softplus => "SOFTPLUS",
        Act::Sqrt => "SQRT",
        Act::ExpBelow => "EXP_BELOW",
        Act::Identity => "IDENTITY",
    }
}

/// Features and parameters of a gated activation.
pub(super) fn gated(gated: Gated) -> (Vec<&'static str>, [(&'static str, u32); 2]) {
    let Gated { act, limit, limits_result, up_offset } = gated;
    let mut features = vec!["GLU", feature(act)];
    if limit.is_finite() || up_offset != 0.0 {
        features.push("LIMIT");
    }
    if limits_result {
        features.push("LIMITS_RESULT");
    }
    // Shaders may assume that no float is infinite.
    (features, [("limit", limit.min(f32::MAX).to_bits()), ("up_offset", up_offset.to_bits())])
}

impl Lowering<'_> {
    /// From a run's elements of a vector to the next run's: 0 where all runs share them.
    pub(super) fn step(&self, vector: Option<WeightId>, group: usize) -> u32 {
        let rows = vector.map_or(group, |id| self.plan.weight(id).rows());
        if rows == group { 0 } else { group as u32 }
    }

    /// Normalises the columns `x` into `to`, which may be the same.
    pub(super) fn norm(&self, x: View, norm: &Norm, to: View, when: RangeInclusive<usize>) -> Dispatch {
        let Norm { kind, eps, group, weight, bias } = *norm;
        let (rows, in_place) = (self.plan.slot(x.slot).rows, x.slot == to.slot);
        let layer = match kind {
            NormKind::Rms => false,
            NormKind::Layer => true,
        };
        let features = [
            (layer, "LAYER"),
            (weight.is_some(), "WEIGHT"),
            (bias.is_some(), "BIAS"),
            (in_place, "IN_PLACE"),
            (self.forms.subgroups, "SUBGROUPS"),
        ];
        let features = features.into_iter().filter(|f| f.0).map(|f| f.1).collect();
        let wg = if group > 512 { 256 } else { WG };
        let mut bindings = vec![("out", self.buffer(to.slot))];
        if !in_place {
            bindings.push(("x", self.buffer(x.slot)));
        }
        Dispatch {
            key: Key { kernel: "norm", features, consts: vec![("WG", wg)] },
            bindings,
            params: vec![
                ("rows_at", rows_at(rows)),
                ("x_start", x.start as u32),
                ("x_stride", self.plan.slot(x.slot).cols as u32),
                ("out_start", to.start as u32),
                ("out_stride", self.plan.slot(to.slot).cols as u32),
                ("run", group as u32),
                ("n_runs", (x.cols / group) as u32),
                ("eps", eps.to_bits()),
                ("weight_at", self.constants.word(weight)),
                ("weight_step", self.step(weight, group)),
                ("bias_at", self.constants.word(bias)),
                ("bias_step", self.step(bias, group)),
            ],
            grid: Grid { count: Count::Rows(rows), block: 1, times: x.cols / group, per: 1 },
            when: (rows, when),
            op: 0,
            work: 0,
        }
    }

    /// A kernel with one invocation per element of `like`.
    pub(super) fn elementwise(
        &self,
        kernel: &'static str,
        features: &[&'static str],
        slots: &[(&'static str, Slot)],
        like: Slot,
        params: &[(&'static str, u32)],
    ) -> Dispatch {
        let (rows, n) = (self.plan.slot(like).rows, self.plan.slot(like).cols);
        Dispatch {
            key: Key { kernel, features: features.to_vec(), consts: vec![("WG", WG)] },
            bindings: slots.iter().map(|(name, slot)| (*name, self.buffer(*slot))).collect(),
            params: [&[("n", n as u32), ("rows_at", rows_at(rows))], params].concat(),
            grid: Grid { count: Count::Rows(rows), block: 1, times: n, per: WG as usize },
            when: (rows, ANY),
            op: 0,
            work: 0,
        }
    }

    /// `x = factor * act(x + bias)`.
    pub(super) fn act(&self, x: View, act: Act, bias: Option<WeightId>, factor: Option<WeightId>) -> Dispatch {
        let vectors = [("bias_at", self.constants.word(bias)), ("factor_at", self.constants.word(factor))];
        let mut features = vec![feature(act)];
        features.extend([bias.map(|_| "BIAS"), factor.map(|_| "FACTOR")].into_iter().flatten());
        self.columns("act", &features, &[("x", x.slot)], x, &vectors)
    }

    /// `x *= act(gate)`.
    pub(super) fn gate(&self, x: View, gate: View, act: Act, group: usize) -> Dispatch {
        let params = [
            ("gate_start", gate.start as u32),
            ("gate_stride", self.plan.slot(gate.slot).cols as u32),
            ("group", group as u32),
        ];
        self.columns("gate", &[feature(act)], &[("x", x.slot), ("gate", gate.slot)], x, &params)
    }

    /// Sums of streams.
    pub(super) fn mix(&self, x: View, coef: View, width: usize, out: Slot) -> Dispatch {
        let params = [
            ("x_start", x.start as u32),
            ("x_stride", self.plan.slot(x.slot).cols as u32),
            ("coef_start", coef.start as u32),
            ("coef_stride", self.plan.slot(coef.slot).cols as u32),
            ("width", width as u32),
            ("n_in", (x.cols / width) as u32),
        ];
        self.elementwise("mix", &[], &[("x", x.slot), ("coef", coef.slot), ("out", out)], out, &params)
    }

    /// Factors between streams of logits.
    pub(super) fn balance(&self, x: View, n: usize, rounds: usize, eps: f32) -> Result<Dispatch> {
        if n > MOST_STREAMS {
            return Err(Lowering::too_large(format!("factors between {n} streams")));
        }
        let params = [("rounds", rounds as u32), ("eps", eps.to_bits())];
        let mut dispatch = self.columns("balance", &[], &[("x", x.slot)], x, &params);
        dispatch.key.consts.push(("N", n as u32));
        dispatch.grid.times = 1;
        Ok(dispatch)
    }

    /// A kernel with one invocation per element of a view.
    fn columns(
        &self,
        kernel: &'static str,
        features: &[&'static str],
        slots: &[(&'static str, Slot)],
        x: View,
        params: &[(&'static str, u32)],
    ) -> Dispatch {
        let mut dispatch = self.elementwise(kernel, features, slots, x.slot, params);
        dispatch.params.retain(|param| param.0 != "n");
        let stride = self.plan.slot(x.slot).cols;
        dispatch.params.extend([("n", x.cols as u32), ("start", x.start as u32), ("stride", stride as u32)]);
        dispatch.grid.times = x.cols;
        dispatch
    }

    /// `out = gated activation of x`, whose rows are `runs` runs of gates, each with its ups behind it.
    pub(super) fn glu(&self, x: Slot, formula: Gated, out: Slot, runs: usize) -> Dispatch {
        let (features, [limit, up_offset]) = gated(formula);
        let run = ("run", (self.plan.slot(out).cols / runs) as u32);
        self.elementwise("glu", &features, &[("x", x), ("out", out)], out, &[run, limit, up_offset])
    }

    /// `x *= factor * weight`.
    pub(super) fn scale(&self, x: Slot, factor: f32, weight: Option<WeightId>) -> Dispatch {
        let features: &[&str] = if weight.is_some() { &["WEIGHT"] } else { &[] };
        let step = weight.map_or(0, |id| u32::from(self.plan.weight(id).rows() > 1));
        let params = [("factor", factor.to_bits()), ("weight_at", self.constants.word(weight)), ("weight_step", step)];
        self.elementwise("scale", features, &[("x", x)], x, &params)
    }
}
