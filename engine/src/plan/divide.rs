//! A plan divided over devices: each gets a plan of its ops, and the slots that cross from one to another are named.

use std::ops::Range;

use super::slots::{self, Kept, Shape};
use super::{Entry, Epilogue, Op, Plan, Slot};
use crate::error::{Error, Result};

/// A plan in parts. Every part has the slots, weights and caches of the whole by the same numbers; its device allocates what
/// its ops touch.
#[derive(Debug, Clone)]
pub struct Division {
    /// The parts.
    pub parts: Vec<Plan>,
    /// What a step runs, in order.
    pub stages: Vec<Stage>,
}

/// Neighbouring ops of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The part.
    pub part: usize,
    /// Its ops, as the part's plan counts them.
    pub ops: Range<usize>,
    /// Slots whose rows are to be copied before, each with the part that has them.
    pub enters: Vec<(usize, Slot)>,
}

/// A part while it is collected.
#[derive(Debug, Default)]
struct Collected {
    ops: Vec<Entry>,
    kept: Kept,
}

impl Plan {
    /// The plan in parts; `part_of` has the part of each op.
    ///
    /// # Errors
    /// A cache or a state that ops of two parts use, or another number of ops than the plan has.
    pub fn divide(&self, part_of: &[usize]) -> Result<Division> {
        if part_of.len() != self.ops.len() {
            return Err(Error::shape(format!("a plan of {} ops got parts of {}", self.ops.len(), part_of.len())));
        }
        self.expect_whole(part_of)?;
        let mut parts: Vec<Collected> = Vec::new();
        parts.resize_with(part_of.iter().max().map_or(1, |most| most + 1), Collected::default);
        // The parts that have what each slot holds; none before anything wrote it.
        let mut holders: Vec<Vec<usize>> = vec![Vec::new(); self.slots.len()];
        let mut stages = Vec::new();
        let mut at = 0;
        for run in part_of.chunk_by(|a, b| a == b) {
            let (part, ops) = (run[0], &self.ops[at..at + run.len()]);
            let first = parts[part].ops.len();
            let mut enters = Vec::new();
            for slot in needed(ops) {
                let holding = &mut holders[slot.0 as usize];
                if holding.contains(&part) {
                    continue;
                }
                parts[part].kept.enters.push((first, slot));
                if let Some(from) = holding.first().copied() {
                    let left = parts[from].ops.len();
                    parts[from].kept.leaves.push((left, slot));
                    enters.push((from, slot));
                    holding.push(part);
                }
            }
            for slot in ops.iter().filter_map(|entry| entry.op.writes()) {
                holders[slot.0 as usize] = vec![part];
            }
            parts[part].ops.extend_from_slice(ops);
            stages.push(Stage { part, ops: first..first + run.len(), enters });
            at += run.len();
        }
        for slot in std::iter::once(self.logits).chain(self.pooled) {
            if let Some(part) = holders[slot.0 as usize].first() {
                parts[*part].kept.leaves.push((usize::MAX, slot));
            }
        }
        Ok(Division { parts: parts.into_iter().map(|part| self.part(part)).collect(), stages })
    }

    fn part(&self, part: Collected) -> Plan {
        let shapes: Vec<Shape> = self.slots.iter().map(|s| Shape { rows: s.rows, cols: s.cols }).collect();
        let (slots, buffers) = slots::assign(&part.ops, &shapes, &self.weights, &part.kept);
        Plan { ops: part.ops, slots, buffers, ..self.clone() }
    }

    /// Refuses parts that have a cache or a state in common.
    fn expect_whole(&self, part_of: &[usize]) -> Result<()> {
        let mut caches: Vec<Option<usize>> = vec![None; self.kv.len()];
        let mut states: Vec<Option<usize>> = vec![None; self.states.len()];
        for (entry, part) in self.ops.iter().zip(part_of) {
            let cache = self.cache_of(&entry.op).map(|i| (&mut caches[i], "cache", i));
            let state = state_of(&entry.op).map(|i| (&mut states[i], "state", i));
            for (owner, what, i) in cache.into_iter().chain(state) {
                if *owner.get_or_insert(*part) != *part {
                    return Err(Error::shape(format!(
                        "{what} {i} would be used by two parts of the plan: {} needs it where it lies",
                        entry.scope
                    )));
                }
            }
        }
        Ok(())
    }

    /// The cache that an op writes.
    pub fn cache_written(&self, op: &Op) -> Option<usize> {
        match *op {
            Op::KvWrite { layer, .. } => Some(layer),
            Op::Linear { then: Epilogue::Heads { heads, .. }, .. } => Some(self.heads[heads].layer),
            _ => None,
        }
    }

    /// The cache that an op writes or reads.
    pub(crate) fn cache_of(&self, op: &Op) -> Option<usize> {
        match *op {
            Op::Attend { layer, .. } | Op::Select { layer, .. } => Some(layer),
            _ => self.cache_written(op),
        }
    }
}

/// The state that an op uses.
pub(crate) fn state_of(op: &Op) -> Option<usize> {
    match *op {
        Op::Conv { state, .. } | Op::Recur { state, .. } => Some(state),
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
