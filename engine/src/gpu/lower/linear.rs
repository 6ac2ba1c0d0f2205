//! Lowering of products: few rows by `linear_vec`, many by `linear_mat` or `linear_coop`, with what stands in front of them
//! and what happens then. What a kernel of products has no form for gets dispatches of its own. No device here.

use std::ops::RangeInclusive;

use super::heads::InProduct;
use super::{ANY, FEW, Lowering, MANY, WG, rows, rows_at};
use crate::error::Result;
use crate::gpu::dispatch::{Count, Dispatch, Grid, Key, Resource};
use crate::gpu::parts::{Part, RowRange};
use crate::gpu::planes::{UNIT, feature, units};
use crate::plan::{Act, Epilogue, Gated, Norm, NormKind, Prologue, Rows, Slot, WeightId};

/// The row counts that have a `linear_vec` of their own: `(ROWS, from, to)`.
const VEC_ROWS: [(u32, usize, usize); 4] = [(1, 1, 1), (2, 2, 2), (4, 3, 4), (8, 5, FEW)];
/// Invocations where a subgroup owns a row of the weight: four subgroups of the usual size.
const OWNED_WG: u32 = 128;
/// Tiles of 64 rows pay from here on; below, those of 32.
const TALL: usize = 33;

/// What the kernels themselves do to a product.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum KernelEpilogue {
    Store,
    Add(f32),
    Act(Act),
    Glu(Gated),
}

/// A product as the kernels take it.
pub(super) struct Product {
    pub x: Slot,
    pub rows: Rows,
    /// A norm that happens on the way, and where those kernels find its result that cannot do it.
    pub norm: Option<Prologue>,
    pub weight: WeightId,
    pub scale: Option<WeightId>,
    pub bias: Option<WeightId>,
    pub epilogue: KernelEpilogue,
    pub out: Slot,
    /// Few rows of `x` are multiplied as signed bytes: see [`Lowering::quantised`].
    pub bytes: bool,
    /// The columns of `x` are no whole units.
    pub ragged: bool,
    /// Columns from a row of `x` to the next, and from a row of `out`.
    pub strides: [usize; 2],
    /// Its columns are heads, which the kernel of few rows makes ready itself.
    pub heads: Option<InProduct>,
}

/// A piece of a product that is one dispatch: a part of the weight, and some of its rows.
#[derive(Clone, Copy)]
pub(super) struct Piece<'a> {
    pub index: usize,
    pub part: &'a Part,
    pub range: RowRange,
}

/// Where the scales of few rows of so many columns as signed bytes begin, in vectors of 16 bytes: behind the bytes.
fn scales_at(cols: usize) -> u32 {
    (2 * units(cols) * FEW) as u32
}

/// Whether kernels can normalise on the way: the norm's factor is then common to a row, and applied to the sums.
fn on_the_way(norm: &Norm, cols: usize) -> bool {
    let Norm { kind, eps: _, group, weight, bias } = norm;
    *kind == NormKind::Rms && *group == cols && weight.is_some() && bias.is_none() && cols.is_multiple_of(UNIT)
}

impl Lowering<'_> {
    /// The op `linear`; `vectors` are its factors and its summands.
    pub(super) fn linear(
        &self,
        x: Slot,
        norm: Option<Prologue>,
        weight: WeightId,
        vectors: [Option<WeightId>; 2],
        then: Epilogue,
        out: &mut Vec<Dispatch>,
    ) -> Result<()> {
        let (cols, parts) = (self.plan.weight(weight).cols, self.part(weight));
        let blocks = parts.iter().all(|p| !p.dtype.is_plain());
        let bytes = self.forms.dot4 && blocks;
        let rows = self.plan.slot(x).rows;
        let (x, norm) = match norm {
            Some(Prologue { norm, normed }) if !on_the_way(&norm, cols) => {
                out.push(self.norm(self.all(x), &norm, self.all(normed), ANY));
                if bytes {
                    out.push(self.quantise(normed, None, normed));
                }
                (normed, None)
            }
            norm => (x, norm),
        };
        let (epilogue, to) = match then {
            Epilogue::Add { to, factor, product: _ } => (KernelEpilogue::Add(factor), to),
            Epilogue::Act { act, out: to } => (KernelEpilogue::Act(act), to),
            Epilogue::Glu { gated, product: _, out: to } if parts.iter().all(|p| p.paired) => {
                (KernelEpilogue::Glu(gated), to)
            }
            Epilogue::Glu { gated: _, product: to, out: _ }
            | Epilogue::Store { out: to }
            | Epilogue::Heads { heads: _, out: to } => (KernelEpilogue::Store, to),
        };
        let [scale, bias] = vectors;
        let ragged = !cols.is_multiple_of(UNIT);
        let strides = [cols, self.plan.slot(to).cols];
        let heads = match then {
            Epilogue::Heads { heads, out: _ } => self.in_product(&self.plan.heads[heads], parts),
            Epilogue::Store { out: _ }
            | Epilogue::Add { to: _, factor: _, product: _ }
            | Epilogue::Act { act: _, out: _ }
            | Epilogue::Glu { gated: _, product: _, out: _ } => None,
        };
        let behind = if heads.is_some() { MANY } else { ANY };
        let job = Product { x, rows, norm, weight, scale, bias, epilogue, out: to, bytes, ragged, strides, heads };
        self.product(&job, out);
        match then {
            Epilogue::Glu { gated, product, out: to } if epilogue == KernelEpilogue::Store => {
                out.push(self.glu(product, gated, to, 1))
            }
            Epilogue::Heads { heads, out: to } => self.heads(&self.plan.heads[heads], to, behind, out)?,
            Epilogue::Store { out: _ }
            | Epilogue::Add { to: _, factor: _, product: _ }
            | Epilogue::Act { act: _, out: _ }
            | Epilogue::Glu { gated: _, product: _, out: _ } => {}
        }
        Ok(())
    }

    fn product(&self, job: &Product, out: &mut Vec<Dispatch>) {
        if let Some(Prologue { norm, normed }) = job.norm {
            if job.bytes {
                out.push(self.quantise(job.x, Some(norm), normed));
            }
            out.push(self.norm(self.all(job.x), &norm, self.all(normed), MANY));
        }
        for (index, part) in self.part(job.weight).iter().enumerate() {
            for range in job.ranges(part) {
                let piece = Piece { index, part, range };
                self.linear_vec(job, piece, out);
                if self.forms.coopmat {
                    out.push(self.linear_coop(job, piece));
                    continue;
                }
                if job.ragged {
                    out.push(self.linear_mat(job, piece, false, FEW + 1..=usize::MAX));
                    continue;
                }
                for (tall, when) in [(false, FEW + 1..=TALL - 1), (true, TALL..=usize::MAX)] {
                    out.push(self.linear_mat(job, piece, tall, when));
                }
            }
        }
    }

    /// Operations per row of a product.
    pub(super) fn work(&self, job: &Product, range: RowRange) -> u64 {
        let columns = range.n as u64 * if job.gated() { 2 } else { 1 };
        2 * columns * self.plan.weight(job.weight).cols as u64
    }

    /// The features and parameters that all kernels of a product share.
    pub(super) fn shared(&self, job: &Product, piece: Piece<'_>) -> (Vec<&'static str>, Vec<(&'static str, u32)>) {
        let Piece { index: _, part, range } = piece;
        let cols = self.plan.weight(job.weight).cols;
        let mut features = vec![feature(part.dtype)];
        let (mut factor, mut limits) = (1.0, [("limit", 0), ("up_offset", 0)]);
        match job.epilogue {
            KernelEpilogue::Store => {}
            KernelEpilogue::Add(by) => {
                features.push("ADD");
                factor = by;
            }
            KernelEpilogue::Act(act) => features.extend(["ACT", rows::feature(act)]),
            KernelEpilogue::Glu(gated) => {
                let (more, params) = rows::gated(gated);
                features.extend(more);
                limits = params;
            }
        }
        for (on, name) in [(job.scale.is_some(), "SCALE"), (job.bias.is_some(), "BIAS"), (job.ragged, "RAGGED")] {
            if on {
                features.push(name);
            }
        }
        let up = part.ranges.last().copied().unwrap_or(range);
        let planes = part.layout.starts.map(|byte| (byte / 16) as u32);
        let norm = job.norm.map(|prologue| prologue.norm);
        let mut params = vec![
            ("rows_at", rows_at(job.rows)),
            ("n", range.n as u32),
            ("w_row", range.at as u32),
            ("units", units(cols) as u32),
            ("cols", cols as u32),
            ("pair", (up.at - range.at.min(up.at)) as u32),
            ("plane1", planes[1]),
            ("plane2", planes[2]),
            ("plane3", planes[3]),
            ("norm_at", self.constants.word(norm.and_then(|norm| norm.weight))),
            ("eps", norm.map_or(0.0, |norm| norm.eps).to_bits()),
            ("out_start", range.row as u32),
            ("x_stride", job.strides[0] as u32),
            ("scales_at", scales_at(self.plan.slot(job.x).cols)),
            ("out_stride", job.strides[1] as u32),
            ("column_pair", (up.row - range.row.min(up.row)) as u32),
            ("scale_at", self.constants.word(job.scale)),
            ("bias_at", self.constants.word(job.bias)),
            ("factor", factor.to_bits()),
        ];
        params.extend(limits);
        (features, params)
    }

    fn linear_vec(&self, job: &Product, piece: Piece<'_>, out: &mut Vec<Dispatch>) {
        let (mut features, mut params) = self.shared(job, piece);
        let w = Resource::Part(job.weight, piece.index);
        let mut bindings = vec![("w", w), ("out", self.buffer(job.out))];
        for (on, name) in [(job.bytes, "DOT4"), (job.norm.is_some(), "NORM")] {
            if on {
                features.push(name);
            }
        }
        if self.forms.subgroups {
            features.push("SUBGROUPS");
        }
        if let Some(heads) = &job.heads {
            features.extend(&heads.features);
            bindings.extend(&heads.bindings);
            params.retain(|(name, _)| heads.params.iter().all(|own| own.0 != *name));
            params.extend(&heads.params);
        }
        let owned = self.owned();
        if owned {
            features.push("OWNED");
        }
        let wg = if owned { OWNED_WG } else { WG };
        for (n, from, to) in VEC_ROWS {
            let (mut features, mut bindings) = (features.clone(), bindings.clone());
            let x = if job.bytes && self.quantised().contains(&to) {
                features.push("BYTES");
                Resource::Bytes(self.plan.slot(job.normed()).buffer)
            } else {
                self.buffer(job.x)
            };
            bindings.push(("x", x));
            let key = Key { kernel: "linear_vec", features, consts: vec![("WG", wg), ("ROWS", n)] };
            let times = piece.range.n.div_ceil(if job.gated() { 2 } else { 4 });
            let grid = Grid { count: Count::Rows(job.rows), block: n as usize, times, per: 1 };
            let (params, work) = (params.clone(), self.work(job, piece.range));
            out.push(Dispatch { key, bindings, params, grid, when: (job.rows, from..=to), op: 0, work });
        }
    }

    fn linear_mat(&self, job: &Product, piece: Piece<'_>, tall: bool, when: RangeInclusive<usize>) -> Dispatch {
        let (mut features, params) = self.shared(job, piece);
        for (on, name) in [(tall, "TALL"), (self.forms.f16, "F16")] {
            if on {
                features.push(name);
            }
        }
        let x = self.buffer(job.normed());
        let w = Resource::Part(job.weight, piece.index);
        let bindings = vec![("x", x), ("w", w), ("out", self.buffer(job.out))];
        let key = Key { kernel: "linear_mat", features, consts: vec![] };
        let times = piece.range.n.div_ceil(if job.gated() { 32 } else { 64 });
        let grid = Grid { count: Count::Rows(job.rows), block: if tall { 64 } else { 32 }, times, per: 1 };
        let work = self.work(job, piece.range);
        Dispatch { key, bindings, params, grid, when: (job.rows, when), op: 0, work }
    }

    fn linear_coop(&self, job: &Product, piece: Piece<'_>) -> Dispatch {
        // The same operands by the same names; a workgroup of at least 4 subgroups for each 32 rows.
        let mut dispatch = self.linear_mat(job, piece, false, MANY);
        dispatch.key.features.push("COOPMAT");
        dispatch.key = Key { kernel: "linear_coop", consts: vec![("WG", 256)], ..dispatch.key };
        dispatch
    }

    /// For how many rows signed bytes are made in front of products. A single row's are made by the products themselves, by each
    /// of their workgroups, which spares a dispatch; not where a subgroup has one row of a weight at a time, since
    /// making them would take longer than multiplying.
    pub(super) fn quantised(&self) -> RangeInclusive<usize> {
        if self.owned() { 1..=FEW } else { 2..=FEW }
    }

    fn owned(&self) -> bool {
        self.forms.owned && self.forms.subgroups
    }

    /// Few rows of a slot as signed bytes, if a reader takes such: part of the op that writes the slot.
    pub(in crate::gpu) fn blocks(&self, slot: Slot) -> Option<Dispatch> {
        (self.forms.dot4 && self.plan.slot(slot).readers.blocks).then(|| self.quantise(slot, None, slot))
    }

    /// Few rows of `x`, perhaps with the factors of a norm, as the signed bytes of `to`.
    fn quantise(&self, x: Slot, norm: Option<Norm>, to: Slot) -> Dispatch {
        let (rows, buffer) = (self.plan.slot(x).rows, self.plan.slot(to).buffer);
        let bindings = vec![("x", self.buffer(x)), ("x_bytes", Resource::Bytes(buffer))];
        let features = if norm.is_some() { vec!["NORM"] } else { vec![] };
        let units = units(self.plan.slot(x).cols);
        let grid = Grid { count: Count::Rows(rows), block: 1, times: units, per: WG as usize };
        let params = vec![
            ("rows_at", rows_at(rows)),
            ("units", units as u32),
            ("norm_at", self.constants.word(norm.and_then(|norm| norm.weight))),
            ("scales_at", scales_at(self.plan.slot(x).cols)),
        ];
        let key = Key { kernel: "quantise", features, consts: vec![("WG", WG)] };
        Dispatch { key, bindings, params, grid, when: (rows, self.quantised()), op: 0, work: 0 }
    }
}

impl Product {
    /// The input of kernels that cannot normalise on the way.
    fn normed(&self) -> Slot {
        self.norm.map_or(self.x, |prologue| prologue.normed)
    }

    /// The rows of a part that are a dispatch each.
    pub(super) fn ranges(&self, part: &Part) -> Vec<RowRange> {
        if self.gated() { part.ranges[..1].to_vec() } else { part.joined() }
    }

    /// Whether columns are multiplied in pairs.
    pub(super) fn gated(&self) -> bool {
        matches!(self.epilogue, KernelEpilogue::Glu(_))
    }
}
