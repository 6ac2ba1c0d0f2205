//! The exam: every op, every block type, every instruction set of this machine against the scalar definition.

use std::sync::Arc;

use crate::common::exam::{Case, cases};
use crate::common::relative_error;
use ir_engine::cpu::{Activations, Cpu, CpuOptions, simd};
use ir_engine::device::Device;
use ir_engine::dtype::DType;
use ir_engine::plan::OpKind;

fn cpu(simd: &str, activations: Activations) -> Device {
    let options = CpuOptions { threads: Some(2), simd: Some(simd.into()), activations };
    Device::Cpu(Arc::new(Cpu::new(&options).unwrap()))
}

/// f32 sums in another order: a few units in the last place over at most some thousand terms.
const F32_ORDER: f64 = 2e-6;
/// The vectorised exponential is allowed this on top.
const EXP: f64 = 1e-5;

/// What a case may be off.
fn tolerance(case: &Case, activations: Activations) -> f64 {
    let rounded = |dtype: &DType| match activations {
        Activations::F32 => false,
        Activations::Quantised => !dtype.is_plain(),
        Activations::Bf16 => dtype.traits().q8_tolerance > 0.0,
    };
    let quantised = case.dtype.filter(rounded);
    let error = match (case.op, quantised) {
        (OpKind::Embed | OpKind::TakeRows | OpKind::TakeCols | OpKind::Pool, _) => 0.0,
        (OpKind::Linear | OpKind::ExpertLinear | OpKind::HeadLinear, Some(dtype)) => dtype.traits().q8_tolerance,
        _ if case.exponentials => EXP,
        _ => F32_ORDER,
    };
    case.powers * error
}

#[test]
fn every_op_has_cases() {
    let cases = cases();
    for op in OpKind::ALL {
        assert!(cases.iter().any(|c| c.op == *op), "no case for {}", op.name());
    }
}

#[test]
fn every_instruction_set_computes_what_the_definition_says() {
    let truth = cpu("scalar", Activations::F32);
    for case in cases() {
        let want = case.run(&truth);
        assert!(want.iter().any(|x| *x != 0.0), "{:?} {}: all zeros", case.op, case.name);
        for table in simd::available() {
            for activations in [Activations::F32, Activations::Quantised, Activations::Bf16] {
                let got = case.run(&cpu(table.name, activations));
                let (error, most) = (relative_error(&got, &want), tolerance(&case, activations));
                let what = format!("{} ({}) on {} {activations:?}", case.op.name(), case.name, table.name);
                assert!(error <= most, "{what}: relative error {error:e} above {most:e}");
            }
        }
    }
}
