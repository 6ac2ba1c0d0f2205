//! A step's inputs from the rows that were chosen, and the scheduler's counts.

use super::group::{Group, Table};
use super::{PageCounts, Part, Scheduler};
use crate::plan::{Inputs, StateSlots};
use crate::run::request::SeqId;

impl Scheduler {
    pub(super) fn fill(&self, inputs: &mut Inputs) -> Vec<Part> {
        inputs.clear();
        inputs.window_tables.resize_with(self.groups.len().saturating_sub(1), Vec::new);
        let (mut parts, mut used) = (Vec::new(), false);
        for seq in self.running.iter().filter(|s| s.n_scheduled > 0) {
            let table = inputs.tables.len() as u32;
            let end = seq.n_computed + seq.n_scheduled;
            let mut last = 0;
            for position in seq.n_computed..end {
                last = inputs.push(seq.tokens[position], position as u32, table);
            }
            let mut tables = seq.tables.iter().map(Table::whole);
            inputs.tables.push(tables.next().unwrap_or_default());
            inputs.window_tables.iter_mut().zip(tables).for_each(|(all, table)| all.push(table));
            inputs.sources.push(seq.n_source as u32);
            inputs.source = seq.wants_source();
            inputs.states.extend(seq.next_state.map(|to| StateSlots { from: seq.state, to }));
            let whole = end == seq.tokens.len();
            let output = (whole && seq.pooling.is_none()).then(|| {
                inputs.outputs.push(last);
                inputs.outputs.len() - 1
            });
            let pool = seq.pool(last + 1 - seq.n_scheduled as u32).map(|pool| {
                inputs.pools.push(pool);
                inputs.pools.len() - 1
            });
            used |= !seq.scales.is_empty();
            parts.push(Part { id: seq.id, rows: seq.n_scheduled, output, pool, start: seq.n_computed, whole });
        }
        if used {
            self.fill_adapters(inputs);
        }
        self.fill_segments(inputs);
        parts
    }

    /// Which text of a pair each row belongs to, if any row belongs to a second one.
    fn fill_segments(&self, inputs: &mut Inputs) {
        let scheduled = || self.running.iter().filter(|seq| seq.n_scheduled > 0);
        if scheduled().all(|seq| seq.second.is_none()) {
            return;
        }
        for seq in scheduled() {
            let (rows, second) = (seq.n_computed..seq.n_computed + seq.n_scheduled, seq.second);
            let of = |position| u32::from(second.is_some_and(|second| position >= second));
            inputs.segments.extend(rows.map(of));
        }
    }

    /// How much of each adapter each row uses.
    fn fill_adapters(&self, inputs: &mut Inputs) {
        let scheduled = || self.running.iter().filter(|seq| seq.n_scheduled > 0);
        let n = scheduled().map(|seq| seq.scales.len()).max().unwrap_or(0);
        for seq in scheduled() {
            for _ in 0..seq.n_scheduled {
                inputs.adapters.extend_from_slice(&seq.scales);
                // None are none of each.
                inputs.adapters.resize(inputs.adapters.len() + n - seq.scales.len(), 0.0);
            }
        }
    }

    /// Prompt tokens that were found in pages when the sequence was admitted.
    pub(crate) fn n_cached(&self, id: SeqId) -> usize {
        let at = self.running.binary_search_by_key(&id, |s| s.id);
        at.ok().and_then(|at| self.running[at].n_cached).unwrap_or(0)
    }

    /// Sequences in the queue.
    pub(crate) fn n_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Sequences that run.
    pub(crate) fn n_running(&self) -> usize {
        self.running.len()
    }

    /// Times a sequence went back to the queue because pages ran out.
    pub(crate) fn n_preempted(&self) -> u64 {
        self.n_preempted
    }

    /// The pages of each group of caches.
    pub(crate) fn pages(&self) -> impl Iterator<Item = PageCounts> + '_ {
        let counts = |group: &Group| {
            let pages = &group.pages;
            PageCounts { all: pages.n_pages(), free: pages.n_free(), kept: pages.n_kept() }
        };
        self.groups.iter().map(counts)
    }
}
