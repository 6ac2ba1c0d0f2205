//! The exam's cases: one op each, with random operands of ragged shapes. Which device runs them is the caller's.

use std::sync::Arc;

use ir_engine::bytes::Bytes;
use ir_engine::device::{Device, KvKind, RunnerOptions};
use ir_engine::dtype::DType;
use ir_engine::plan::{
    Act, Inputs, KvShape, NormKind, OpKind, PAGE, Plan, Pool, Recorder, RopeStyle, RopeTable, Rows, Segment, Slot,
    Weight, WeightId,
};

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
}

impl Case {
    /// What the device makes of it.
    pub fn run(&self, device: &Device) -> Vec<f32> {
        let n_pages = self.inputs.tables.iter().flatten().max().map_or(1, |p| *p as usize + 1);
        let most = self.inputs.outputs.len().max(self.inputs.pools.len()).max(1);
        let (max_tokens, max_outputs) = (self.inputs.n_rows(), most);
        let options = RunnerOptions { max_tokens, max_outputs, kv: self.kv, n_pages };
        let mut runner = device.prepare(Arc::clone(&self.plan), options).unwrap();
        for (slot, data) in &self.slots {
            runner.set_slot(*slot, &self.inputs, data).unwrap();
        }
        runner.run_ops(0..self.plan.ops.len(), &self.inputs).unwrap();
        runner.slot(self.out, &self.inputs).unwrap()
    }
}

/// A matrix at an odd place in memory, in two segments where it has more than one row.
fn matrix(rec: &mut Recorder, random: &mut Random, dtypes: [DType; 2], rows: usize, cols: usize) -> WeightId {
    let segment = |dtype: DType, rows: usize, random: &mut Random| {
        let offset = random.below(4);
        let mut bytes = vec![0; offset];
        (0..rows).for_each(|_| bytes.extend(random.blocks(dtype, cols)));
        let bytes = Bytes::from(bytes);
        let row_bytes = dtype.bytes_for(cols).unwrap();
        Segment { name: "w".into(), dtype, rows, bytes: bytes.slice(offset..bytes.len()).unwrap(), row_bytes }
    };
    let first = rows.div_ceil(2);
    let mut segments = vec![segment(dtypes[0], first, random)];
    if rows > first {
        segments.push(segment(dtypes[1], rows - first, random));
    }
    rec.weight(Weight { name: "w".into(), cols, segments })
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

    fn case(self, op: OpKind, name: String, out: Slot) -> Case {
        let plan = Arc::new(self.rec.finish(out));
        Case { op, name, plan, inputs: self.inputs, slots: self.slots, out, kv: KvKind::F16, dtype: None }
    }
}

const ROWS: [usize; 5] = [1, 2, 7, 33, 70];

fn embed(cases: &mut Vec<Case>) {
    for (i, dtype) in DType::ALL.iter().enumerate() {
        let mut b = Builder::new(i as u64, 9);
        let table = matrix(&mut b.rec, &mut b.random, [*dtype, DType::F16], 40, 256);
        let out = b.rec.embed(table).unwrap();
        cases.push(b.case(OpKind::Embed, format!("{dtype}"), out));
    }
}

fn norm(cases: &mut Vec<Case>) {
    for (rows, cols, start, len, group) in
        [(1, 64, 0, 64, 64), (7, 200, 8, 192, 64), (33, 2050, 0, 2050, 2050), (5, 36, 4, 30, 6)]
    {
        let mut b = Builder::new(rows as u64, rows);
        let x = b.input(cols);
        let (w, view) = (b.vector(group), b.rec.view(x, start, len).unwrap());
        let out = b.rec.norm(view, w, NormKind::Rms, 1e-5, group).unwrap();
        cases.push(b.case(OpKind::Norm, format!("{rows} rows, {len} of {cols} columns in groups of {group}"), out));
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
            let out = b.rec.linear(x, w, bias).unwrap();
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
        let inv_freq = (0..pairs).map(|i| 10_000f32.powf(-(i as f32) / pairs as f32)).collect();
        let table = b.rec.rope_table(RopeTable { style, inv_freq, magnitude: 1.0 });
        let view = b.rec.view(x, 10, 2 * head_dim).unwrap();
        b.rec.rope(view, head_dim, table).unwrap();
        cases.push(b.case(OpKind::Rope, format!("{style:?}, {rows} rows, {pairs} pairs of {head_dim}"), x));
    }
}

/// Writes keys and values, then attends: what is stored shows in what is seen.
fn attend(cases: &mut Vec<Case>) {
    for (rows, heads, kv_heads, k_dim, v_dim, window) in [
        (1, 1, 1, 16, 16, None),
        (7, 4, 2, 64, 64, None),
        (70, 6, 2, 32, 48, None),
        (200, 8, 1, 128, 128, Some(20)),
        (120, 3, 3, 80, 80, Some(1)),
    ] {
        for kv in [KvKind::F16, KvKind::F32] {
            let mut b = Builder::new(rows as u64, rows);
            let x = b.input(kv_heads * (k_dim + v_dim) + heads * k_dim);
            let layer = b.rec.kv_layer(KvShape { n_kv_heads: kv_heads, k_dim, v_dim });
            let k = b.rec.view(x, 0, kv_heads * k_dim).unwrap();
            let v = b.rec.view(x, kv_heads * k_dim, kv_heads * v_dim).unwrap();
            let q = b.rec.view(x, kv_heads * (k_dim + v_dim), heads * k_dim).unwrap();
            b.rec.kv_write(k, v, layer).unwrap();
            let out = b.rec.attend(q, layer, heads, 1.0 / (k_dim as f32).sqrt(), window).unwrap();
            let name = format!("{rows} rows, {heads}/{kv_heads} heads of {k_dim}/{v_dim}, window {window:?}, {kv:?}");
            cases.push(Case { kv, ..b.case(OpKind::Attend, name, out) });
        }
    }
    // One row that sees one position gives its value back: `kv_write` alone, in both forms.
    for kv in [KvKind::F16, KvKind::F32] {
        let mut b = Builder::new(3, 5);
        let x = b.input(3 * 24);
        let layer = b.rec.kv_layer(KvShape { n_kv_heads: 1, k_dim: 24, v_dim: 24 });
        let [k, v, q] = [0, 24, 48].map(|at| b.rec.view(x, at, 24).unwrap());
        b.rec.kv_write(k, v, layer).unwrap();
        let out = b.rec.attend(q, layer, 1, 1.0, Some(1)).unwrap();
        cases.push(Case { kv, ..b.case(OpKind::KvWrite, format!("{kv:?}"), out) });
    }
}

fn elementwise(cases: &mut Vec<Case>) {
    for rows in ROWS {
        let mut b = Builder::new(rows as u64, rows);
        let x = b.input(2 * 37);
        let out = b.rec.glu(x, Act::Silu).unwrap();
        cases.push(b.case(OpKind::Glu, format!("{rows} rows"), out));

        let mut b = Builder::new(rows as u64, rows);
        let (x, y) = (b.input(301), b.input(301));
        b.rec.add(x, y).unwrap();
        cases.push(b.case(OpKind::Add, format!("{rows} rows"), x));

        let mut b = Builder::new(rows as u64, rows);
        let x = b.input(19);
        let out = b.rec.take_rows(x).unwrap();
        cases.push(b.case(OpKind::TakeRows, format!("{rows} rows"), out));

        let mut b = Builder::new(rows as u64, rows);
        let (x, n) = (b.input(301), rows as u32);
        let ranges = [(0, n), (n / 2, n - n / 2), (n - 1, 1), (0, n.div_ceil(3))];
        b.inputs.pools = ranges.map(|(first, rows)| Pool { first, rows }).to_vec();
        let out = b.rec.only_with(Rows::Pools, |rec| rec.pool(x)).unwrap();
        cases.push(b.case(OpKind::Pool, format!("{rows} rows"), out));
    }
}

/// Every case.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for make in [embed, norm, linear, rope, attend, elementwise] {
        make(&mut cases);
    }
    cases
}
