//! What loading a model onto a GPU takes of the host's memory, on a synthetic file that is large enough to tell. Skips are
//! said on stderr.
#![cfg(feature = "gpu")]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use crate::common::{alone, relative_error, skipped};
use ir_engine::cpu::{Activations, Cpu, CpuOptions};
use ir_engine::device::{Device, KvKind, Runner, RunnerOptions};
use ir_engine::dtype::DType;
use ir_engine::file::{GgufWriter, ModelFile};
use ir_engine::gpu::{Forms, Gpu, GpuOptions};
use ir_engine::meta::MetaBuilder;
use ir_engine::plan::{Inputs, Lookup, Norm, NormKind, Plan, Recorder, Segment, Weight, WeightId};

/// Rows and columns of every matrix.
const WIDTH: usize = 4096;
/// Matrices after the token table: 326 MB, every second one of each type.
const MATRICES: usize = 24;

/// What loading may take beside what is on the device.
const MOST_BESIDE: u64 = 64 << 20;

/// Values that follow from the place of the tensor, with scales that keep activations near 1.
fn tensor_bytes(seed: usize, dtype: DType, rows: usize) -> Vec<u8> {
    let (block, scale) = if dtype == DType::Q8_0 { (34, 1e-4) } else { (18, 1e-3) };
    let scale = half::f16::from_f32(scale).to_le_bytes();
    let mut state = seed as u64 + 1;
    let mut bytes = vec![0; dtype.bytes_for(WIDTH).unwrap() * rows];
    for block in bytes.chunks_exact_mut(block) {
        block[..2].copy_from_slice(&scale);
        for word in block[2..].chunks_mut(4) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            word.copy_from_slice(&(state >> 32).to_le_bytes()[..word.len()]);
        }
    }
    bytes
}

fn dtype(i: usize) -> DType {
    if i.is_multiple_of(2) { DType::Q8_0 } else { DType::Q4_0 }
}

fn write_model(path: &Path) {
    let mut writer = GgufWriter::new(MetaBuilder::new().str("general.architecture", "synthetic")).unwrap();
    let width = WIDTH as u64;
    writer.tensor("norm", &[width], DType::F32).unwrap();
    for i in 0..MATRICES {
        writer.tensor(&format!("matrix.{i}"), &[width, width], dtype(i)).unwrap();
    }
    let mut out = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let mut data = |i: usize| match i {
        0 => [1.0f32.to_le_bytes(); WIDTH].concat(),
        i => tensor_bytes(i, dtype(i - 1), WIDTH),
    };
    writer.write(&mut out, &mut data).unwrap();
    out.flush().unwrap();
}

/// Adds a tensor of the file to a recording.
fn weight(rec: &mut Recorder, file: &ModelFile, name: &str, rows: usize, cols: usize) -> WeightId {
    let tensor = file.tensor(name).unwrap();
    let dtype = tensor.dtype().unwrap();
    let (bytes, row_bytes) = (file.bytes(tensor).unwrap(), dtype.bytes_for(cols).unwrap());
    let segments = vec![Segment { name: name.into(), dtype, rows, bytes, row_bytes, offset: 0 }];
    rec.weight(Weight { name: name.into(), cols, segments })
}

/// The first matrix is the token table and the last gives the logits; every other one adds to the stream.
fn plan(file: &ModelFile) -> Plan {
    let mut rec = Recorder::new();
    let matrix = |rec: &mut Recorder, i: usize| weight(rec, file, &format!("matrix.{i}"), WIDTH, WIDTH);
    let norm = weight(&mut rec, file, "norm", WIDTH, 1);
    let table = matrix(&mut rec, 0);
    let x = rec.embed(table, Lookup::Token).unwrap();
    for i in 1..MATRICES - 1 {
        let w = matrix(&mut rec, i);
        let normed = Norm { kind: NormKind::Rms, eps: 1e-5, group: WIDTH, weight: Some(norm), bias: None };
        let normed = rec.norm(rec.all(x), normed).unwrap();
        rec.linear_add(normed, w, x, 1.0).unwrap();
    }
    let taken = rec.take_rows(x).unwrap();
    let head = matrix(&mut rec, MATRICES - 1);
    let logits = rec.linear(taken, head).unwrap();
    rec.finish(logits)
}

/// A line of Linux's account of this process, in bytes. `None` on other systems.
fn memory(line: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|l| l.strip_prefix(line)?.trim().strip_suffix(" kB"))?;
    kib.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

fn logits(runner: &mut Runner) -> Vec<f32> {
    let mut inputs = Inputs { tables: vec![vec![0]], outputs: vec![0], ..Inputs::default() };
    inputs.push(77, 0, 0);
    runner.submit(&inputs).unwrap().wait().unwrap().logits
}

#[test]
fn loading_takes_little_beside_what_is_on_the_device() {
    if !alone(module_path!(), "loading_takes_little_beside_what_is_on_the_device") {
        return;
    }
    let options = GpuOptions { forms: Some(Forms::BASE), ..GpuOptions::default() };
    let gpu = match Gpu::open_now(&options) {
        Ok(gpu) => Arc::new(gpu),
        Err(error) => return skipped(error),
    };
    let path = std::env::temp_dir().join(format!("ir-gpu-loading-{}.gguf", std::process::id()));
    write_model(&path);
    let file = ModelFile::open(&path);
    if cfg!(unix) {
        std::fs::remove_file(&path).unwrap();
    }
    let file = file.unwrap();
    assert!(file.byte_len() > 300 << 20, "{} bytes", file.byte_len());
    let plan = Arc::new(plan(&file));
    let options =
        RunnerOptions { max_tokens: 1, max_outputs: 1, kv: KvKind::F32, n_pages: 1, n_states: 1, n_window_pages: 0 };

    let before = memory("VmRSS:");
    let runner = gpu.prepare(Arc::clone(&plan), options).unwrap();
    match before.zip(memory("VmHWM:")) {
        Some((before, peak)) => {
            let (took, device) = (peak - before, runner.bytes());
            println!("on {}: {took} bytes at the peak for {device} on the device", gpu.name());
            assert!(took <= device + MOST_BESIDE, "{took} bytes for {device} on the device");
        }
        None => skipped("this system does not say what memory a process takes"),
    }

    // What was uploaded in pieces is the file, and the file can still be read.
    let cpu = CpuOptions { activations: Activations::F32, ..CpuOptions::default() };
    let cpu = Device::Cpu(Arc::new(Cpu::new(&cpu).unwrap()));
    let want = logits(&mut cpu.prepare(plan, options).unwrap());
    let error = relative_error(&logits(&mut Runner::Gpu(runner)), &want);
    println!("relative error {error:.1e}");
    assert!(want.iter().any(|x| *x != 0.0) && error <= 1e-4, "{error}");
    if !cfg!(unix) {
        drop(file);
        std::fs::remove_file(&path).unwrap();
    }
}
