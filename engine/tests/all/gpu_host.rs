//! What a step costs the host, and how many dispatches it takes, for the shape of a 1B model: on wgpu's backend that does
//! nothing, so no adapter is needed.
#![cfg(feature = "gpu")]

use std::sync::Arc;
use std::time::Instant;

use crate::common::timed;
use ir_engine::bytes::Bytes;
use ir_engine::device::{KvKind, RunnerOptions};
use ir_engine::dtype::DType;
use ir_engine::error::Result;
use ir_engine::gpu::{Forms, Gpu};
use ir_engine::plan::{
    Act, Attend, Gated, Heads, Inputs, KvShape, Lookup, Norm, NormKind, Plan, Pool, Product, Recorder, RopeStyle,
    RopeTable, Rows, Segment, Slot, Want, Weight, WeightId,
};

/// A Llama of 1B parameters: 16 layers, 32 heads of 64 over 8 of keys and values.
const LAYERS: usize = 16;
const WIDTH: usize = 2048;
const HIDDEN: usize = 8192;
const VOCABULARY: usize = 128_256;

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

fn norm(rec: &mut Recorder) -> Norm {
    let weight = Some(weight(rec, &[(DType::F32, WIDTH)], 1));
    Norm { kind: NormKind::Rms, eps: 1e-5, group: WIDTH, weight, bias: None }
}

/// A product behind a norm.
fn normed(rec: &mut Recorder, weight: WeightId) -> Product {
    Product { norm: Some(norm(rec)), ..Product::from(weight) }
}

fn layer(rec: &mut Recorder, x: Slot, qkv: [DType; 3], rope: usize) -> Result<()> {
    let w = weight(rec, &[(qkv[0], 2048), (qkv[1], 512), (qkv[2], 512)], WIDTH);
    let layer = rec.kv_layer(KvShape { n_kv_heads: 8, k_dim: 64, v_dim: 64, v_in_k: false });
    let (n_heads, rope) = (32, Some(rope));
    let heads =
        Heads { layer, n_heads, clamp: None, q_norm: None, k_norm: None, v_norm: None, rope, norms_after_rope: false };
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

pub(crate) fn plan(qkv: [DType; 3]) -> Plan {
    let mut rec = Recorder::new();
    let table = weight(&mut rec, &[(qkv[2], VOCABULARY)], WIDTH);
    let x = rec.embed(table, Lookup::Token).unwrap();
    let inv_freq = vec![0.5; 32];
    let rope = rec.rope_table(RopeTable { style: RopeStyle::Interleaved, inv_freq, magnitude: 1.0, long: None });
    (0..LAYERS).for_each(|_| layer(&mut rec, x, qkv, rope).unwrap());
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

fn one_row(position: u32) -> Inputs {
    let mut inputs = Inputs { tables: vec![(0..64).collect()], ..Inputs::default() };
    inputs.push(5, position, 0);
    inputs.outputs = vec![0];
    inputs
}

const OPTIONS: RunnerOptions =
    RunnerOptions { max_tokens: 512, max_outputs: 8, kv: KvKind::F16, n_pages: 64, n_states: 1, n_window_pages: 0 };

/// Forms that a native GPU has by default.
const NATIVE: Forms = Forms { coherent: true, ..Forms::BASE };

/// Types of q and k, v and down, and the most dispatches per layer: the products of q, k, v, with what is done to heads, of
/// o, of gate and up and of down, and attention. One more if one product has two types.
pub(crate) const TYPES: &[([DType; 3], usize)] =
    &[([DType::Q4_0; 3], 5), ([DType::Q8_0; 3], 5), ([DType::Q4_K, DType::Q4_K, DType::Q6_K], 6)];

/// Where memory is not coherent, as in pages, splits of attention are joined by a dispatch of their own.
#[test]
fn a_decode_step_takes_few_dispatches() {
    for (types, most) in TYPES {
        for (forms, position, more) in
            [(NATIVE, 10, 0), (NATIVE, 1000, 0), (Forms::BASE, 10, 0), (Forms::BASE, 1000, 1)]
        {
            let runner = Arc::new(Gpu::noop(forms).unwrap()).prepare(Arc::new(plan(*types)), OPTIONS).unwrap();
            let n = runner.n_dispatches(&one_row(position));
            // Embedding, rows taken and the head are three more.
            assert!(n <= (most + more) * LAYERS + 3, "{types:?} at {position}: {n} dispatches for {LAYERS} layers");
            println!(
                "{types:?}, {forms}, at position {position}: {n} dispatches, {:.2} per layer",
                (n - 3) as f64 / LAYERS as f64
            );
            // An embedding takes a norm and a mean more, and no head: the row's and the product.
            let mut pooled = one_row(position);
            pooled.pools = vec![Pool { first: 0, rows: 1 }];
            assert_eq!(runner.n_dispatches(&pooled), n + 2);
            pooled.outputs.clear();
            assert_eq!(runner.n_dispatches(&pooled), n);
        }
    }
}

/// What the host may spend on a decode step of 16 layers, in a release build.
const MOST_MICROSECONDS: f64 = 500.0;

#[test]
fn a_decode_step_costs_the_host_little() {
    let mut runner = Arc::new(Gpu::noop(NATIVE).unwrap()).prepare(Arc::new(plan([DType::Q4_0; 3])), OPTIONS).unwrap();
    let mut best = f64::INFINITY;
    for position in 0..200 {
        let inputs = one_row(position);
        let start = Instant::now();
        let readback = runner.submit(&inputs).unwrap();
        best = best.min(start.elapsed().as_secs_f64() * 1e6);
        readback.wait().unwrap();
    }
    println!("a decode step costs the host {best:.0} us");
    assert!(!timed() || best <= MOST_MICROSECONDS, "{best} us");
}

/// Four steps are submitted before the first has a result, which all come back together.
#[test]
fn a_chain_has_one_way_back() {
    let mut runner = Arc::new(Gpu::noop(NATIVE).unwrap()).prepare(Arc::new(plan([DType::Q4_0; 3])), OPTIONS).unwrap();
    let pick = Want::Pick { draw: [1, 2], scale: 1.0, least: -10.0 };
    let mut inputs = Inputs { wants: vec![pick], next: vec![vec![pick]; 3], ..one_row(15) };
    let results = runner.submit(&inputs).unwrap().wait().unwrap();
    assert_eq!((results.picked.len(), results.values.len()), (4, 0));
    // What would need the host between its steps is no chain.
    inputs.next[1] = vec![Want::Top];
    assert!(inputs.check(VOCABULARY, 64).is_err());
    inputs.next.truncate(1);
    assert!(inputs.check(VOCABULARY, 64).is_ok());
    assert!(
        Inputs { tables: vec![vec![0]], ..inputs.clone() }.check(VOCABULARY, 64).is_err(),
        "no page for position 16"
    );
    assert!(Inputs { outputs: vec![], ..inputs }.check(VOCABULARY, 64).is_err());
}

#[test]
fn a_slow_device_is_given_less_at_once() {
    let mut runner = Arc::new(Gpu::noop(NATIVE).unwrap()).prepare(Arc::new(plan([DType::Q4_0; 3])), OPTIONS).unwrap();
    let mut prompt = Inputs { tables: vec![(0..64).collect()], outputs: vec![511], ..Inputs::default() };
    for position in 0..512 {
        prompt.push(5, position, 0);
    }
    assert!(runner.brisk_rows() >= 512, "a device that was not measured takes whole chunks");
    runner.submit(&prompt).unwrap().wait().unwrap();
    // About 1.2e12 operations: 120 G a second.
    runner.took(10.0);
    let slow = runner.brisk_rows();
    assert!((100..=800).contains(&slow), "{slow} rows");
    // Ten times slower, and such that no dispatch of 16 rows fits.
    runner.submit(&prompt).unwrap().wait().unwrap();
    runner.took(100.0);
    assert!((16..slow / 5).contains(&runner.brisk_rows()), "{} rows", runner.brisk_rows());
    // Steps of one row are another kind and change nothing.
    let before = runner.brisk_rows();
    runner.submit(&one_row(600)).unwrap().wait().unwrap();
    runner.took(0.001);
    assert_eq!(runner.brisk_rows(), before);
    for _ in 0..12 {
        runner.submit(&prompt).unwrap().wait().unwrap();
        runner.took(0.1);
    }
    assert!(runner.brisk_rows() >= 512, "a fast device is found out: {} rows", runner.brisk_rows());
}
