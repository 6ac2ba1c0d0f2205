//! Where a sequence goes on: what is kept of recurrent states, and how far a prefix can be used again with them.

use super::{Scheduler, Seq};
use crate::plan::PAGE;
use crate::run::pages::Content;

/// The states of a prompt are kept at every so many tokens.
const KEEP_EVERY: usize = 2048;

impl Seq {
    /// Tokens up to the last end of a page before the last of the tokens it came with or was sent back with: a state is
    /// kept there.
    pub(super) fn mark(&self) -> usize {
        (self.tokens.len() - 1) / PAGE * PAGE
    }
}

impl Scheduler {
    /// Slots for states, and those that hold snapshots.
    pub(crate) fn n_states(&self) -> (usize, usize) {
        self.states.counts()
    }

    pub(super) fn release_states(&mut self, seq: &mut Seq) {
        for slot in seq.state.take().into_iter().chain(seq.next_state.take()) {
            self.states.release(slot);
        }
    }

    /// The depth to which a prefix can be used again: with states, where one of them is kept.
    pub(super) fn resume(&mut self, seq: &mut Seq, contents: &[Content]) {
        if self.states.is_empty() {
            return;
        }
        let found = contents.iter().enumerate().rev().find_map(|(i, at)| Some((i + 1, *at, self.states.find(*at)?)));
        let depth = found.map_or(0, |(depth, at, slot)| {
            (seq.content, seq.state) = (at, Some(slot));
            depth
        });
        if depth == 0 {
            seq.content = Content::ROOT;
        }
        let beyond = seq.pages.split_off(depth);
        self.release(&beyond);
    }

    /// Keeps the state of a sequence that has come to the end of a page: at the mark of its prompt, every few thousand
    /// tokens, and the last one of its answer.
    pub(super) fn keep_state(&mut self, at: usize, answering: bool) {
        let seq = &mut self.running[at];
        let Some(slot) = seq.state else { return };
        if answering {
            seq.boundary.replace(seq.content).into_iter().for_each(|old| self.states.drop_at(old));
        } else if seq.n_computed != seq.mark() && !seq.n_computed.is_multiple_of(KEEP_EVERY) {
            return;
        }
        self.states.keep(seq.content, slot);
    }
}
