//! Few rows of a mixture on GPUs: rows that picked one matrix are multiplied together, which is counted, and have the bits that
//! they have alone.
#![cfg(feature = "gpu")]

use std::sync::Arc;

use crate::common::exam::Random;
use crate::common::skipped;
use ir_engine::bytes::Bytes;
use ir_engine::device::{Device, KvKind, RunnerOptions};
use ir_engine::dtype::DType;
use ir_engine::gpu::{Forms, Gpu, GpuOptions};
use ir_engine::plan::{ExpertEpilogue, Inputs, Pick, Product, Recorder, Rows, Segment, Weight};

const ROWS: usize = 8;
const USED: usize = 2;
const OF: usize = 3;
/// Rows that are multiplied together at most.
const TOGETHER: usize = 4;
const K: usize = 96;
const N: usize = 10;

/// What each row picks: the first matrix by all of them, so that they are more than go together.
fn picked(row: usize) -> [u32; USED] {
    if row == 5 { [2, 0] } else { [0, 1 + (row % 2) as u32] }
}

/// Products of all rows with the matrices that they picked, in steps of so many rows, each with `N` columns of each pick.
fn products(device: &Device, at_once: usize) -> Vec<f32> {
    let (mut rec, mut random) = (Recorder::new(), Random(8));
    let x = rec.input(Rows::Tokens, K);
    let picks = rec.input(Rows::Tokens, 2 * USED);
    let mut segment = |_| Segment {
        name: "w".into(),
        dtype: DType::Q8_0,
        rows: N,
        bytes: Bytes::from((0..N).flat_map(|_| random.blocks(DType::Q8_0, K)).collect::<Vec<_>>()),
        row_bytes: DType::Q8_0.bytes_for(K).unwrap(),
        offset: 0,
    };
    let segments = (0..OF).map(&mut segment).collect();
    let stack = rec.weight(Weight { name: "stack".into(), cols: K, segments });
    let pick = Pick { picks, used: USED, of: OF };
    let out = rec.expert_linear(x, false, pick, Product::from(stack), ExpertEpilogue::Store).unwrap();
    let plan = Arc::new(rec.finish(out));
    let options =
        RunnerOptions { max_tokens: ROWS, max_outputs: 1, kv: KvKind::F32, n_pages: 1, n_states: 1, n_window_pages: 0 };
    let mut runner = device.prepare(Arc::clone(&plan), options).unwrap();
    let data = random.floats(ROWS * K);
    let mut all = Vec::new();
    for rows in (0..ROWS).collect::<Vec<_>>().chunks(at_once) {
        let mut inputs = Inputs { tables: vec![vec![0]], ..Inputs::default() };
        rows.iter().for_each(|row| _ = inputs.push(0, *row as u32, 0));
        runner.set_slot(x, &inputs, &data[rows[0] * K..(rows[0] + rows.len()) * K]).unwrap();
        let indices = |row: &usize| [picked(*row).map(f32::from_bits), [0.5; USED]].concat();
        runner.set_slot(picks, &inputs, &rows.iter().flat_map(indices).collect::<Vec<_>>()).unwrap();
        runner.run_ops(0..plan.ops.len(), &inputs).unwrap();
        all.extend(runner.slot(out, &inputs).unwrap());
    }
    all
}

fn gpu(forms: &str, sabotage: Option<(&'static str, &'static str, &'static str)>) -> Option<Device> {
    let options = GpuOptions { forms: Some(Forms::parse(forms).unwrap()), sabotage, ..GpuOptions::default() };
    Gpu::open_now(&options).map_err(skipped).ok().map(|gpu| Device::Gpu(Arc::new(gpu)))
}

#[test]
fn rows_that_picked_a_matrix_are_multiplied_together() {
    for forms in ["base", "base+dot4"] {
        let Some(device) = gpu(forms, None) else { return };
        let alone = products(&device, 1);
        assert!(alone.iter().any(|v| v.abs() > 1e-3));
        for at_once in [2, 4, ROWS] {
            assert!(products(&device, at_once) == alone, "{forms}: other bits with {at_once} rows in a step");
        }
        // In place of a product each pick gets how many were multiplied with it: a matrix is read once for all of them.
        let count = ("finish_four(places_s[lid], n, total)", "finish_four(places_s[lid], n, vec4(f32(n_places)))");
        let Some(device) = gpu(forms, Some(("expert_linear", count.0, count.1))) else { return };
        let beside = products(&device, ROWS);
        let reads: f64 = beside.iter().step_by(N).map(|n| 1.0 / f64::from(*n)).sum();
        let of_matrix = |matrix| (0..ROWS).filter(|row| picked(*row).contains(&matrix)).count().div_ceil(TOGETHER);
        let least: usize = (0..OF as u32).map(of_matrix).sum();
        println!("{forms}: {reads:.2} reads of matrices for {} picks", ROWS * USED);
        assert!((reads - least as f64).abs() < 1e-6, "{reads} reads where {least} suffice");
        assert!(beside.chunks(N).all(|columns| columns.iter().all(|n| *n == columns[0])));
    }
}
