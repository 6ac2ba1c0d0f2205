//! What is kept of sequences: how far a new one's start is found again, and what stays when a sequence moves on.
//!
//! A start of so many pages is used again if every page of it is there in the groups without a window, the pages of its last
//! window in those with one, and, with recurrent parts, the state behind it.

use super::{Scheduler, Seq};
use crate::plan::PAGE;
use crate::run::pages::PageKey;

/// The states of a prompt are kept at every so many tokens.
const KEEP_EVERY: usize = 2048;

impl Scheduler {
    /// Slots for states, and those that hold snapshots.
    pub(crate) fn n_states(&self) -> (usize, usize) {
        self.states.counts()
    }

    /// Slots that running sequences hold.
    pub(crate) fn n_held_states(&self) -> usize {
        self.running.iter().map(|seq| usize::from(seq.state.is_some()) + usize::from(seq.next_state.is_some())).sum()
    }

    /// Gives all pages and states of a sequence back.
    pub(super) fn release(&mut self, seq: &mut Seq) {
        let end = seq.n_registered * PAGE;
        for (group, table) in self.groups.iter_mut().zip(&mut seq.tables) {
            group.release(table, end);
        }
        for slot in seq.state.take().into_iter().chain(seq.next_state.take()) {
            self.states.release(slot);
        }
    }

    /// Pages of a start with these keys that can be used again.
    pub(super) fn depth(&self, keys: &[PageKey]) -> usize {
        self.depth_with(keys, &|group, key| self.groups[group].pages.has(key), &|key| self.states.has(key))
    }

    /// The same where these pages of groups and states are there.
    pub(super) fn depth_with(
        &self,
        keys: &[PageKey],
        has_page: &dyn Fn(usize, PageKey) -> bool,
        has_state: &dyn Fn(PageKey) -> bool,
    ) -> usize {
        let mut most = keys.len();
        let mut windows = Vec::new();
        for (index, group) in self.groups.iter().enumerate() {
            let there = keys.iter().map(|key| has_page(index, *key));
            if group.most(0).is_none() {
                most = most.min(there.take_while(|there| *there).count());
                continue;
            }
            // Of each place, the pages up to it that are there without a gap.
            let runs: Vec<usize> = there
                .scan(0, |run, there| {
                    *run = if there { *run + 1 } else { 0 };
                    Some(*run)
                })
                .collect();
            windows.push((group, runs));
        }
        let fits = |depth: &usize| {
            let seen = |(group, runs): &(&super::Group, Vec<usize>)| {
                let needed = depth - group.first_page(depth * PAGE).min(*depth);
                runs[depth - 1] >= needed
            };
            windows.iter().all(seen) && (self.states.is_empty() || has_state(keys[depth - 1]))
        };
        (1..=most).rev().find(fits).unwrap_or(0)
    }

    /// Gives a sequence what is kept of its start.
    pub(super) fn take_prefix(&mut self, seq: &mut Seq) {
        let reusable = if self.limits.reuse { seq.reusable() / PAGE } else { 0 };
        seq.make_keys(reusable);
        let depth = self.depth(&seq.keys[..reusable.min(seq.keys.len())]);
        for (group, table) in self.groups.iter_mut().zip(&mut seq.tables) {
            table.first = group.first_page(depth * PAGE).min(depth);
            table.pages = seq.keys[table.first..depth].iter().filter_map(|key| group.pages.find(*key)).collect();
        }
        if depth > 0 {
            seq.state = self.states.find(seq.keys[depth - 1]);
        }
        (seq.n_registered, seq.n_computed) = (depth, depth * PAGE);
    }

    /// Registers the pages that a sequence has filled.
    pub(super) fn register(&mut self, at: usize) {
        let seq = &mut self.running[at];
        let end = seq.n_computed / PAGE;
        seq.make_keys(end);
        for place in seq.n_registered..end {
            for (group, table) in self.groups.iter_mut().zip(&seq.tables) {
                group.pages.register(table.pages[place - table.first], seq.keys[place]);
            }
        }
        seq.n_registered = end;
    }

    /// Keeps the state of a sequence that has come to the end of a page: at its marks, every few thousand tokens, and the
    /// last one of its answer.
    pub(super) fn keep_state(&mut self, at: usize, answering: bool) {
        let seq = &mut self.running[at];
        let (Some(slot), Some(key)) = (seq.state, seq.n_registered.checked_sub(1).map(|i| seq.keys[i])) else { return };
        if seq.n_registered * PAGE != seq.n_computed {
            return;
        }
        let mark = seq.marks().filter(|mark| mark.at == seq.n_computed).map(|mark| mark.first).max();
        if let Some(first) = mark.filter(|_| !answering || seq.boundary.is_none()) {
            self.states.keep(key, slot, first);
        } else if answering {
            seq.boundary.replace(key).into_iter().for_each(|old| self.states.drop_at(old));
            self.states.keep(key, slot, true);
        } else if seq.n_computed.is_multiple_of(KEEP_EVERY) {
            self.states.keep(key, slot, false);
        }
    }

    /// Gives back the pages that no further row of a sequence sees.
    pub(super) fn give_back(&mut self, at: usize) {
        let seq = &mut self.running[at];
        let mut marks = seq.marks().map(|mark| mark.at).filter(|at| *at <= seq.n_computed);
        let marks: [Option<usize>; 3] = std::array::from_fn(|_| marks.next());
        for (group, table) in self.groups.iter_mut().zip(&mut seq.tables) {
            let n = group.first_page(seq.n_computed).saturating_sub(table.first).min(table.pages.len());
            for i in 0..n {
                let place = table.first + i;
                let marked = marks.iter().flatten().any(|at| group.is_before(place, *at));
                group.pages.release(table.pages[i], marked);
            }
            table.pages.drain(..n);
            table.first += n;
        }
    }
}
