//! Two devices side by side: runs a plan group by group on both, each group from the same inputs, and says how far their
//! results are apart. Finds the first op that is wrong, where comparing logits only says that something is.

use std::ops::Range;
use std::sync::Arc;

use crate::device::{Device, KvKind, Runner, RunnerOptions};
use crate::error::{Error, Result};
use crate::plan::{Inputs, PAGE, Plan, Pool, Slot};

/// How far two devices are apart at the end of a fusion group.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// Rows of the step.
    pub rows: usize,
    /// The group's ops, as places in the plan.
    pub ops: Range<usize>,
    /// Which part of the model they belong to, for example `blk.3.attn`.
    pub scope: String,
    /// Their names, for example `norm + linear`.
    pub names: String,
    /// Relative error (L2) of what the group leaves behind; not a number where a device computed such.
    pub error: f64,
}

/// Runs `ids` through a plan on both devices, all but the last in one step and the last in another, and reports every
/// group that leaves something behind. `device` gets the inputs of each group from `truth`, so errors do not add up;
/// only the cache is each device's own.
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
    let n_pages = ids.len().div_ceil(PAGE);
    let options = RunnerOptions { max_tokens: first.len(), max_outputs: 1, kv, n_pages };
    let mut pair = [truth.prepare(Arc::clone(plan), options)?, device.prepare(Arc::clone(plan), options)?];
    let mut inputs = Inputs { tables: vec![(0..n_pages as u32).rev().collect()], ..Inputs::default() };
    for (ids, at) in [(first, 0), (std::slice::from_ref(last), first.len())] {
        inputs.tokens.clear();
        inputs.positions.clear();
        inputs.seqs.clear();
        for (i, id) in ids.iter().enumerate() {
            inputs.push(*id, (at + i) as u32, 0);
        }
        inputs.outputs = vec![ids.len() as u32 - 1];
        inputs.pools = vec![Pool { first: 0, rows: ids.len() as u32 }];
        let n_ids = pair[0].n_token_ids();
        inputs.check(n_ids, n_pages).map_err(Error::Request)?;
        step(plan, &mut pair, &inputs, report)?;
    }
    Ok(())
}

fn step(plan: &Plan, pair: &mut [Runner; 2], inputs: &Inputs, report: &mut dyn FnMut(Compared)) -> Result<()> {
    let mut start = 0;
    while start < plan.ops.len() {
        let group = plan.ops[start].group;
        let end = start + plan.ops[start..].iter().take_while(|e| e.group == group).count();
        let [truth, device] = pair;
        for slot in read_from_before(plan, start..end) {
            device.set_slot(slot, inputs, &truth.slot(slot, inputs)?)?;
        }
        truth.run_ops(start..end, inputs)?;
        device.run_ops(start..end, inputs)?;
        let mut squares = [0.0, 0.0];
        let left = left_behind(plan, start..end);
        for slot in &left {
            let (want, got) = (truth.slot(*slot, inputs)?, device.slot(*slot, inputs)?);
            for (w, g) in want.iter().zip(&got) {
                squares[0] += f64::from(g - w).powi(2);
                squares[1] += f64::from(*w).powi(2);
            }
        }
        if !left.is_empty() {
            let names: Vec<&str> = plan.ops[start..end].iter().map(|e| e.op.kind().name()).collect();
            report(Compared {
                rows: inputs.n_rows(),
                ops: start..end,
                scope: plan.ops[start].scope.clone(),
                names: names.join(" + "),
                error: if squares == [0.0, 0.0] { 0.0 } else { (squares[0] / squares[1]).sqrt() },
            });
        }
        start = end;
    }
    Ok(())
}

/// Slots whose contents from before the ops they need.
fn read_from_before(plan: &Plan, ops: Range<usize>) -> Vec<Slot> {
    let (mut read, mut written) = (Vec::new(), Vec::new());
    for entry in &plan.ops[ops] {
        for slot in entry.op.reads() {
            if !written.contains(&slot) && !read.contains(&slot) {
                read.push(slot);
            }
        }
        written.extend(entry.op.writes().filter(|_| !entry.op.is_in_place()));
    }
    read
}

/// Slots that the ops write and that later ops, or the caller, read.
fn left_behind(plan: &Plan, ops: Range<usize>) -> Vec<Slot> {
    let later = &plan.ops[ops.end..];
    let needed = |slot: &Slot| {
        *slot == plan.logits || plan.pooled == Some(*slot) || later.iter().any(|e| e.op.reads().contains(slot))
    };
    let mut left: Vec<Slot> = plan.ops[ops].iter().filter_map(|e| e.op.writes()).filter(needed).collect();
    left.sort_unstable();
    left.dedup();
    left
}
