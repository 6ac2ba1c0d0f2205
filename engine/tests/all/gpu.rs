//! The exam on GPUs: every op case and whole models on this machine's adapters against the scalar definition. Skips are
//! said on stderr. A software adapter shows that results are right, never how fast a kernel is.
#![cfg(feature = "gpu")]

use std::sync::Arc;

use crate::common::exam::{Case, Random, cases};
use crate::common::{full, relative_error, skipped};
use ir_engine::bytes::Bytes;
use ir_engine::cpu::{Activations, Cpu, CpuOptions};
use ir_engine::device::{Device, KvKind, RunnerOptions};
use ir_engine::dtype::DType;
use ir_engine::gpu::{Forms, Gpu, GpuOptions};
use ir_engine::plan::{
    Attend, AttentionMask, Inputs, KvShape, Lookup, OpKind, Recorder, Relative, Rows, Segment, Temperature, Weight,
};

fn truth() -> Device {
    let options = CpuOptions { threads: Some(2), simd: Some("scalar".into()), activations: Activations::F32 };
    Device::Cpu(Arc::new(Cpu::new(&options).unwrap()))
}

/// The best adapter with these options; `None`, said on stderr, where there is none.
fn gpu(options: &GpuOptions) -> Option<Device> {
    match Gpu::open_now(options) {
        Ok(gpu) => Some(Device::Gpu(Arc::new(gpu))),
        Err(error) => {
            skipped(error);
            None
        }
    }
}

fn with_forms(forms: &str) -> GpuOptions {
    GpuOptions { forms: Some(Forms::parse(forms).unwrap()), ..GpuOptions::default() }
}

/// f32 sums in another order, exponentials and roots as drivers have them.
const F32_FORMS: f64 = 1e-5;
/// Tiles of halves: both factors rounded to 11 bits, products summed four by four in half precision.
const F16_FORMS: f64 = 2e-3;
/// Activations rounded to 8 bits, as in the CPU's exam.
const INT8_FORMS: f64 = 1e-2;

fn tolerance(case: &Case, forms: Forms) -> f64 {
    case.powers
        * match case.op {
            OpKind::Embed | OpKind::TakeRows | OpKind::TakeCols | OpKind::Add => 1e-7,
            OpKind::Linear | OpKind::ExpertLinear if forms.dot4 => INT8_FORMS,
            // What was chosen shows in what the chosen matrices give.
            OpKind::Linear | OpKind::ExpertLinear | OpKind::HeadLinear | OpKind::Route if forms.f16 => F16_FORMS,
            _ => F32_FORMS,
        }
}

/// Block types that between them are stored in the ways that kernels read: scales of several kinds, minima, grids with signs,
/// blocks of 32 and 256. The first ones differ most.
const SAMPLE: &[DType] = &[DType::Q4_0, DType::Q4_K, DType::IQ3_S, DType::Q6_K, DType::MXFP4, DType::Q8_0];
/// How many of them are multiplied in forms that SwiftShader examines with every type (`.ci/gpu`), and in those that are used
/// only where they are asked for by name.
const FEW: usize = 3;

/// The cases of a run, with products of the first `types` of the sample: each type's kernels are compiled anew for every form,
/// so that products of the others are for `IR_FULL=1`. What is not counted in types is in every run.
fn cases_of_run(types: usize) -> impl Iterator<Item = Case> {
    let all = full();
    if !all {
        skipped("products on a GPU of types that are stored like others are for IR_FULL=1");
    }
    let sampled =
        move |case: &Case| case.dtype.is_none_or(|dtype| dtype.is_plain() || SAMPLE[..types].contains(&dtype));
    cases().into_iter().filter(move |case| all || sampled(case))
}

fn examine(options: &GpuOptions, types: usize) {
    examine_cases(options, cases_of_run(types), 100);
}

/// Examines these cases, of which there must be more than `at_least`.
fn examine_cases(options: &GpuOptions, cases: impl IntoIterator<Item = Case>, at_least: usize) {
    let Some(device) = gpu(options) else { return };
    let forms = options.forms.unwrap_or(Forms::BASE);
    let truth = truth();
    let mut faults = Vec::new();
    let mut n = 0;
    for case in cases {
        let want = case.run(&truth);
        let got = case.run(&device);
        let (error, most) = (relative_error(&got, &want), tolerance(&case, forms));
        n += 1;
        if error.is_nan() || error > most {
            faults.push(format!("{} ({}): relative error {error:e} above {most:e}", case.op.name(), case.name));
        }
    }
    assert!(n > at_least, "only {n} cases");
    assert!(faults.is_empty(), "{} of {n} on {}:\n  {}", faults.len(), device.name(), faults.join("\n  "));
}

#[test]
fn base_forms_compute_what_the_definition_says() {
    examine(&GpuOptions { default_limits: true, ..with_forms("base") }, FEW);
}

#[test]
fn subgroup_and_half_forms_compute_what_the_definition_says() {
    examine(&with_forms("base+f16+subgroups"), SAMPLE.len());
}

/// Other ops have no form for bytes.
#[test]
fn byte_forms_compute_what_the_definition_says() {
    let products = cases_of_run(FEW).filter(|case| matches!(case.op, OpKind::Linear | OpKind::ExpertLinear));
    examine_cases(&with_forms("base+dot4"), products, 40);
}

/// Splits joined in the dispatch that computes them; `long_contexts_are_split_and_merged` has those.
#[test]
fn coherent_forms_compute_what_the_definition_says() {
    let attention = cases_of_run(0).filter(|case| case.op == OpKind::Attend);
    examine_cases(&with_forms("base+coherent"), attention, 20);
}

/// Subgroups that own rows of weights, with floats and with bytes.
#[test]
fn owned_forms_compute_what_the_definition_says() {
    for forms in ["base+subgroups+owned", "base+subgroups+dot4+owned"] {
        let products = cases_of_run(FEW).filter(|case| case.op == OpKind::Linear);
        examine_cases(&with_forms(forms), products, 40);
    }
    // Were the second of two units left out, the exam would say so.
    let sabotage = Some(("linear_vec", "let both = u + subgroup_size < p.units;", "let both = false;"));
    let Some(device) = gpu(&GpuOptions { sabotage, ..with_forms("base+subgroups+owned") }) else { return };
    let wrong = |case: &Case| relative_error(&case.run(&device), &case.run(&truth())) > 1e-3;
    assert!(cases().iter().any(|case| case.op == OpKind::Linear && wrong(case)));
}

/// On adapters that have cooperative matrices of 8 x 8: Apple's, and software ones. Others are skipped, and say why.
#[test]
fn matrix_forms_compute_what_the_definition_says() {
    for forms in ["base+coopmat", "base+f16+coopmat"] {
        let products = cases_of_run(FEW).filter(|case| case.op == OpKind::Linear);
        examine_cases(&with_forms(forms), products, 20);
    }
}

/// Attention over 1,200 positions: four chunks of rows, then two sequences row by row, whose positions are split over
/// workgroups and merged. `more`: with sinks, slopes, a temperature and a cap.
fn long_context(device: &Device, window: Option<u32>, more: bool) -> Vec<f32> {
    const HEADS: usize = 6;
    const KV_HEADS: usize = 2;
    const DIM: usize = 32;
    const N: u32 = 1200;
    let mut rec = Recorder::new();
    let x = rec.input(Rows::Tokens, (HEADS + 2 * KV_HEADS) * DIM);
    let layer = rec.kv_layer(KvShape { n_kv_heads: KV_HEADS, k_dim: DIM, v_dim: DIM, v_in_k: false });
    let k = rec.view(x, 0, KV_HEADS * DIM).unwrap();
    let v = rec.view(x, KV_HEADS * DIM, KV_HEADS * DIM).unwrap();
    let q = rec.view(x, 2 * KV_HEADS * DIM, HEADS * DIM).unwrap();
    rec.kv_write(k, None, Some(v), layer).unwrap();
    let mut attend = Attend { window, ..Attend::plain(layer, HEADS, 0.6) };
    if more {
        let mut vector = |values: [f32; HEADS]| {
            let bytes = Bytes::from(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
            let segment = Segment { name: "w".into(), dtype: DType::F32, rows: HEADS, bytes, row_bytes: 4, offset: 0 };
            rec.weight(Weight { name: "w".into(), cols: 1, segments: vec![segment] })
        };
        attend.slopes = Some(vector([0.0, 1e-4, 1e-3, 1e-2, 0.1, 0.5]));
        attend.sinks = Some(vector([1.0, 9.0, -20.0, 0.0, 4.0, 2.0]));
        attend.temperature = Some(Temperature { factor: 0.1, length: 100.0, offset: 1.0 });
        attend.cap = Some(30.0);
    }
    let out = rec.attend(q, attend).unwrap();
    let plan = Arc::new(rec.finish(out));
    let options =
        RunnerOptions { max_tokens: 300, max_outputs: 1, kv: KvKind::F16, n_pages: 80, n_states: 1, n_window_pages: 0 };
    let mut runner = device.prepare(Arc::clone(&plan), options).unwrap();
    let mut random = Random(window.map_or(1, u64::from));
    let tables = vec![(0..76).rev().collect(), vec![77, 78, 79]];
    let mut inputs = Inputs { tables, ..Inputs::default() };
    let mut all = Vec::new();
    let steps = (0..4).map(|i| (i * 300..(i + 1) * 300).map(|p| (p, 0)).collect());
    for rows in steps.chain([vec![(N, 0), (0, 1)], vec![(1, 1), (N + 1, 0)]]) {
        let rows: Vec<(u32, u32)> = rows;
        inputs.tokens.clear();
        inputs.positions.clear();
        inputs.seqs.clear();
        rows.iter().for_each(|(position, seq)| _ = inputs.push(0, *position, *seq));
        let data = random.floats(rows.len() * (HEADS + 2 * KV_HEADS) * DIM);
        runner.set_slot(x, &inputs, &data).unwrap();
        runner.run_ops(0..plan.ops.len(), &inputs).unwrap();
        let seen = runner.slot(out, &inputs).unwrap();
        all.extend_from_slice(&seen[seen.len().saturating_sub(1000)..]);
    }
    all
}

#[test]
fn long_contexts_are_split_and_merged() {
    for (window, more) in [(None, false), (Some(700), false), (Some(3), false), (None, true), (Some(700), true)] {
        let want = long_context(&truth(), window, more);
        let mut of_base = None;
        // Subgroups have no part in it but where splits are joined: with the most and with the least is enough.
        let all = ["base", "base+coherent", "base+subgroups"];
        for forms in &all[..if more == window.is_none() { 3 } else { 2 }] {
            let Some(device) = gpu(&with_forms(forms)) else { return };
            let got = long_context(&device, window, more);
            let error = relative_error(&got, &want);
            println!("{forms}, window {window:?}, sinks and the like {more}: relative error {error:.1e}");
            assert!(error <= F32_FORMS, "{forms}, window {window:?}, {more}: relative error {error:e}");
            // Who joins the splits does not show.
            let of_base = of_base.get_or_insert_with(|| got.clone());
            assert!(*of_base == got, "{forms}, window {window:?}, {more}: other bits than of the base form");
        }
    }
}

/// Splits are joined by whoever is last: the same bits however often, and for rows of several sequences at once.
#[test]
fn splits_are_joined_by_the_last_of_them() {
    let Some(device) = gpu(&with_forms("base+coherent")) else { return };
    let first = long_context(&device, None, false);
    for _ in 0..3 {
        assert!(long_context(&device, None, false) == first, "other bits in another run");
    }
}

/// A step of sources, of 600 positions and of 40; then rows that see their source and what is behind it: 20 at once and one,
/// then one each.
fn behind_sources(device: &Device) -> Vec<f32> {
    const HEADS: usize = 4;
    const COLS: usize = HEADS * 32;
    let (mut rec, mut random) = (Recorder::new(), Random(9));
    let mut weight = |rec: &mut Recorder, rows: usize, cols: usize| {
        let bytes = Bytes::from(random.floats(rows * cols).iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
        let segment = Segment { name: "w".into(), dtype: DType::F32, rows, bytes, row_bytes: 4 * cols, offset: 0 };
        rec.weight(Weight { name: "w".into(), cols, segments: vec![segment] })
    };
    let shape = KvShape { n_kv_heads: HEADS, k_dim: 32, v_dim: 32, v_in_k: false };
    let mut kept = |rec: &mut Recorder| {
        let table = weight(rec, 50, 3 * COLS);
        let rows = rec.embed(table, Lookup::Token).unwrap();
        let [q, k, v] = [0, COLS, 2 * COLS].map(|at| rec.view(rows, at, COLS).unwrap());
        let layer = rec.kv_layer(shape);
        rec.kv_write(k, None, Some(v), layer).unwrap();
        (q, layer)
    };
    let before = rec.set_when(Rows::Sources);
    let (_, source) = kept(&mut rec);
    rec.set_when(before);
    let (q, own) = kept(&mut rec);
    let cross = Attend { mask: AttentionMask::Cross, ..Attend::plain(source, HEADS, 0.3) };
    let out = rec.attend(q, cross).unwrap();
    let relative = Some(Relative { weight: weight(&mut rec, 32 * HEADS, 1), buckets: 32, far: 128 });
    let own = rec.attend(q, Attend { relative, ..Attend::plain(own, HEADS, 0.3) }).unwrap();
    rec.add(out, own, 1.0).unwrap();
    let plan = Arc::new(rec.finish(out));
    let options =
        RunnerOptions { max_tokens: 640, max_outputs: 1, kv: KvKind::F16, n_pages: 44, n_states: 1, n_window_pages: 0 };
    let mut runner = device.prepare(Arc::clone(&plan), options).unwrap();
    let mut inputs = Inputs {
        tables: vec![(0..40).rev().collect(), (40..44).collect()],
        sources: vec![600, 40],
        ..Inputs::default()
    };
    let mut all = Vec::new();
    for (source, first, second) in [(true, 0..600, 0..40), (false, 600..620, 40..41), (false, 620..621, 41..42)] {
        inputs.source = source;
        inputs.tokens.clear();
        inputs.positions.clear();
        inputs.seqs.clear();
        first.for_each(|p| _ = inputs.push(p * 7 % 50, p, 0));
        second.for_each(|p| _ = inputs.push(p * 11 % 50, p, 1));
        runner.run_ops(0..plan.ops.len(), &inputs).unwrap();
        all.extend(runner.slot(out, &inputs).unwrap());
    }
    assert_eq!(all.len(), (21 + 2) * COLS, "a step of sources has no rows of tokens");
    all
}

#[test]
fn sources_are_read_in_steps_of_their_own() {
    let want = behind_sources(&truth());
    for forms in ["base", "base+coherent"] {
        let Some(device) = gpu(&with_forms(forms)) else { return };
        let error = relative_error(&behind_sources(&device), &want);
        println!("{forms}: relative error {error:.1e}");
        assert!(error <= F32_FORMS, "{forms}: relative error {error:e}");
    }
    // Were what is generated not to begin behind its source, the comparison would say so.
    let sabotage = Some(("attend_vec", "first = max(first, n_source(row));", ""));
    let Some(device) = gpu(&GpuOptions { sabotage, ..with_forms("base") }) else { return };
    assert!(relative_error(&behind_sources(&device), &want) > 100.0 * F32_FORMS);
}

/// Were splits joined by the last but one to finish, the comparison would say so.
#[test]
fn a_wrong_joining_of_splits_is_found() {
    let sabotage = Some(("attend_vec", "before_s + 1u < n", "before_s + 2u != n"));
    let Some(device) = gpu(&GpuOptions { sabotage, ..with_forms("base+coherent") }) else { return };
    let error = relative_error(&long_context(&device, None, false), &long_context(&truth(), None, false));
    assert!(error.is_nan() || error > 100.0 * F32_FORMS, "relative error {error:e}");
}
