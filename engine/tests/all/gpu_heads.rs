//! Heads that end their product on GPUs, those included that need a whole head: for norms, and for the scales of an 8-bit cache.
//! Against the scalar definition, and rows alone against rows together.
#![cfg(feature = "gpu")]

use std::sync::Arc;

use crate::common::exam::{Random, cases};
use crate::common::{relative_error, skipped};
use ir_engine::bytes::Bytes;
use ir_engine::cpu::{Activations, Cpu, CpuOptions};
use ir_engine::device::{Device, KvKind, RunnerOptions};
use ir_engine::dtype::DType;
use ir_engine::gpu::{Forms, Gpu, GpuOptions};
use ir_engine::plan::{
    Attend, Heads, Inputs, KvShape, Norm, NormKind, Product, Recorder, RopeStyle, RopeTable, Rows, Segment, Weight,
    WeightId,
};

fn truth() -> Device {
    let options = CpuOptions { threads: Some(2), simd: Some("scalar".into()), activations: Activations::F32 };
    Device::Cpu(Arc::new(Cpu::new(&options).unwrap()))
}

/// The best adapter with these forms; `None`, said on stderr, where there is none.
fn gpu(forms: &str, sabotage: Option<(&'static str, &'static str, &'static str)>) -> Option<Device> {
    let options = GpuOptions { forms: Some(Forms::parse(forms).unwrap()), sabotage, ..GpuOptions::default() };
    Gpu::open_now(&options).map_err(skipped).ok().map(|gpu| Device::Gpu(Arc::new(gpu)))
}

/// f32 sums in another order.
const F32_FORMS: f64 = 1e-5;
/// Activations rounded to 8 bits.
const INT8_FORMS: f64 = 1e-2;

#[test]
fn whole_heads_compute_what_the_definition_says() {
    let truth = truth();
    for (forms, most) in [("base+coherent+heads", F32_FORMS), ("base+subgroups+dot4+owned+coherent+heads", INT8_FORMS)]
    {
        let Some(device) = gpu(forms, None) else { return };
        let mut n = 0;
        for case in cases().iter().filter(|case| case.name.contains("heads of")) {
            let error = relative_error(&case.run(&device), &case.run(&truth));
            assert!(error <= most, "{forms}, {}: relative error {error:e} above {most:e}", case.name);
            n += 1;
        }
        assert!(n >= 20, "only {n} cases");
    }
}

const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const DIM: usize = 64;
const K: usize = 96;
const ROWS: usize = 8;

fn weight(rec: &mut Recorder, dtype: DType, rows: usize, cols: usize, bytes: Vec<u8>) -> WeightId {
    let bytes = Bytes::from(bytes);
    let row_bytes = dtype.bytes_for(cols).unwrap();
    let segment = Segment { name: "w".into(), dtype, rows, bytes, row_bytes, offset: 0 };
    rec.weight(Weight { name: "w".into(), cols, segments: vec![segment] })
}

/// Queries as they are attended with, and what attention gives, of eight sequences' single rows in steps of so many. With norms
/// on heads, or without; the first half of a head turns.
fn rows_of_heads(device: &Device, kv: KvKind, norms: bool, style: RopeStyle, at_once: usize) -> Vec<f32> {
    let (mut rec, mut random) = (Recorder::new(), Random(5));
    let x = rec.input(Rows::Tokens, K);
    let layer = rec.kv_layer(KvShape { n_kv_heads: KV_HEADS, k_dim: DIM, v_dim: DIM, v_in_k: false });
    let cols = (HEADS + 2 * KV_HEADS) * DIM;
    let bytes = (0..cols).flat_map(|_| random.blocks(DType::Q8_0, K)).collect();
    let w = weight(&mut rec, DType::Q8_0, cols, K, bytes);
    let mut norm = |n: usize| {
        let factors = random.floats(n).iter().flat_map(|v| (1.0 + 0.5 * v).to_le_bytes()).collect();
        let weight = Some(weight(&mut rec, DType::F32, n, 1, factors));
        norms.then_some(Norm { kind: NormKind::Rms, eps: 1e-5, group: DIM, weight, bias: None })
    };
    // Of queries each head has factors of its own.
    let (q_norm, k_norm) = (norm(HEADS * DIM), norm(DIM));
    let inv_freq = (0..DIM / 4).map(|i| 0.9 / (1 + i) as f32).collect();
    let rope = Some(rec.rope_table(RopeTable { style, inv_freq, magnitude: 1.1, long: None }));
    let heads =
        Heads { layer, n_heads: HEADS, clamp: None, q_norm, k_norm, v_norm: None, rope, norms_after_rope: false };
    let q = rec.linear_heads(x, Product::from(w), heads).unwrap();
    let out = rec.attend(q, Attend::plain(layer, HEADS, 0.2)).unwrap();
    let plan = Arc::new(rec.finish(out));
    let options = RunnerOptions { max_tokens: ROWS, max_outputs: 1, kv, n_pages: ROWS, n_states: 1, n_window_pages: 0 };
    let mut runner = device.prepare(Arc::clone(&plan), options).unwrap();
    let mut all = Vec::new();
    for _ in 0..2 {
        let data = random.floats(ROWS * K);
        for rows in (0..ROWS).collect::<Vec<_>>().chunks(at_once) {
            let mut inputs = Inputs { tables: rows.iter().map(|row| vec![*row as u32]).collect(), ..Inputs::default() };
            rows.iter().enumerate().for_each(|(seq, row)| _ = inputs.push(0, *row as u32, seq as u32));
            runner.set_slot(x, &inputs, &data[rows[0] * K..(rows[0] + rows.len()) * K]).unwrap();
            runner.run_ops(0..plan.ops.len(), &inputs).unwrap();
            let n = HEADS * DIM;
            all.extend(runner.slot(q.slot, &inputs).unwrap().chunks(cols).flat_map(|row| row[..n].to_vec()));
            all.extend(runner.slot(out, &inputs).unwrap());
        }
    }
    all.chunks(HEADS * DIM)
        .map(|row| row.iter().map(|v| f64::from(v.abs())).sum::<f64>())
        .for_each(|sum| assert!(sum > 0.1));
    all
}

/// Queries and results in the order of their rows, whatever was in one step.
fn in_order(all: &[f32], at_once: usize) -> Vec<f32> {
    let n = at_once * HEADS * DIM;
    let halves = |which: usize| all.chunks(2 * n).flat_map(move |step| step[which * n..(which + 1) * n].to_vec());
    halves(0).chain(halves(1)).collect()
}

/// Rows give the same bits alone and beside others, in every cache; those of the definition but for what a cache rounds.
#[test]
fn rows_of_whole_heads_are_the_same_alone_and_together() {
    let truth = truth();
    // Sums in another order decide now and then which of two neighbouring numbers an element of the cache becomes.
    for (kv, most) in [(KvKind::F32, F32_FORMS), (KvKind::F16, 5e-4), (KvKind::Blocks8, 5e-3)] {
        for (norms, style) in [(true, RopeStyle::Halves), (true, RopeStyle::Interleaved), (false, RopeStyle::Halves)] {
            let want = in_order(&rows_of_heads(&truth, kv, norms, style, 1), 1);
            let Some(device) = gpu("base+coherent+heads", None) else { return };
            let alone = in_order(&rows_of_heads(&device, kv, norms, style, 1), 1);
            let error = relative_error(&alone, &want);
            assert!(error <= most, "{kv:?}, norms {norms}, {style:?}: relative error {error:e} above {most:e}");
            for at_once in [2, 4, 8] {
                let together = in_order(&rows_of_heads(&device, kv, norms, style, at_once), at_once);
                assert!(
                    together == alone,
                    "{kv:?}, norms {norms}, {style:?}: other bits with {at_once} rows in a step"
                );
            }
        }
    }
}

/// Were a head made ready by the first of its workgroups, or without its norm, or its cache row left out, the comparison would
/// say so.
#[test]
fn heads_that_are_made_ready_wrongly_are_found() {
    let want = rows_of_heads(&truth(), KvKind::F16, true, RopeStyle::Halves, 2);
    for (text, instead) in [
        ("before_s + 1u < n", "before_s > 0u"),
        ("inverseSqrt(sum / f32(4u * quads) + eps)", "1.0"),
        ("of_head + c - head.start", "factors + c - head.start"),
        ("if (part == 0u) { return; }", "if (part < 2u) { return; }"),
    ] {
        let Some(device) = gpu("base+coherent+heads", Some(("linear_vec", text, instead))) else { return };
        let error = relative_error(&rows_of_heads(&device, KvKind::F16, true, RopeStyle::Halves, 2), &want);
        assert!(error.is_nan() || error > 1e-2, "{text}: relative error {error:e}");
    }
}
