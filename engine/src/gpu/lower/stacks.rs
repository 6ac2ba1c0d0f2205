//! Lowering of products with matrices of a stack: picked ones, and those of heads. Few rows by `expert_linear` and
//! `head_linear`, row by row; many by `linear_mat`, in tiles of rows that have one matrix. No device here.

use std::ops::RangeInclusive;

use super::linear::{KernelEpilogue, Piece, Product};
use super::picks::MOST_EXPERTS;
use super::{FEW, Lowering, WG, rows_at};
use crate::error::{Error, Result};
use crate::gpu::dispatch::{Count, Dispatch, Grid, Key, Resource};
use crate::gpu::planes::UNIT;
use crate::plan::{Epilogue, Pick, Slot, WeightId};

/// Tiles pay from about so many rows of a matrix on.
const ROWS_OF_A_TILE: usize = 4;
/// Rows that have one matrix in common and are multiplied together, and how many rows a step of such has at most.
const TOGETHER: usize = 4;
const MOST_TOGETHER: usize = 256;
/// Rows of a tile.
const TILE: usize = 32;

/// How the rows of a product use a stack.
struct Stack {
    /// The slot of picks; none where each row has all matrices.
    picks: Option<Slot>,
    /// Matrices of a row, and of the stack.
    used: usize,
    of: usize,
    /// Whether each of them has a row of `x` of its own.
    own_x: bool,
    /// Columns of the product of one.
    n: usize,
    /// Columns behind those of `x` that are passed on behind them.
    pass: usize,
}

/// A form of the kernels of few rows, and for how many.
struct VecForm {
    bytes: bool,
    together: bool,
    when: RangeInclusive<usize>,
}

/// The forms for up to `few` rows: signed bytes up to `FEW`, which come ready from `ready` rows on, and rows that have a matrix in
/// common together from where there are as many picks as matrices.
fn vec_forms(job: &Product, stack: &Stack, few: usize, ready: usize) -> Vec<VecForm> {
    let (shared, most) = ((stack.of / stack.used).max(2), few.min(MOST_TOGETHER));
    let parts = match stack.picks.is_some() && shared <= most {
        true => vec![(false, 1, shared - 1), (true, shared, most), (false, most + 1, few)],
        false => vec![(false, 1, few)],
    };
    let bytes = if job.bytes { FEW } else { 0 };
    let mut forms = Vec::new();
    for (bytes, from, to) in [(true, 1, bytes.min(ready - 1)), (true, ready, bytes), (false, bytes + 1, few)] {
        let whens = parts.iter().map(|part| (part.0, part.1.max(from)..=part.2.min(to)));
        let whens = whens.filter(|(_, when)| !when.is_empty());
        forms.extend(whens.map(|(together, when)| VecForm { bytes, together, when }));
    }
    forms
}

impl Lowering<'_> {
    /// The op `expert_linear`; `vectors` are its factors and its summands.
    #[expect(clippy::too_many_arguments, reason = "an op with its operands")]
    pub(super) fn expert_linear(
        &self,
        x: Slot,
        each: bool,
        pick: Pick,
        weight: WeightId,
        vectors: [Option<WeightId>; 2],
        then: Epilogue,
        out: &mut Vec<Dispatch>,
    ) -> Result<()> {
        let Pick { picks, used, of } = pick;
        if of > MOST_EXPERTS {
            return Err(Lowering::too_large(format!("a mixture of {of} experts")));
        }
        let (cols, parts) = (self.plan.weight(weight).cols, self.part(weight));
        let bytes = self.forms.dot4 && parts.iter().all(|p| !p.dtype.is_plain());
        let (epilogue, to) = match then {
            Epilogue::Store { out: to } => (KernelEpilogue::Store, to),
            Epilogue::Act { act, out: to } => (KernelEpilogue::Act(act), to),
            Epilogue::Glu { gated, product: _, out: to } if parts.iter().all(|p| p.paired) => {
                (KernelEpilogue::Glu(gated), to)
            }
            Epilogue::Glu { gated: _, product, out: _ } => (KernelEpilogue::Store, product),
            Epilogue::Add { to: _, factor: _, product: _ } | Epilogue::Heads { heads: _, out: _ } => {
                return Err(Error::shape("what follows a product with picked matrices is unknown"));
            }
        };
        let n = self.plan.weight(weight).rows() / of;
        let job = Product {
            x,
            rows: self.plan.slot(x).rows,
            norm: None,
            weight,
            scale: vectors[0],
            bias: vectors[1],
            epilogue,
            out: to,
            bytes,
            ragged: !cols.is_multiple_of(UNIT),
            strides: [cols, self.plan.slot(to).cols / used],
            heads: None,
        };
        self.stack(&job, &Stack { picks: Some(picks), used, of, own_x: each, n, pass: 0 }, out);
        if let Epilogue::Glu { gated, product, out: to } = then
            && epilogue == KernelEpilogue::Store
        {
            out.push(self.glu(product, gated, to, used));
        }
        Ok(())
    }

    /// The op `head_linear`.
    pub(super) fn head_linear(
        &self,
        x: Slot,
        weight: WeightId,
        n_heads: usize,
        pass: usize,
        to: Slot,
        out: &mut Vec<Dispatch>,
    ) {
        let (cols, n) = (self.plan.weight(weight).cols, self.plan.weight(weight).rows() / n_heads);
        let strides = [cols + pass, n + pass];
        let job = Product {
            x,
            rows: self.plan.slot(x).rows,
            norm: None,
            weight,
            scale: None,
            bias: None,
            epilogue: KernelEpilogue::Store,
            out: to,
            bytes: false,
            ragged: !cols.is_multiple_of(UNIT) || !strides[0].is_multiple_of(4),
            strides,
            heads: None,
        };
        self.stack(&job, &Stack { picks: None, used: n_heads, of: n_heads, own_x: true, n, pass }, out);
    }

    fn stack(&self, job: &Product, stack: &Stack, out: &mut Vec<Dispatch>) {
        let few = FEW.max(ROWS_OF_A_TILE * stack.of / stack.used);
        let forms = vec_forms(job, stack, few, *self.quantised().start());
        if let Some(picks) = stack.picks {
            out.push(self.sort(job, stack, picks, few + 1..=usize::MAX));
        }
        for (index, part) in self.part(job.weight).iter().enumerate() {
            for range in job.ranges(part) {
                let piece = Piece { index, part, range };
                out.extend(forms.iter().map(|form| self.stack_vec(job, stack, piece, form)));
                out.push(self.stack_mat(job, stack, piece, few + 1..=usize::MAX));
            }
        }
    }

    /// Sorts rows and their picks by matrix.
    fn sort(&self, job: &Product, stack: &Stack, picks: Slot, when: RangeInclusive<usize>) -> Dispatch {
        let of = stack.of as u32;
        Dispatch {
            key: Key { kernel: "expert_linear_sort", features: vec![], consts: vec![("WG", 256), ("E", of)] },
            bindings: vec![("picks", self.buffer(picks)), ("order", Resource::Order), ("tiles", Resource::Tiles)],
            params: vec![("rows_at", rows_at(job.rows)), ("used", stack.used as u32), ("n_stack", of)],
            grid: Grid { count: Count::Rows(job.rows), block: usize::MAX, times: 1, per: 1 },
            when: (job.rows, when),
            op: 0,
            work: 0,
        }
    }

    /// What both kernels share.
    fn stacked(&self, job: &Product, stack: &Stack, piece: Piece<'_>) -> (Vec<&'static str>, Vec<(&'static str, u32)>) {
        let (mut features, mut params) = self.shared(job, piece);
        features.push("STACK");
        if stack.picks.is_none() {
            features.push("HEADS");
        }
        let matrices = &piece.part.matrices;
        params.extend([
            ("used", stack.used as u32),
            ("own_x", u32::from(stack.own_x)),
            ("n_stack", stack.of as u32),
            ("first_matrix", matrices.start as u32),
            ("n_matrices", matrices.len() as u32),
            ("part_rows", piece.part.rows() as u32),
            ("vector_rows", stack.n as u32),
            ("passed", stack.pass as u32),
            ("passed_at", stack.n as u32),
        ]);
        (features, params)
    }

    fn stack_vec(&self, job: &Product, stack: &Stack, piece: Piece<'_>, form: &VecForm) -> Dispatch {
        let VecForm { bytes, together, ref when } = *form;
        let (mut features, params) = self.stacked(job, stack, piece);
        let mut bindings = vec![("w", Resource::Part(job.weight, piece.index)), ("out", self.buffer(job.out))];
        bindings.extend(stack.picks.map(|picks| ("picks", self.buffer(picks))));
        if bytes {
            features.push("DOT4");
        }
        let x = if bytes && self.quantised().contains(when.end()) {
            features.push("BYTES");
            Resource::Bytes(self.plan.slot(job.x).buffer)
        } else {
            self.buffer(job.x)
        };
        bindings.push(("x", x));
        if self.forms.subgroups {
            features.push("SUBGROUPS");
        }
        let mut consts = vec![("WG", WG), ("ROWS", 1)];
        if together {
            features.push("TOGETHER");
            consts = vec![("WG", WG), ("ROWS", TOGETHER as u32), ("MOST", MOST_TOGETHER as u32)];
        }
        let kernel = if stack.picks.is_some() { "expert_linear" } else { "head_linear" };
        let times = stack.used * piece.range.n.div_ceil(if job.gated() { 2 } else { 4 });
        Dispatch {
            key: Key { kernel, features, consts },
            bindings,
            params,
            grid: Grid { count: Count::Rows(job.rows), block: 1, times, per: 1 },
            when: (job.rows, when.clone()),
            op: 0,
            work: self.work(job, piece.range) * stack.used as u64,
        }
    }

    fn stack_mat(&self, job: &Product, stack: &Stack, piece: Piece<'_>, when: RangeInclusive<usize>) -> Dispatch {
        let (mut features, params) = self.stacked(job, stack, piece);
        if self.forms.f16 {
            features.push("F16");
        }
        let mut bindings = vec![
            ("x", self.buffer(job.x)),
            ("w", Resource::Part(job.weight, piece.index)),
            ("out", self.buffer(job.out)),
        ];
        let columns = piece.range.n.div_ceil(if job.gated() { 32 } else { 64 });
        let grid = match stack.picks {
            Some(_) => {
                bindings.extend([("order", Resource::Order), ("tiles", Resource::Tiles)]);
                let count = Count::Sorted { rows: job.rows, used: stack.used, of: stack.of };
                Grid { count, block: 1, times: columns, per: 1 }
            }
            None => Grid { count: Count::Rows(job.rows), block: TILE, times: columns * stack.used, per: 1 },
        };
        let key = Key { kernel: "linear_mat", features, consts: vec![] };
        let work = self.work(job, piece.range) * stack.used as u64;
        Dispatch { key, bindings, params, grid, when: (job.rows, when), op: 0, work }
    }
}
