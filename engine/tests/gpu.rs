//! The exam on GPUs: every op case and whole models on this machine's adapters against the scalar definition. Skips are
//! said on stderr. A software adapter shows that results are right, never how fast a kernel is.
#![cfg(feature = "gpu")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on fails, and says what it covered"
)]

mod common;

use std::sync::Arc;

use common::exam::{Case, cases};
use common::relative_error;
use ir_engine::cpu::{Activations, Cpu, CpuOptions};
use ir_engine::device::Device;
use ir_engine::gpu::{Forms, Gpu, GpuOptions};
use ir_engine::plan::OpKind;

fn truth() -> Device {
    let options = CpuOptions { threads: Some(2), simd: Some("scalar".into()), activations: Activations::F32 };
    Device::Cpu(Arc::new(Cpu::new(&options).unwrap()))
}

/// The best adapter with these options; `None`, said on stderr, where there is none.
fn gpu(options: &GpuOptions) -> Option<Device> {
    match Gpu::open_now(options) {
        Ok(gpu) => Some(Device::Gpu(Arc::new(gpu))),
        Err(error) => {
            eprintln!("skipped: {error}");
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
    match case.op {
        OpKind::Embed | OpKind::TakeRows | OpKind::Add => 1e-7,
        OpKind::Linear if forms.dot4 => INT8_FORMS,
        OpKind::Linear if forms.f16 => F16_FORMS,
        _ => F32_FORMS,
    }
}

fn examine(options: &GpuOptions) {
    let Some(device) = gpu(options) else { return };
    let forms = options.forms.unwrap_or(Forms::BASE);
    let truth = truth();
    let mut faults = Vec::new();
    let mut n = 0;
    for case in cases() {
        let want = case.run(&truth);
        let got = case.run(&device);
        let (error, most) = (relative_error(&got, &want), tolerance(&case, forms));
        n += 1;
        if error.is_nan() || error > most {
            faults.push(format!("{} ({}): relative error {error:e} above {most:e}", case.op.name(), case.name));
        }
    }
    assert!(n > 100, "only {n} cases");
    assert!(faults.is_empty(), "{} of {n} on {}:\n  {}", faults.len(), device.name(), faults.join("\n  "));
}

#[test]
fn base_forms_compute_what_the_definition_says() {
    examine(&GpuOptions { default_limits: true, ..with_forms("base") });
}

#[test]
fn subgroup_and_half_forms_compute_what_the_definition_says() {
    examine(&with_forms("base+f16+subgroups"));
}

#[test]
fn byte_forms_compute_what_the_definition_says() {
    examine(&with_forms("base+dot4"));
}
