//! A plan cut between two ops: each part is a plan of its own, and the slots that cross the cut are named. Several devices
//! then run one model, a part each.

use super::slots::{self, Kept, Shape};
use super::{Entry, Op, Plan, Slot, Then};
use crate::error::{Error, Result};

impl Plan {
    /// The plan in two parts: ops up to `at`, and those from `at` on. Both have the slots, weights and caches of the whole
    /// by the same numbers; a part's device allocates what its ops touch. To run a step, run the first part, copy the rows
    /// of the slots named last from one runner to the other, and run the second part.
    ///
    /// # Errors
    /// A place beyond the ops, or one at which a cache is written in front of the cut and read behind it.
    pub fn cut(&self, at: usize) -> Result<(Plan, Plan, Vec<Slot>)> {
        if at > self.ops.len() {
            return Err(Error::shape(format!("a plan of {} ops cannot be cut at {at}", self.ops.len())));
        }
        let (first, second) = self.ops.split_at(at);
        let read: Vec<usize> = second.iter().filter_map(|e| cache_read(&e.op)).collect();
        if let Some(layer) = first.iter().filter_map(|e| self.cache_written(&e.op)).find(|layer| read.contains(layer)) {
            return Err(Error::shape(format!(
                "a cut at op {at} would part the cache of layer {layer} from its reader"
            )));
        }
        let wrote = |ops: &[Entry], slot: Slot| ops.iter().any(|e| e.op.writes() == Some(slot));
        let needed = needed(second);
        let crossing: Vec<Slot> = needed.iter().copied().filter(|slot| wrote(first, *slot)).collect();
        let results = || std::iter::once(self.logits).chain(self.pooled);
        let kept_by_first = results().filter(|slot| wrote(first, *slot));
        let before = Kept { before: Vec::new(), after: crossing.iter().copied().chain(kept_by_first).collect() };
        let after = Kept { before: needed, after: results().filter(|slot| wrote(second, *slot)).collect() };
        Ok((self.part(first, &before), self.part(second, &after), crossing))
    }

    fn part(&self, ops: &[Entry], kept: &Kept) -> Plan {
        let shapes: Vec<Shape> = self.slots.iter().map(|s| Shape { rows: s.rows, cols: s.cols }).collect();
        let (slots, buffers) = slots::assign(ops, &shapes, &self.weights, kept);
        Plan { ops: ops.to_vec(), slots, buffers, ..self.clone() }
    }

    /// The cache that an op writes.
    pub fn cache_written(&self, op: &Op) -> Option<usize> {
        match *op {
            Op::KvWrite { layer, .. } => Some(layer),
            Op::Linear { then: Then::Heads { heads, .. }, .. } => Some(self.heads[heads].layer),
            _ => None,
        }
    }
}

/// The cache that an op reads.
fn cache_read(op: &Op) -> Option<usize> {
    match *op {
        Op::Attend { layer, .. } | Op::Select { layer, .. } => Some(layer),
        _ => None,
    }
}

/// Slots that the ops read before any of them writes it.
fn needed(ops: &[Entry]) -> Vec<Slot> {
    let (mut needed, mut fresh) = (Vec::new(), Vec::new());
    for entry in ops {
        needed.extend(entry.op.reads().into_iter().filter(|slot| !fresh.contains(slot)));
        fresh.extend(entry.op.writes());
    }
    needed.sort_unstable();
    needed.dedup();
    needed
}
