//! From ops to dispatches: one arm per op, and the fusion groups that have a kernel of their own. Pure; tested without a
//! device. Row counts are not known here: each dispatch says for how many rows it is meant.

use std::ops::{Range, RangeInclusive};

use ir_shaders::step_word;

use super::dispatch::{Count, Dispatch, Grid, Key, Resource};
use super::forms::Forms;
use super::parts::{Part, RowRange};
use super::planes::{UNIT, feature, units};
use crate::error::{Error, Result};
use crate::plan::{Entry, KvKind, KvShape, Op, Plan, RopeStyle, Rows, Slot, View, WeightId};

/// Invocations of a workgroup in most kernels.
const WG: u32 = 64;
/// Products of up to this many rows read each weight once per `ROWS` rows; larger ones go by tiles.
pub(super) const FEW: usize = 8;
/// The row counts that have a `linear_vec` of their own: `(ROWS, from, to)`.
const VEC_ROWS: [(u32, usize, usize); 4] = [(1, 1, 1), (2, 2, 2), (4, 3, 4), (8, 5, FEW)];
const ANY: RangeInclusive<usize> = 1..=usize::MAX;
const MANY: RangeInclusive<usize> = FEW + 1..=usize::MAX;
/// Tiles of 64 rows pay from here on; below, those of 32.
const TALL: usize = 33;

/// What lowering needs to know besides the plan.
pub(super) struct Lowering<'a> {
    pub plan: &'a Plan,
    /// The parts of each weight that is a matrix.
    pub parts: &'a [Vec<Part>],
    pub forms: Forms,
    pub kv: KvKind,
}

/// A product with what is fused into it.
struct Product {
    x: Slot,
    weight: WeightId,
    bias: Option<WeightId>,
    norm: Option<Norm>,
    glu: bool,
    add: bool,
    out: Slot,
}

/// A norm in front of a product.
#[derive(Clone, Copy)]
struct Norm {
    weight: WeightId,
    eps: f32,
    out: Slot,
}

/// A rope, perhaps with a norm in front: `[norm] rope`.
struct Turn {
    view: View,
    norm: Option<(WeightId, f32, Slot)>,
    head_dim: usize,
    rope: usize,
}

/// The word of the step that counts these rows.
fn rows_at(rows: Rows) -> u32 {
    match rows {
        Rows::Tokens => step_word("STEP_N_TOKENS"),
        Rows::Outputs => step_word("STEP_N_OUTPUTS"),
    }
}

impl Lowering<'_> {
    /// The dispatches of some of the plan's ops.
    ///
    /// # Errors
    /// Where a shape is beyond what the kernels take.
    pub(super) fn lower(&self, range: Range<usize>) -> Result<Vec<Dispatch>> {
        let mut out = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let group = self.plan.ops[at].group;
            let n = self.plan.ops[at..range.end].iter().take_while(|e| e.group == group).count();
            let done = out.len();
            let used = self.fused(&self.plan.ops[at..at + n], &mut out)?;
            out[done..].iter_mut().for_each(|d| d.op = at);
            at += used;
        }
        Ok(out)
    }

    /// Lowers the first op of a group's rest, with those that go with it; gives their number.
    fn fused(&self, ops: &[Entry], out: &mut Vec<Dispatch>) -> Result<usize> {
        if self.forms.fuse {
            if let Some((product, used)) = self.product(ops) {
                self.linear(&product, out)?;
                return Ok(used);
            }
            if let Some(used) = self.rope_kv(ops, out) {
                return Ok(used);
            }
        }
        self.single(&ops[0].op, out)?;
        Ok(1)
    }

    /// Whether `slot` is read by one op only, so that it need not exist.
    fn read_once(&self, slot: Slot) -> bool {
        slot != self.plan.logits && self.plan.ops.iter().filter(|e| e.op.reads().contains(&slot)).count() == 1
    }

    /// `[norm] linear [glu | add]`, and the number of ops.
    fn product(&self, ops: &[Entry]) -> Option<(Product, usize)> {
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

    fn part(&self, weight: WeightId) -> &[Part] {
        &self.parts[weight.0 as usize]
    }

    fn buffer(&self, slot: Slot) -> Resource {
        Resource::Buffer(self.plan.slot(slot).buffer)
    }

    fn linear(&self, job: &Product, out: &mut Vec<Dispatch>) -> Result<()> {
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
            out.push(Dispatch { key, bindings, params, grid, when: (rows, from..=to), op: 0 });
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
        Dispatch { key, bindings, params, grid, when: (rows, when), op: 0 }
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
        Dispatch { key, bindings, params, grid, when: (rows, 1..=FEW), op: 0 }
    }

    fn norm(
        &self,
        x: View,
        weight: WeightId,
        eps: f32,
        group: usize,
        out: Slot,
        when: RangeInclusive<usize>,
    ) -> Dispatch {
        let rows = self.plan.slot(x.slot).rows;
        let features = if self.forms.subgroups { vec!["SUBGROUPS"] } else { vec![] };
        let wg = if group > 512 { 256 } else { WG };
        Dispatch {
            key: Key { kernel: "norm", features, consts: vec![("WG", wg)] },
            bindings: vec![("x", self.buffer(x.slot)), ("weight", Resource::Vector(weight)), ("out", self.buffer(out))],
            params: vec![
                ("rows_at", rows_at(rows)),
                ("x_start", x.start as u32),
                ("x_stride", self.plan.slot(x.slot).cols as u32),
                ("run", group as u32),
                ("n_runs", (x.cols / group) as u32),
                ("eps", eps.to_bits()),
            ],
            grid: Grid { count: Count::Rows(rows), block: 1, times: x.cols / group, per: 1 },
            when: (rows, when),
            op: 0,
        }
    }

    /// An op by itself.
    fn single(&self, op: &Op, out: &mut Vec<Dispatch>) -> Result<()> {
        let cols = |slot: Slot| self.plan.slot(slot).cols;
        match *op {
            Op::Embed { table, out: to } => self.embed(table, to, out),
            Op::Norm { x, weight, eps, group, out: to, .. } => out.push(self.norm(x, weight, eps, group, to, ANY)),
            Op::Linear { x, weight, bias, out: to } => {
                self.linear(&Product { x, weight, bias, norm: None, glu: false, add: false, out: to }, out)?;
            }
            Op::Rope { x, head_dim, rope } => out.push(self.rope(x, head_dim, rope)),
            Op::KvWrite { k, v, layer } => out.push(self.kv_write(k, v, layer)),
            Op::Attend { q, layer, n_heads, scale, window, out: to } => {
                super::lower_attend::attend(self, q, layer, n_heads, scale, window, to, out)?;
            }
            Op::Glu { x, out: to, .. } => {
                out.push(self.elementwise("glu", x, vec![("x", x), ("out", to)], cols(to)));
            }
            Op::Add { x, y } => out.push(self.elementwise("add", x, vec![("x", x), ("y", y)], cols(x))),
            Op::TakeRows { x, out: to } => {
                out.push(self.elementwise("take_rows", to, vec![("x", x), ("out", to)], cols(x)));
            }
        }
        Ok(())
    }

    /// A kernel with one invocation per element: `n` per row of `like`.
    fn elementwise(&self, kernel: &'static str, like: Slot, slots: Vec<(&'static str, Slot)>, n: usize) -> Dispatch {
        let rows = self.plan.slot(like).rows;
        let mut params = vec![("n", n as u32)];
        if kernel != "take_rows" {
            params.push(("rows_at", rows_at(rows)));
        }
        Dispatch {
            key: Key { kernel, features: vec![], consts: vec![("WG", WG)] },
            bindings: slots.into_iter().map(|(name, slot)| (name, self.buffer(slot))).collect(),
            params,
            grid: Grid { count: Count::Rows(rows), block: 1, times: n, per: WG as usize },
            when: (rows, ANY),
            op: 0,
        }
    }

    fn embed(&self, table: WeightId, to: Slot, out: &mut Vec<Dispatch>) {
        let cols = self.plan.weight(table).cols;
        for (index, part) in self.part(table).iter().enumerate() {
            let planes = part.layout.starts.map(|byte| (byte / 16) as u32);
            for range in part.joined().iter().filter(|r| r.at == 0) {
                out.push(Dispatch {
                    key: Key { kernel: "embed", features: vec![feature(part.dtype)], consts: vec![("WG", WG)] },
                    bindings: vec![
                        ("w", Resource::Part(table, index)),
                        ("picked", Resource::Picked),
                        ("out", self.buffer(to)),
                    ],
                    params: vec![
                        ("row_offset", range.row as u32),
                        ("n", range.n as u32),
                        ("units", units(cols) as u32),
                        ("cols", cols as u32),
                        ("plane1", planes[1]),
                        ("plane2", planes[2]),
                        ("plane3", planes[3]),
                    ],
                    grid: Grid { count: Count::Rows(Rows::Tokens), block: 1, times: 1, per: 1 },
                    when: (Rows::Tokens, ANY),
                    op: 0,
                });
            }
        }
    }

    fn rope(&self, x: View, head_dim: usize, rope: usize) -> Dispatch {
        let table = &self.plan.ropes[rope];
        let (pairs, heads) = (table.inv_freq.len(), x.cols / head_dim);
        Dispatch {
            key: Key { kernel: "rope", features: vec![], consts: vec![("WG", WG)] },
            bindings: vec![("freqs", Resource::Freqs(rope)), ("x", self.buffer(x.slot))],
            params: vec![
                ("start", x.start as u32),
                ("stride", self.plan.slot(x.slot).cols as u32),
                ("n_heads", heads as u32),
                ("head_dim", head_dim as u32),
                ("n_pairs", pairs as u32),
                ("halves", u32::from(table.style == RopeStyle::Halves)),
                ("magnitude", table.magnitude.to_bits()),
            ],
            grid: Grid { count: Count::Rows(Rows::Tokens), block: 1, times: pairs * heads, per: WG as usize },
            when: (Rows::Tokens, ANY),
            op: 0,
        }
    }

    /// The feature that stores pages as halves.
    pub(super) fn kv_features(&self) -> Vec<&'static str> {
        match self.kv {
            KvKind::F16 => vec!["KV_F16"],
            KvKind::F32 => vec![],
        }
    }

    fn kv_write(&self, k: View, v: View, layer: usize) -> Dispatch {
        let KvShape { n_kv_heads, k_dim, v_dim } = self.plan.kv[layer];
        let quads = k_dim.div_ceil(4) + v_dim.div_ceil(4);
        Dispatch {
            key: Key { kernel: "kv_write", features: self.kv_features(), consts: vec![("WG", WG)] },
            bindings: vec![
                ("k", self.buffer(k.slot)),
                ("v", self.buffer(v.slot)),
                ("k_pages", Resource::KPages(layer)),
                ("v_pages", Resource::VPages(layer)),
            ],
            params: vec![
                ("k_start", k.start as u32),
                ("k_stride", self.plan.slot(k.slot).cols as u32),
                ("v_start", v.start as u32),
                ("v_stride", self.plan.slot(v.slot).cols as u32),
                ("n_kv_heads", n_kv_heads as u32),
                ("k_dim", k_dim as u32),
                ("v_dim", v_dim as u32),
            ],
            grid: Grid { count: Count::Rows(Rows::Tokens), block: 1, times: quads * n_kv_heads, per: WG as usize },
            when: (Rows::Tokens, ANY),
            op: 0,
        }
    }

    /// `[norm q] [norm k] rope q, rope k, kv_write` in one kernel; gives the number of ops.
    fn rope_kv(&self, ops: &[Entry], out: &mut Vec<Dispatch>) -> Option<usize> {
        let normed = ops.iter().take_while(|e| e.op.kind() == crate::plan::OpKind::Norm).count();
        if !matches!(normed, 0 | 2) || ops.len() < normed + 3 {
            return None;
        }
        let turn = |norm: Option<&Entry>, rope: &Entry| -> Option<Turn> {
            let Op::Rope { x, head_dim, rope } = rope.op else { return None };
            let whole = x.start == 0 && x.cols == self.plan.slot(x.slot).cols;
            match norm.map(|n| n.op) {
                None => Some(Turn { view: x, norm: None, head_dim, rope }),
                Some(Op::Norm { x: from, weight, eps, group, out, .. })
                    if out == x.slot && whole && group == head_dim =>
                {
                    Some(Turn { view: from, norm: Some((weight, eps, out)), head_dim, rope })
                }
                Some(_) => None,
            }
        };
        let norms = |i: usize| (normed == 2).then(|| &ops[i]);
        let (q, k) = (turn(norms(0), &ops[normed])?, turn(norms(1), &ops[normed + 1])?);
        let Op::KvWrite { k: stored, v, layer } = ops[normed + 2].op else { return None };
        let KvShape { n_kv_heads, k_dim, v_dim } = self.plan.kv[layer];
        let k_view = k.norm.map_or(k.view, |(_, _, out)| View { slot: out, start: 0, cols: k.view.cols });
        let one_slot = q.view.slot == k.view.slot && v.slot == k.view.slot;
        if !one_slot || q.head_dim != k_dim || k.head_dim != k_dim || q.rope != k.rope || stored != k_view {
            return None;
        }
        let (slot, table) = (q.view.slot, &self.plan.ropes[q.rope]);
        let mut features = self.kv_features();
        let mut bindings = vec![
            ("freqs", Resource::Freqs(q.rope)),
            ("qkv", self.buffer(slot)),
            ("k_pages", Resource::KPages(layer)),
            ("v_pages", Resource::VPages(layer)),
        ];
        let mut eps = 0.0;
        if let (Some((q_norm, q_eps, q_out)), Some((k_norm, k_eps, k_out))) = (q.norm, k.norm) {
            if q_eps != k_eps {
                return None;
            }
            eps = q_eps;
            features.push("QK_NORM");
            if self.forms.subgroups {
                features.push("SUBGROUPS");
            }
            let norms = Resource::Vectors(q_norm, k_norm);
            bindings.extend([("q_out", self.buffer(q_out)), ("k_out", self.buffer(k_out)), ("qk_norm", norms)]);
        }
        let n_heads = q.view.cols / k_dim;
        let dim = k_dim.max(v_dim).next_multiple_of(4) as u32;
        out.push(Dispatch {
            key: Key { kernel: "rope_kv", features, consts: vec![("WG", WG), ("DIM", dim)] },
            bindings,
            params: vec![
                ("stride", self.plan.slot(slot).cols as u32),
                ("q_start", q.view.start as u32),
                ("k_start", k.view.start as u32),
                ("v_start", v.start as u32),
                ("n_heads", n_heads as u32),
                ("n_kv_heads", n_kv_heads as u32),
                ("head_dim", k_dim as u32),
                ("v_dim", v_dim as u32),
                ("n_pairs", table.inv_freq.len() as u32),
                ("halves", u32::from(table.style == RopeStyle::Halves)),
                ("magnitude", table.magnitude.to_bits()),
                ("eps", eps.to_bits()),
            ],
            grid: Grid { count: Count::Rows(Rows::Tokens), block: 1, times: n_heads + 2 * n_kv_heads, per: 1 },
            when: (Rows::Tokens, ANY),
            op: 0,
        });
        Some(normed + 3)
    }

    /// An error about a shape that the kernels cannot take.
    pub(super) fn too_large(what: String) -> Error {
        Error::unsupported(format!("{what}: run this model with --device cpu"))
    }
}
