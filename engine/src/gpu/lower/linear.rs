//! Lowering of products: few rows by `linear_vec`, many by `linear_mat`, with what the recorder fused around them. No device
//! here.

use std::ops::RangeInclusive;

use super::{FEW, Lowering, MANY, WG, rows_at};
use crate::error::Result;
use crate::gpu::dispatch::{Count, Dispatch, Grid, Key, Resource};
use crate::gpu::parts::{Part, RowRange};
use crate::gpu::planes::{UNIT, feature, units};
use crate::plan::{Entry, Op, Rows, Slot, View, WeightId};

/// The row counts that have a `linear_vec` of their own: `(ROWS, from, to)`.
const VEC_ROWS: [(u32, usize, usize); 4] = [(1, 1, 1), (2, 2, 2), (4, 3, 4), (8, 5, FEW)];
/// Tiles of 64 rows pay from here on; below, those of 32.
const TALL: usize = 33;

/// A product with what is fused into it.
pub(super) struct Product {
    pub(super) x: Slot,
    pub(super) weight: WeightId,
    pub(super) bias: Option<WeightId>,
    pub(super) norm: Option<Norm>,
    pub(super) glu: bool,
    pub(super) add: bool,
    pub(super) out: Slot,
}

/// A norm in front of a product.
#[derive(Clone, Copy)]
pub(super) struct Norm {
    pub(super) weight: WeightId,
    pub(super) eps: f32,
    pub(super) out: Slot,
}

impl Lowering<'_> {
    /// Operations per row of a product.
    fn work(&self, job: &Product, range: RowRange) -> u64 {
        let columns = range.n as u64 * if job.glu { 2 } else { 1 };
        2 * columns * self.plan.weight(job.weight).cols as u64
    }

    /// `[norm] linear [glu | add]`, and the number of ops.
    pub(super) fn product(&self, ops: &[Entry]) -> Option<(Product, usize)> {
        let (mut at, mut norm) = (0, None);
        if let Op::Norm { x, weight, eps, group, out, .. } = ops[0].op {
            let whole = x.start == 0 && x.cols == self.plan.slot(x.slot).cols && group == x.cols;
            if !whole || !x.cols.is_multiple_of(UNIT) || !self.read_once(out) {
                return None;
            }
            (at, norm) = (1, Some((x.slot, Norm { weight, eps, out })));
        }
        let Op::Linear { x, weight, bias, out } = ops.get(at)?.op else { return None };
        if norm.is_some_and(|(_, n)| n.out != x) {
            return None;
        }
        let source = norm.map_or(x, |(slot, _)| slot);
        let mut product = Product { x: source, weight, bias, norm: norm.map(|n| n.1), glu: false, add: false, out };
        let once = self.read_once(out);
        match ops.get(at + 1).map(|e| e.op) {
            Some(Op::Glu { x, out: gated, .. }) if x == out && once && self.part(weight).iter().all(|p| p.paired) => {
                (product.glu, product.out) = (true, gated);
            }
            Some(Op::Add { x, y }) if y == out && x != source && once => (product.add, product.out) = (true, x),
            _ => return Some((product, at + 1)),
        }
        Some((product, at + 2))
    }

    pub(super) fn linear(&self, job: &Product, out: &mut Vec<Dispatch>) -> Result<()> {
        let weight = self.plan.weight(job.weight);
        let rows = self.plan.slot(job.x).rows;
        let ragged = !weight.cols.is_multiple_of(UNIT);
        let bytes = self.forms.dot4 && self.part(job.weight).iter().all(|p| p.dtype.block_len() > 1);
        if bytes {
            out.push(self.quantise(job, rows, weight.cols));
        }
        if let Some(norm) = job.norm {
            let x = View { slot: job.x, start: 0, cols: weight.cols };
            out.push(self.norm(x, norm.weight, norm.eps, weight.cols, norm.out, MANY));
        }
        for (index, part) in self.part(job.weight).iter().enumerate() {
            let ranges = if job.glu { part.ranges[..1].to_vec() } else { part.joined() };
            for range in ranges {
                self.linear_vec(job, rows, (index, part), range, bytes, ragged, out);
                if self.forms.coopmat {
                    out.push(self.linear_coop(job, rows, (index, part), range, ragged));
                    continue;
                }
                for (tall, when) in [(false, FEW + 1..=TALL - 1), (true, TALL..=usize::MAX)] {
                    out.push(self.linear_mat(job, rows, (index, part), range, ragged, (tall, when)));
                }
            }
        }
        Ok(())
    }

    /// The features, bindings and parameters that both kernels of a product share.
    fn product_parts(
        &self,
        job: &Product,
        rows: Rows,
        part: &Part,
        range: RowRange,
    ) -> (Vec<&'static str>, Vec<(&'static str, u32)>) {
        let weight = self.plan.weight(job.weight);
        let mut features = vec![feature(part.dtype)];
        for (on, name) in [(job.glu, "GLU"), (job.add, "ADD"), (job.bias.is_some(), "BIAS")] {
            if on {
                features.push(name);
            }
        }
        let up = part.ranges.last().copied().unwrap_or(range);
        let planes = part.layout.starts.map(|byte| (byte / 16) as u32);
        let params = vec![
            ("rows_at", rows_at(rows)),
            ("n", range.n as u32),
            ("w_row", range.at as u32),
            ("units", units(weight.cols) as u32),
            ("cols", weight.cols as u32),
            ("out_start", range.row as u32),
            ("out_stride", self.plan.slot(job.out).cols as u32),
            ("pair", (up.at - range.at.min(up.at)) as u32),
            ("bias_pair", (up.row - range.row.min(up.row)) as u32),
            ("plane1", planes[1]),
            ("plane2", planes[2]),
            ("plane3", planes[3]),
        ];
        (features, params)
    }

    #[allow(clippy::too_many_arguments, reason = "all of it is the description of one product")]
    fn linear_vec(
        &self,
        job: &Product,
        rows: Rows,
        (index, part): (usize, &Part),
        range: RowRange,
        bytes: bool,
        ragged: bool,
        out: &mut Vec<Dispatch>,
    ) {
        let (mut features, mut params) = self.product_parts(job, rows, part, range);
        let w = Resource::Part(job.weight, index);
        let mut bindings = vec![("w", w), ("out", self.buffer(job.out))];
        if bytes {
            features.push("DOT4");
            bindings.extend([("x", Resource::Bytes), ("x_scale", Resource::Scales)]);
        } else {
            bindings.push(("x", self.buffer(job.x)));
            if let Some(norm) = job.norm {
                features.push("NORM");
                bindings.push(("norm_weight", Resource::Vector(norm.weight)));
            }
        }
        params.push(("eps", job.norm.map_or(0.0, |n| n.eps).to_bits()));
        bindings.extend(job.bias.map(|b| ("bias", Resource::Vector(b))));
        if ragged {
            features.push("RAGGED");
        }
        if self.forms.subgroups {
            features.push("SUBGROUPS");
        }
        for (n, from, to) in VEC_ROWS {
            let key = Key { kernel: "linear_vec", features: features.clone(), consts: vec![("WG", WG), ("ROWS", n)] };
            let times = range.n.div_ceil(if job.glu { 2 } else { 4 });
            let grid = Grid { count: Count::Rows(rows), block: n as usize, times, per: 1 };
            let (bindings, params) = (bindings.clone(), params.clone());
            let work = self.work(job, range);
            out.push(Dispatch { key, bindings, params, grid, when: (rows, from..=to), op: 0, work });
        }
    }

    fn linear_mat(
        &self,
        job: &Product,
        rows: Rows,
        (index, part): (usize, &Part),
        range: RowRange,
        ragged: bool,
        (tall, when): (bool, RangeInclusive<usize>),
    ) -> Dispatch {
        let (mut features, params) = self.product_parts(job, rows, part, range);
        for (on, name) in [(ragged, "RAGGED"), (tall, "TALL"), (self.forms.f16, "F16")] {
            if on {
                features.push(name);
            }
        }
        let x = self.buffer(job.norm.map_or(job.x, |n| n.out));
        let mut bindings = vec![("x", x), ("w", Resource::Part(job.weight, index)), ("out", self.buffer(job.out))];
        bindings.extend(job.bias.map(|b| ("bias", Resource::Vector(b))));
        let key = Key { kernel: "linear_mat", features, consts: vec![] };
        let times = range.n.div_ceil(if job.glu { 32 } else { 64 });
        let grid = Grid { count: Count::Rows(rows), block: if tall { 64 } else { 32 }, times, per: 1 };
        let work = self.work(job, range);
        Dispatch { key, bindings, params, grid, when: (rows, when), op: 0, work }
    }

    fn linear_coop(&self, job: &Product, rows: Rows, part: (usize, &Part), range: RowRange, ragged: bool) -> Dispatch {
        // The same operands by the same names; a workgroup of at least 4 subgroups for each 32 rows.
        let mut dispatch = self.linear_mat(job, rows, part, range, ragged, (false, MANY));
        dispatch.key.features.push("COOPMAT");
        dispatch.key = Key { kernel: "linear_coop", consts: vec![("WG", 256)], ..dispatch.key };
        dispatch
    }

    fn quantise(&self, job: &Product, rows: Rows, cols: usize) -> Dispatch {
        let mut bindings = vec![("x", self.buffer(job.x)), ("x_bytes", Resource::Bytes), ("x_scale", Resource::Scales)];
        let mut features = Vec::new();
        let mut grid = Grid { count: Count::Rows(rows), block: 1, times: units(cols), per: WG as usize };
        let mut params = vec![("rows_at", rows_at(rows)), ("units", units(cols) as u32), ("eps", 0)];
        if let Some(norm) = job.norm {
            features.push("NORM");
            if self.forms.subgroups {
                features.push("SUBGROUPS");
            }
            bindings.push(("norm_weight", Resource::Vector(norm.weight)));
            grid = Grid { times: 1, per: 1, ..grid };
            params[2].1 = norm.eps.to_bits();
        }
        let key = Key { kernel: "quantise", features, consts: vec![("WG", WG)] };
        Dispatch { key, bindings, params, grid, when: (rows, 1..=FEW), op: 0, work: 0 }
    }
}
