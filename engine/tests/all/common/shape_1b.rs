//! The plan of a 1B model without its weights' data: for counting what a step takes.
#![allow(unreachable_pub, reason = "the module of a program is read as one of a library")]

use ir_engine::bytes::Bytes;
use ir_engine::device::{KvKind, RunnerOptions};
use ir_engine::dtype::DType;
use ir_engine::error::Result;
use ir_engine::plan::{
    Act, Attend, Gated, Heads, Inputs, KvShape, Lookup, Norm, NormKind, Plan, Product, Recorder, RopeStyle, RopeTable,
    Rows, Segment, Slot, Weight, WeightId,
};

/// A Llama of 1B parameters: 16 layers, 32 heads of 64 over 8 of keys and values.
pub const LAYERS: usize = 16;
const WIDTH: usize = 2048;
const HIDDEN: usize = 8192;
/// Its vocabulary.
pub const VOCABULARY: usize = 128_256;

/// A weight without data, in segments of these types and rows.
fn weight(rec: &mut Recorder, segments: &[(DType, usize)], cols: usize) -> WeightId {
    let segment = |(dtype, rows): &(DType, usize)| Segment {
        name: String::new(),
        dtype: *dtype,
        rows: *rows,
        bytes: Bytes::default(),
        row_bytes: dtype.bytes_for(cols).unwrap(),
        offset: 0,
    };
    rec.weight(Weight { name: "w".into(), cols, segments: segments.iter().map(segment).collect() })
}

/// A norm of so many columns.
fn norm_of(rec: &mut Recorder, group: usize) -> Norm {
    let weight = Some(weight(rec, &[(DType::F32, group)], 1));
    Norm { kind: NormKind::Rms, eps: 1e-5, group, weight, bias: None }
}

fn norm(rec: &mut Recorder) -> Norm {
    norm_of(rec, WIDTH)
}

/// A product behind a norm.
fn normed(rec: &mut Recorder, weight: WeightId) -> Product {
    Product { norm: Some(norm(rec)), ..Product::from(weight) }
}

fn layer(rec: &mut Recorder, x: Slot, qkv: [DType; 3], rope: usize, norms: bool) -> Result<()> {
    let w = weight(rec, &[(qkv[0], 2048), (qkv[1], 512), (qkv[2], 512)], WIDTH);
    let layer = rec.kv_layer(KvShape { n_kv_heads: 8, k_dim: 64, v_dim: 64, v_in_k: false });
    let (n_heads, rope) = (32, Some(rope));
    let [q_norm, k_norm] = [(); 2].map(|()| norms.then(|| norm_of(rec, 64)));
    let heads = Heads { layer, n_heads, clamp: None, q_norm, k_norm, v_norm: None, rope, norms_after_rope: false };
    let product = normed(rec, w);
    let q = rec.linear_heads(x, product, heads)?;
    let seen = rec.attend(q, Attend::plain(layer, n_heads, 0.125))?;
    let w = weight(rec, &[(qkv[0], WIDTH)], 2048);
    rec.linear_add(seen, w, x, 1.0)?;
    let w = weight(rec, &[(qkv[0], HIDDEN), (qkv[0], HIDDEN)], WIDTH);
    let product = normed(rec, w);
    let gated = rec.linear_glu(x, product, Gated::plain(Act::Silu))?;
    let w = weight(rec, &[(qkv[2], WIDTH)], HIDDEN);
    rec.linear_add(gated, w, x, 1.0)
}

/// The plan, with q and k, v and down in these types.
pub fn plan(qkv: [DType; 3]) -> Plan {
    plan_with(qkv, false)
}

/// The plan, with norms on heads of queries and keys if so (Qwen 3).
pub fn plan_with(qkv: [DType; 3], norms: bool) -> Plan {
    let mut rec = Recorder::new();
    let table = weight(&mut rec, &[(qkv[2], VOCABULARY)], WIDTH);
    let x = rec.embed(table, Lookup::Token).unwrap();
    let inv_freq = vec![0.5; 32];
    let rope = rec.rope_table(RopeTable { style: RopeStyle::Interleaved, inv_freq, magnitude: 1.0, long: None });
    (0..LAYERS).for_each(|_| layer(&mut rec, x, qkv, rope, norms).unwrap());
    rec.only_with(Rows::Pools, |rec| {
        let norm = norm(rec);
        let normed = rec.norm(rec.all(x), norm)?;
        rec.pool(normed)
    })
    .unwrap();
    let taken = rec.take_rows(x).unwrap();
    let head = normed(&mut rec, table);
    let logits = rec.linear(taken, head).unwrap();
    rec.finish(logits)
}

/// A decode step.
pub fn one_row(position: u32) -> Inputs {
    let mut inputs = Inputs { tables: vec![(0..64).collect()], ..Inputs::default() };
    inputs.push(5, position, 0);
    inputs.outputs = vec![0];
    inputs
}

/// Room for it.
pub const OPTIONS: RunnerOptions =
    RunnerOptions { max_tokens: 512, max_outputs: 8, kv: KvKind::F16, n_pages: 64, n_states: 1, n_window_pages: 0 };
