//! The exam's cases: one op each, with random operands of ragged shapes. Which device runs them is the caller's.

use std::sync::Arc;

use ir_engine::bytes::Bytes;
use ir_engine::device::{Device, KvKind, RunnerOptions};
use ir_engine::dtype::DType;
use ir_engine::plan::{
    Act, Gated, Inputs, Lookup, Norm, NormKind, OpKind, PAGE, Plan, Pool, Product, Recorder, RopeStyle, RopeTable,
    Rows, Segment, Slot, Weight, WeightId,
};

mod attend;
mod chosen;
mod experts;
mod products;
mod recurrent;

/// SplitMix64 (Steele et al. 2014): the same cases on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between -1 and 1.
    pub fn float(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// Blocks of any type: random bits, with scales of a weight's usual size.
    pub fn blocks(&mut self, dtype: DType, n: usize) -> Vec<u8> {
        let Some(traits) = &dtype.traits().groups else {
            let mut out = Vec::new();
            ir_engine::quant::encode(dtype, &self.floats(n), &mut out).unwrap();
            return out;
        };
        let mut out = vec![0; dtype.bytes_for(n).unwrap()];
        out.iter_mut().for_each(|b| *b = self.bits() as u8);
        for block in out.chunks_exact_mut(dtype.block_bytes()) {
            (traits.set_scale)(block, 0.01 * self.float(), 0.01 * self.float());
        }
        out
    }
}

/// One op with its operands.
pub struct Case {
    pub op: OpKind,
    pub name: String,
    pub plan: Arc<Plan>,
    pub inputs: Inputs,
    /// What is written before the ops run.
    pub slots: Vec<(Slot, Vec<f32>)>,
    /// What is compared.
    pub out: Slot,
    pub kv: KvKind,
    /// The quantised type of the op's matrix, if it has one.
    pub dtype: Option<DType>,
    /// Whether exponentials or quotients stand behind the op's sums.
    pub exponentials: bool,
    /// How often a sum's relative error counts in the result: once in the sum itself, twice in its square or in the product
    /// of two, three times in a square's product with another.
    pub powers: f64,
}

impl Case {
    /// What the device makes of it.
    pub fn run(&self, device: &Device) -> Vec<f32> {
        let n_pages = self.inputs.tables.iter().flatten().max().map_or(1, |p| *p as usize + 1);
        let most = self.inputs.outputs.len().max(self.inputs.pools.len()).max(1);
        let (max_tokens, max_outputs) = (self.inputs.n_rows(), most);
        let options = RunnerOptions { max_tokens, max_outputs, kv: self.kv, n_pages, n_states: 3, n_window_pages: 0 };
        let mut runner = device.prepare(Arc::clone(&self.plan), options).unwrap();
        for (slot, data) in &self.slots {
            let set = runner.set_slot(*slot, &self.inputs, data);
            set.unwrap_or_else(|error| panic!("{} ({}): {error}", self.op.name(), self.name));
        }
        let ran = runner.run_ops(0..self.plan.ops.len(), &self.inputs);
        ran.unwrap_or_else(|error| panic!("{} ({}): {error}", self.op.name(), self.name));
        runner.slot(self.out, &self.inputs).unwrap()
    }
}

/// The rows of a matrix at odd places in memory, in two segments if it has more than one row.
fn segments(random: &mut Random, dtypes: [DType; 2], rows: usize, cols: usize) -> Vec<Segment> {
    let mut segment = |dtype: DType, rows: usize| {
        let skipped = random.below(4);
        let mut bytes = vec![0; skipped];
        (0..rows).for_each(|_| bytes.extend(random.blocks(dtype, cols)));
        let bytes = Bytes::from(bytes);
        let (bytes, row_bytes) = (bytes.slice(skipped..bytes.len()).unwrap(), dtype.bytes_for(cols).unwrap());
        Segment { name: "w".into(), dtype, rows, bytes, row_bytes, offset: 0 }
    };
    let first = rows.div_ceil(2);
    let mut segments = vec![segment(dtypes[0], first)];
    if rows > first {
        segments.push(segment(dtypes[1], rows - first));
    }
    segments
}

fn matrix(rec: &mut Recorder, random: &mut Random, dtypes: [DType; 2], rows: usize, cols: usize) -> WeightId {
    rec.weight(Weight { name: "w".into(), cols, segments: segments(random, dtypes, rows, cols) })
}

/// Rows of three sequences at scattered positions and pages; every second row is an output.
fn inputs(random: &mut Random, rows: usize, n_vocab: usize) -> Inputs {
    let mut inputs = Inputs::default();
    let mut next = 0;
    for seq in 0..3u32 {
        let n = (rows + seq as usize) / 3;
        for p in 0..n as u32 {
            inputs.push(random.below(n_vocab) as u32, p, seq);
        }
        let n_pages = n.div_ceil(PAGE).max(1) as u32;
        inputs.tables.push((next..next + n_pages).rev().collect());
        next += n_pages;
    }
    inputs.outputs = (0..inputs.n_rows() as u32).step_by(2).collect();
    inputs
}

struct Builder {
    rec: Recorder,
    random: Random,
    inputs: Inputs,
    slots: Vec<(Slot, Vec<f32>)>,
}

impl Builder {
    fn new(seed: u64, rows: usize) -> Builder {
        let mut random = Random(seed);
        let inputs = inputs(&mut random, rows, 40);
        Builder { rec: Recorder::new(), random, inputs, slots: Vec::new() }
    }

    fn input(&mut self, cols: usize) -> Slot {
        let slot = self.rec.input(Rows::Tokens, cols);
        let data = self.random.floats(self.inputs.n_rows() * cols);
        self.slots.push((slot, data));
        slot
    }

    fn vector(&mut self, n: usize) -> WeightId {
        matrix(&mut self.rec, &mut self.random, [DType::F32; 2], n, 1)
    }

    fn constant(&mut self, values: &[f32]) -> WeightId {
        let bytes = Bytes::from(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
        let segment =
            Segment { name: "c".into(), dtype: DType::F32, rows: values.len(), bytes, row_bytes: 4, offset: 0 };
        self.rec.weight(Weight { name: "c".into(), cols: 1, segments: vec![segment] })
    }

    fn case(self, op: OpKind, name: String, out: Slot) -> Case {
        let plan = Arc::new(self.rec.finish(out));
        Case {
            op,
            name,
            plan,
            inputs: self.inputs,
            slots: self.slots,
            out,
            kv: KvKind::F16,
            dtype: None,
            exponentials: false,
            powers: 1.0,
        }
    }
}

const ROWS: [usize; 5] = [1, 2, 7, 33, 70];

fn embed(cases: &mut Vec<Case>) {
    for (i, dtype) in DType::ALL.iter().enumerate() {
        let mut b = Builder::new(i as u64, 9);
        let table = matrix(&mut b.rec, &mut b.random, [*dtype, DType::F16], 40, 256);
        let out = b.rec.embed(table, Lookup::Token).unwrap();
        cases.push(b.case(OpKind::Embed, format!("{dtype}"), out));
    }
    let mut b = Builder::new(99, 50);
    let table = matrix(&mut b.rec, &mut b.random, [DType::F32; 2], 40, 48);
    let out = b.rec.embed(table, Lookup::Position).unwrap();
    cases.push(b.case(OpKind::Embed, "by position".into(), out));
    for (rows, said) in [(50, true), (7, false)] {
        let mut b = Builder::new(98, rows);
        let table = matrix(&mut b.rec, &mut b.random, [DType::F32; 2], 2, 48);
        let out = b.rec.embed(table, Lookup::Segment).unwrap();
        b.inputs.segments.extend((0..rows as u32).filter(|_| said).map(|row| row / 3 % 2));
        cases.push(b.case(OpKind::Embed, format!("by segment, said {said}"), out));
    }
}

fn norm(cases: &mut Vec<Case>) {
    for (rows, cols, start, len, group) in
        [(1, 64, 0, 64, 64), (7, 200, 8, 192, 64), (33, 2050, 0, 2050, 2050), (5, 36, 4, 30, 6)]
    {
        for kind in [NormKind::Rms, NormKind::Layer] {
            // Vectors: one for every run, none, one for all columns, two.
            for (weight, bias) in [(group, 0), (0, 0), (len, 0), (group, len)] {
                let mut b = Builder::new(rows as u64, rows);
                let x = b.input(cols);
                let view = b.rec.view(x, start, len).unwrap();
                let [weight, bias] = [weight, bias].map(|n| (n > 0).then(|| b.vector(n)));
                let out = b.rec.norm(view, Norm { kind, eps: 1e-5, group, weight, bias }).unwrap();
                let vectors = (weight.is_some(), bias.is_some());
                let name = format!("{kind:?}, {rows} rows, {len} of {cols} columns in groups of {group}, {vectors:?}");
                cases.push(b.case(OpKind::Norm, name, out));
            }
        }
    }
}

fn linear(cases: &mut Vec<Case>) {
    for (t, dtype) in DType::ALL.iter().enumerate() {
        // Every type meets one row and many; what is between goes round among the block types.
        let rows = ROWS.iter().enumerate().filter(|(i, _)| dtype.is_plain() || matches!(i, 0 | 4) || i % 3 == t % 3);
        for (i, rows) in rows {
            // Whole blocks for quantised types; any width for plain ones. Enough blocks in the
            // single row that a chance cancellation in one is not the whole output.
            let (k, n) = match dtype.block_len() {
                1 => ([33, 64, 100, 257, 512][i], [5, 70, 1, 33, 130][i]),
                32 => ([288, 96, 544, 32, 1024][i], [43, 65, 130, 37, 40][i]),
                _ => ([512, 256, 768, 1280, 256][i], [37, 67, 39, 40, 129][i]),
            };
            let mut b = Builder::new(*rows as u64, *rows);
            let x = b.input(k);
            let other = if dtype.block_len() == 256 { DType::Q6_K } else { *dtype };
            let w = matrix(&mut b.rec, &mut b.random, [*dtype, other], n, k);
            let bias = (i % 2 == 1).then(|| b.vector(n));
            let out = b.rec.linear(x, Product { bias, ..Product::from(w) }).unwrap();
            let mut case = b.case(OpKind::Linear, format!("{dtype}, {rows} rows, {n} x {k}"), out);
            case.dtype = Some(*dtype);
            cases.push(case);
        }
    }
}

fn rope(cases: &mut Vec<Case>) {
    for (style, rows, head_dim, pairs) in [
        (RopeStyle::Halves, 1, 64, 32),
        (RopeStyle::Interleaved, 33, 128, 64),
        (RopeStyle::Halves, 7, 80, 16),
        (RopeStyle::Interleaved, 9, 6, 2),
    ] {
        let mut b = Builder::new(rows as u64, rows);
        let x = b.input(3 * head_dim + 10);
        // A file's factors may turn some the other way.
        let sign = |i: usize| if i % 3 == 2 { -1.0 } else { 1.0 };
        let inv_freq = (0..pairs).map(|i| sign(i) * 10_000f32.powf(-(i as f32) / pairs as f32)).collect();
        let table = b.rec.rope_table(RopeTable { style, inv_freq, magnitude: 1.0, long: None });
        let view = b.rec.view(x, 10, 2 * head_dim).unwrap();
        b.rec.rope(view, head_dim, 0, table).unwrap();
        cases.push(b.case(OpKind::Rope, format!("{style:?}, {rows} rows, {pairs} pairs of {head_dim}"), x));
    }
    let mut b = Builder::new(8, 20);
    let x = b.input(3 * 24);
    let inv_freq = (0..4).map(|i| 0.5f32.powi(i)).collect();
    let table = b.rec.rope_table(RopeTable { style: RopeStyle::Interleaved, inv_freq, magnitude: 1.0, long: None });
    let all = b.rec.all(x);
    b.rec.rope(all, 24, 16, table).unwrap();
    cases.push(b.case(OpKind::Rope, "the tails of heads".into(), x));
}

fn elementwise(cases: &mut Vec<Case>) {
    for rows in ROWS {
        let limited = |act, limits_result| Gated { act, limit: 0.25, limits_result, up_offset: 1.0 };
        for gated in [Gated::plain(Act::Silu), limited(Act::GeluTanh, false), limited(Act::Silu, true)] {
            let mut b = Builder::new(rows as u64, rows);
            let x = b.input(2 * 37);
            let out = b.rec.glu(x, gated).unwrap();
            cases.push(Case { exponentials: true, ..b.case(OpKind::Glu, format!("{rows} rows, {gated:?}"), out) });
        }
        for factor in [1.0, -0.75] {
            let mut b = Builder::new(rows as u64, rows);
            let (x, y) = (b.input(301), b.input(301));
            b.rec.add(x, y, factor).unwrap();
            cases.push(b.case(OpKind::Add, format!("{rows} rows, factor {factor}"), x));
        }
        for n in [0, 1, 45] {
            let mut b = Builder::new(rows as u64, rows);
            let x = b.input(45);
            let weight = (n > 0).then(|| b.vector(n));
            b.rec.scale(x, 1.75, weight).unwrap();
            cases.push(b.case(OpKind::Scale, format!("{rows} rows, {n} factors"), x));
        }
        let mut b = Builder::new(rows as u64, rows);
        let x = b.input(45);
        b.rec.softcap(x, 0.25).unwrap();
        cases.push(Case { exponentials: true, ..b.case(OpKind::Softcap, format!("{rows} rows"), x) });

        let mut b = Builder::new(rows as u64, rows);
        let x = b.input(19);
        let out = b.rec.take_rows(x).unwrap();
        cases.push(b.case(OpKind::TakeRows, format!("{rows} rows"), out));

        let mut b = Builder::new(rows as u64, rows);
        let x = b.input(45);
        // An order, a number that is twice there, and one beyond the columns.
        let order: Vec<f32> = (0..45).map(|c| if c == 7 { 99.0 } else { (c * 7 % 45) as f32 }).collect();
        let columns = b.constant(&order);
        let out = b.rec.take_cols(x, columns).unwrap();
        cases.push(b.case(OpKind::TakeCols, format!("{rows} rows"), out));

        let mut b = Builder::new(rows as u64, rows);
        b.rec.set_adapters(vec![1.0; 3]);
        b.inputs.adapters = b.random.floats(3 * b.inputs.n_rows());
        let out = b.rec.adapter_scales(Rows::Tokens).unwrap();
        cases.push(b.case(OpKind::AdapterScales, format!("{rows} rows"), out));

        let mut b = Builder::new(rows as u64, rows);
        let (x, n) = (b.input(301), rows as u32);
        let ranges = [(0, n), (n / 2, n - n / 2), (n - 1, 1), (0, n.div_ceil(3))];
        b.inputs.pools = ranges.map(|(first, rows)| Pool { first, rows }).to_vec();
        let out = b.rec.only_with(Rows::Pools, |rec| rec.pool(x)).unwrap();
        cases.push(b.case(OpKind::Pool, format!("{rows} rows"), out));
    }
}

fn act(cases: &mut Vec<Case>) {
    for rows in [1, 9] {
        let mut b = Builder::new(rows as u64, rows);
        let x = b.input(60);
        let view = b.rec.view(x, 7, 40).unwrap();
        let (bias, factor) = (Some(b.vector(40)), Some(b.vector(40)));
        b.rec.act(view, Act::Softplus, bias, factor).unwrap();
        cases
            .push(Case { exponentials: true, ..b.case(OpKind::Act, format!("{rows} rows, some columns, vectors"), x) });
    }
    for act in Act::ALL {
        let mut b = Builder::new(*act as u64, 5);
        let x = b.input(301);
        // Beyond the range in which the exponential is of ordinary size.
        let data = b.slots.last_mut().unwrap();
        data.1.iter_mut().enumerate().for_each(|(i, x)| *x *= [1.0, 4.0, 30.0, 200.0][i % 4]);
        let all = b.rec.all(x);
        b.rec.act(all, *act, None, None).unwrap();
        cases.push(Case { exponentials: true, ..b.case(OpKind::Act, format!("{act:?}"), x) });
    }
}

/// Every case.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for make in [
        embed,
        norm,
        linear,
        products::products,
        products::heads,
        experts::expert_linear,
        experts::route,
        experts::head_linear,
        experts::combine_and_gate,
        experts::mix,
        experts::balance,
        chosen::common_ends,
        chosen::select,
        recurrent::conv,
        recurrent::recur,
        rope,
        attend::attend,
        act,
        elementwise,
    ] {
        make(&mut cases);
    }
    cases
}
