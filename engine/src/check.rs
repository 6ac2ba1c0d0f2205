//! Two devices side by side: runs a plan op by op on both, each op from the same inputs, and says how far their results are
//! apart. Finds the first op that is wrong, where comparing logits only says that something is.

use std::sync::Arc;

use crate::device::{Device, KvKind, Runner, RunnerOptions};
use crate::error::{Error, Result};
use crate::plan::{Inputs, OpKind, PAGE, Plan, Pool};

/// How far two devices are apart behind an op.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// Rows of the step.
    pub rows: usize,
    /// The op, as a place in the plan.
    pub op: usize,
    /// Which part of the model it belongs to, for example `blk.3.attn`.
    pub scope: String,
    /// The op's name, for example `linear`.
    pub name: &'static str,
    /// Relative error (L2) of what the op writes; not a number where a device computed such.
    pub error: f64,
    /// The element that is furthest apart.
    pub worst: Worst,
    /// Whether the processor is the device that computed it, also where a model is divided.
    pub on_cpu: bool,
}

/// The element of an op's result that is furthest apart on two devices.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Worst {
    /// Its row in the step.
    pub row: usize,
    /// Its column.
    pub column: usize,
    /// What the first device computed.
    pub want: f32,
    /// What the second one did.
    pub got: f32,
}

/// Runs `ids` through a plan on both devices, all but the last in one step and the last in another, and reports every op
/// that writes a slot. An encoder in front of a decoder reads those of the first step in a step before it. `device` gets the
/// inputs of each op from `truth`, so errors do not add up; only the cache is each device's own.
///
/// # Errors
/// Fewer than two ids, ids beyond the vocabulary, or what a device says.
pub fn check(
    plan: &Arc<Plan>,
    truth: &Device,
    device: &Device,
    ids: &[u32],
    kv: KvKind,
    report: &mut dyn FnMut(Compared),
) -> Result<()> {
    let Some((last, first)) = ids.split_last().filter(|(_, first)| !first.is_empty()) else {
        return Err(Error::request("checking takes a prompt of two tokens at least"));
    };
    // Positions of a source come first.
    let n_source = if plan.reads_source() { first.len() } else { 0 };
    let n_pages = (n_source + ids.len()).div_ceil(PAGE);
    let options =
        RunnerOptions { max_tokens: first.len(), max_outputs: 1, kv, n_pages, n_states: 1, n_window_pages: 0 };
    let mut pair = [truth.prepare(Arc::clone(plan), options)?, device.prepare(Arc::clone(plan), options)?];
    let (tables, sources) = (vec![(0..n_pages as u32).rev().collect()], vec![n_source as u32]);
    let mut inputs = Inputs { tables, sources, ..Inputs::default() };
    let source = (n_source > 0).then_some((first, 0, true));
    let steps = [(first, n_source, false), (std::slice::from_ref(last), n_source + first.len(), false)];
    for (ids, at, source) in source.into_iter().chain(steps) {
        inputs.source = source;
        inputs.tokens.clear();
        inputs.positions.clear();
        inputs.seqs.clear();
        for (i, id) in ids.iter().enumerate() {
            inputs.push(*id, (at + i) as u32, 0);
        }
        plan.use_adapters(&mut inputs);
        inputs.outputs = if source { Vec::new() } else { vec![ids.len() as u32 - 1] };
        inputs.pools = if source { Vec::new() } else { vec![Pool { first: 0, rows: ids.len() as u32 }] };
        let n_ids = pair[0].n_token_ids();
        inputs.check(n_ids, n_pages).map_err(Error::Request)?;
        step(plan, &mut pair, &inputs, report)?;
    }
    Ok(())
}

fn step(plan: &Plan, pair: &mut [Runner; 2], inputs: &Inputs, report: &mut dyn FnMut(Compared)) -> Result<()> {
    let [truth, device] = pair;
    for (i, entry) in plan.ops.iter().enumerate().filter(|(_, entry)| inputs.count(entry.when) > 0) {
        for slot in entry.op.reads() {
            device.set_slot(slot, inputs, &truth.slot(slot, inputs)?)?;
        }
        truth.run_ops(i..i + 1, inputs)?;
        device.run_ops(i..i + 1, inputs)?;
        let Some(slot) = entry.op.writes() else { continue };
        let (mut want, mut got) = (truth.slot(slot, inputs)?, device.slot(slot, inputs)?);
        if entry.op.kind() == OpKind::Select {
            // Positions are the bits of integers, and all bits are none.
            want.iter_mut().chain(&mut got).for_each(|x| *x = x.to_bits() as i32 as f32);
        }
        let cols = plan.result_columns(&entry.op).unwrap_or(plan.slot(slot).cols);
        let (error, worst) = compare(&want, &got, plan.slot(slot).cols, cols);
        let (scope, name) = (entry.scope.clone(), entry.op.kind().name());
        report(Compared { rows: inputs.n_rows(), op: i, scope, name, error, worst, on_cpu: device.computes_on_cpu(i) });
    }
    Ok(())
}

/// Relative error of the first `cols` columns of rows of `width`, and the element that is furthest apart.
fn compare(want: &[f32], got: &[f32], width: usize, cols: usize) -> (f64, Worst) {
    let (mut squares, mut worst, mut most) = ([0.0, 0.0], Worst::default(), -1.0);
    for (row, (want, got)) in want.chunks_exact(width).zip(got.chunks_exact(width)).enumerate() {
        for (column, (w, g)) in want.iter().zip(got).take(cols).enumerate() {
            let apart = f64::from(g - w).abs();
            squares[0] += apart.powi(2);
            squares[1] += f64::from(*w).powi(2);
            // A NaN counts as the furthest.
            if apart > most || apart.is_nan() && !f64::is_nan(most) {
                (most, worst) = (apart, Worst { row, column, want: *w, got: *g });
            }
        }
    }
    (if squares == [0.0, 0.0] { 0.0 } else { (squares[0] / squares[1]).sqrt() }, worst)
}
