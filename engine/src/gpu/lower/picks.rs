//! Lowering of what mixtures have beside their products: routing, and sums over the picks. No device here.

use super::{ANY, Lowering, WG, rows_at};
use crate::error::Result;
use crate::gpu::dispatch::{Count, Dispatch, Grid, Key};
use crate::plan::{Pick, Routing, Scoring, Slot, WeightId};

/// Experts for which kernels have workgroup memory.
pub(super) const MOST_EXPERTS: usize = 1024;

/// The feature that makes scores of logits.
fn feature(scoring: Scoring) -> &'static str {
    match scoring {
        Scoring::Softmax => "SOFTMAX",
        Scoring::Sigmoid => "SIGMOID",
        Scoring::SoftmaxOfPicked => "PICKED_SOFTMAX",
        Scoring::SqrtSoftplus => "SQRT_SOFTPLUS",
        Scoring::SparseMixer { within: _ } => "SPARSE_MIXER",
    }
}

impl Lowering<'_> {
    pub(super) fn route(&self, x: Slot, bias: Option<WeightId>, routing: &Routing, to: Slot) -> Result<Dispatch> {
        let Routing { scoring, used, groups, groups_used, renorm, scale } = *routing;
        let (rows, n) = (self.plan.slot(x).rows, self.plan.slot(x).cols);
        if n > MOST_EXPERTS {
            return Err(Lowering::too_large(format!("a mixture of {n} experts")));
        }
        let more = [(bias.is_some(), "BIAS"), (groups_used < groups, "GROUPS"), (self.forms.subgroups, "SUBGROUPS")];
        let more = more.into_iter().filter(|more| more.0).map(|more| more.1);
        let features = std::iter::once(feature(scoring)).chain(more).collect();
        Ok(Dispatch {
            key: Key { kernel: "route", features, consts: vec![("WG", WG), ("E", n as u32)] },
            bindings: vec![("x", self.buffer(x)), ("out", self.buffer(to))],
            params: vec![
                ("rows_at", rows_at(rows)),
                ("n", n as u32),
                ("used", used as u32),
                ("groups", groups as u32),
                ("groups_used", groups_used as u32),
                ("renorm", u32::from(renorm)),
                ("scale", scale.to_bits()),
                ("bias_at", self.constants.word(bias)),
                ("within", if let Scoring::SparseMixer { within } = scoring { within.to_bits() } else { 0 }),
            ],
            grid: Grid { count: Count::Rows(rows), block: 1, times: 1, per: 1 },
            when: (rows, ANY),
            op: 0,
            work: 0,
        })
    }

    pub(super) fn combine(&self, x: Slot, pick: Pick, weighted: bool, to: Slot) -> Dispatch {
        let Pick { picks, used, of } = pick;
        let params = [("used", used as u32), ("n_stack", of as u32)];
        if !weighted {
            return self.elementwise("combine", &["UNWEIGHTED"], &[("x", x), ("out", to)], to, &params);
        }
        self.elementwise("combine", &[], &[("x", x), ("picks", picks), ("out", to)], to, &params)
    }
}
