//! [`Scheduler`]: which rows the next step computes and in which pages their keys and values lie.
//! Pure list work: no device, no clock, no sampling, no text.
//!
//! Rules. First come, first served: an older sequence never waits for a page or a place that a younger one has. A step
//! takes one row of every sequence that decodes, then prompt rows in chunks, older sequences first, then admits from
//! the queue. When pages run out the youngest running sequence goes back to the queue and is computed again later.
//! The oldest sequence always advances, because it may take every page and a sequence that needs more than the whole
//! pool is refused when it is added; so everything finishes.

mod chain;
#[cfg(test)]
mod check;
mod fill;
mod group;
mod lasting;
mod prefix;
mod seq;

use std::collections::VecDeque;
use std::sync::Arc;

use super::lasting::StoreKey;
use super::pages::PageKey;
use super::request::{Marks, SeqId};
use super::states::States;
use crate::error::{Error, Result};
use crate::model::Pooling;
use crate::plan::{CachePlace, Inputs, PAGE};
use group::Group;
use seq::Seq;

/// What a step and a sequence may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Rows of a step.
    pub rows: usize,
    /// Rows of one sequence in a step.
    pub chunk: usize,
    /// Sequences that run at once; at most the rows and the outputs of a step.
    pub seqs: usize,
    /// Tokens of one sequence, prompt and answer.
    pub context: usize,
    /// Whether full pages are found again by later sequences.
    pub reuse: bool,
    /// Whether all rows of a sequence must be in one step. The context is at most the rows of a step then, and nothing
    /// is reused.
    pub whole: bool,
}

/// What there is to share out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Room {
    /// Of each group of caches, the positions that its layers keep, all or the last so many, and its pages.
    pub groups: Vec<(Option<u32>, usize)>,
    /// Slots for states: none for a model without recurrent parts, else two for each running sequence and more for
    /// snapshots.
    pub n_states: usize,
}

/// The adapters that a sequence uses.
#[derive(Debug, Clone, Default)]
pub(crate) struct UsedAdapters {
    /// How much of each; empty if none.
    pub scales: Arc<[f32]>,
    /// What its pages begin with, so that they are found by sequences that use the same.
    pub root: PageKey,
}

/// Pages of a group of caches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PageCounts {
    /// In the pool.
    pub all: usize,
    /// That nobody holds.
    pub free: usize,
    /// Those of them that hold a prefix, to be used again until the page is needed.
    pub kept: usize,
}

/// A sequence's share of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// The sequence.
    pub id: SeqId,
    /// Rows computed for it.
    pub rows: usize,
    /// Which row of the step's logits is its own; `None` while its prompt is not through.
    pub output: Option<usize>,
    /// Which of the step's pools is its own, if it is to be embedded and rows of this part count.
    pub pool: Option<usize>,
    /// Tokens of it that were computed before.
    pub start: usize,
    /// Whether all its tokens are computed then.
    pub whole: bool,
}

/// Queue, running sequences and pages. Ids ascend with arrival, and both lists are kept in that order.
#[derive(Debug)]
pub(crate) struct Scheduler {
    limits: Limits,
    groups: Vec<Group>,
    states: States,
    /// What sequences left behind, where it is noted.
    left: Option<Vec<(StoreKey, CachePlace)>>,
    waiting: VecDeque<Seq>,
    running: Vec<Seq>,
    n_preempted: u64,
    /// Whether the step that is being made reads sources; `None` as long as it has no rows.
    reads_source: Option<bool>,
    /// Rows of a step at most, as far as every sequence that decodes has one.
    brisk_rows: usize,
}

impl Scheduler {
    /// An empty scheduler. The context is cut to what the pools can hold, and the number of running sequences to the rows
    /// of a step.
    pub(crate) fn new(mut limits: Limits, room: &Room) -> Self {
        limits.rows = limits.rows.max(1);
        limits.chunk = limits.chunk.clamp(1, limits.rows);
        limits.seqs = limits.seqs.clamp(1, limits.rows);
        let groups: Vec<Group> = room.groups.iter().map(|(window, n_pages)| Group::new(*window, *n_pages)).collect();
        limits.context = groups.iter().map(Group::context).fold(limits.context, usize::min);
        if limits.whole {
            (limits.context, limits.chunk, limits.reuse) = (limits.context.min(limits.rows), limits.rows, false);
        }
        Self {
            limits,
            groups,
            states: States::new(room.n_states, 2 * limits.seqs),
            left: None,
            waiting: VecDeque::new(),
            running: Vec::new(),
            n_preempted: 0,
            reads_source: None,
            brisk_rows: usize::MAX,
        }
    }

    /// The limits in force.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Keeps steps from here on to so many rows where that suffices for every sequence that decodes.
    pub(crate) fn set_brisk_rows(&mut self, rows: usize) {
        self.brisk_rows = rows;
    }

    /// Queues a sequence. Its id must be above all earlier ones.
    ///
    /// # Errors
    /// An empty prompt, or one that leaves no room for an answer in the context.
    pub(crate) fn add(
        &mut self,
        id: SeqId,
        tokens: Vec<u32>,
        n_source: usize,
        marks: Marks,
        used: UsedAdapters,
    ) -> Result<()> {
        let (n, context) = (tokens.len(), self.limits.context);
        if n >= context {
            return Err(Error::limit(format!(
                "the prompt has {n} tokens and the context holds {context}, the answer included: \
                 shorten the prompt or raise the context"
            )));
        }
        if n_source > self.limits.rows {
            let rows = self.limits.rows;
            return Err(Error::limit(format!("the text has {n_source} tokens and the encoder reads {rows} at most")));
        }
        self.queue(Seq::new(id, tokens, n_source, marks, used, self.groups.len()))
    }

    /// Queues a sequence whose rows are pooled; of a pair of texts it is said where the second begins. Its id must be above all
    /// earlier ones.
    ///
    /// # Errors
    /// An empty prompt, or one that exceeds the context.
    pub(crate) fn add_pooled(
        &mut self,
        id: SeqId,
        tokens: Vec<u32>,
        second: Option<usize>,
        pooling: Pooling,
        used: UsedAdapters,
    ) -> Result<()> {
        let (n, context) = (tokens.len(), self.limits.context);
        if n > context {
            return Err(Error::limit(format!(
                "the text has {n} tokens and the context holds {context}: shorten the text or raise the context"
            )));
        }
        let mut seq = Seq::new(id, tokens, 0, Marks::default(), used, self.groups.len());
        (seq.pooling, seq.second) = (Some(pooling), second);
        self.queue(seq)
    }

    fn queue(&mut self, seq: Seq) -> Result<()> {
        if seq.tokens.is_empty() {
            return Err(Error::request("the prompt is empty: give at least one token"));
        }
        self.waiting.push_back(seq);
        Ok(())
    }

    /// Removes a sequence and gives its pages back. Says whether it was there.
    pub(crate) fn remove(&mut self, id: SeqId) -> bool {
        if let Ok(at) = self.running.binary_search_by_key(&id, |s| s.id) {
            let mut seq = self.running.remove(at);
            self.leave(&seq);
            self.release(&mut seq);
            return true;
        }
        let at = self.waiting.binary_search_by_key(&id, |s| s.id);
        at.is_ok_and(|at| self.waiting.remove(at).is_some())
    }

    /// Chooses the next step's rows and writes them to `inputs`; empty when there is nothing to do. Nothing counts as
    /// computed before [`Scheduler::commit`], so a step that failed is simply scheduled again.
    pub(crate) fn schedule(&mut self, inputs: &mut Inputs) -> Vec<Part> {
        let n_preempted = self.n_preempted;
        // Sources first: a step reads those or generates, never both.
        self.reads_source = self.running.iter().any(Seq::wants_source).then_some(true);
        self.running.iter_mut().for_each(|s| s.n_scheduled = 0);
        let mut rows = self.limits.rows.min(self.brisk_rows.max(self.limits.seqs));
        for decode in [true, false] {
            let mut at = 0;
            while at < self.running.len() {
                if (self.running[at].pending() == 1) == decode {
                    self.place(at, &mut rows);
                }
                at += 1;
            }
        }
        // After a preemption nobody is let in: the pages are wanted by those who run.
        while n_preempted == self.n_preempted && rows > 0 && self.running.len() < self.limits.seqs {
            if !self.admit() {
                break;
            }
            self.place(self.running.len() - 1, &mut rows);
            if self.limits.whole && self.running.last().is_some_and(|s| s.n_scheduled == 0) {
                break;
            }
        }
        self.fill(inputs)
    }

    /// Gives the running sequence at `at` rows of this step and the pages they need, if need be from younger ones.
    fn place(&mut self, at: usize, rows: &mut usize) {
        let (seq, idle) = (&self.running[at], self.running[..at].iter().all(|s| s.n_scheduled == 0));
        let (n_computed, mut want) = (seq.n_computed, seq.pending().min(self.limits.chunk).min(*rows));
        let source = seq.wants_source();
        if *self.reads_source.get_or_insert(source) != source {
            return;
        }
        let whole = self.limits.whole || source;
        let all = if source { seq.n_source } else { seq.pending() };
        // The first text of a step may have all rows that a step ever has.
        if whole {
            want = if idle || all <= *rows { all } else { 0 };
        }
        // A state is kept where a step ends.
        if !self.states.is_empty() && self.limits.reuse && want > 1 && !whole {
            let inside = seq.marks().map(|mark| mark.at).filter(|at| (n_computed + 1..n_computed + want).contains(at));
            want = inside.min().map_or(want, |mark| mark - n_computed);
        }
        let n_pages = (n_computed + want).div_ceil(PAGE);
        for group in 0..self.groups.len() {
            while self.running[at].tables[group].end() < n_pages {
                match self.groups[group].pages.alloc() {
                    Some(page) => self.running[at].tables[group].pages.push(page),
                    None if at + 1 < self.running.len() => self.preempt_youngest(rows),
                    None => break,
                }
            }
        }
        let seq = &mut self.running[at];
        let room = seq.tables.iter().map(|table| table.end() * PAGE).min().unwrap_or(usize::MAX);
        seq.n_scheduled = want.min(room - n_computed);
        if whole && seq.n_scheduled < want {
            seq.n_scheduled = 0;
        }
        if !self.states.is_empty() && seq.n_scheduled > 0 && seq.next_state.is_none() {
            seq.next_state = self.states.alloc();
            // The pool has two slots for each running sequence.
            debug_assert!(seq.next_state.is_some(), "no slot for a state");
        }
        *rows = rows.saturating_sub(seq.n_scheduled);
        // Nobody younger is left to give way, so this one does.
        if seq.n_scheduled == 0 && want > 0 && at > 0 {
            self.preempt_youngest(rows);
        }
    }

    /// Sends the youngest running sequence back to the queue; its rows of this step are free again.
    fn preempt_youngest(&mut self, rows: &mut usize) {
        if let Some(seq) = self.running.pop() {
            *rows += seq.n_scheduled;
            self.n_preempted += 1;
            self.requeue(seq);
        }
    }

    fn requeue(&mut self, mut seq: Seq) {
        self.release(&mut seq);
        (seq.n_computed, seq.n_scheduled, seq.n_registered) = (0, 0, 0);
        let at = self.waiting.partition_point(|s| s.id < seq.id);
        self.waiting.insert(at, seq);
    }

    /// Moves the head of the queue to the running ones, with the pages of its prefix that are still there. It is let in
    /// when the free pages suffice for every prompt that is under way, or when nobody else runs.
    fn admit(&mut self) -> bool {
        let Some(mut seq) = self.waiting.pop_front() else { return false };
        self.take_prefix(&mut seq);
        let chunk = self.limits.chunk;
        let mut short = self.groups.iter().enumerate().map(|(index, group)| {
            let lacking = |seq: &Seq| seq.lacking(index, group, chunk);
            lacking(&seq) + self.running.iter().map(lacking).sum::<usize>() > group.pages.n_free()
        });
        if !self.running.is_empty() && short.any(|short| short) {
            self.requeue(seq);
            return false;
        }
        seq.n_cached.get_or_insert(seq.n_computed);
        self.running.push(seq);
        true
    }

    /// Records that a step was computed. Sequences removed since are passed over.
    pub(crate) fn commit(&mut self, parts: &[Part]) {
        for part in parts {
            let Ok(at) = self.running.binary_search_by_key(&part.id, |s| s.id) else { continue };
            let seq = &mut self.running[at];
            seq.n_computed += part.rows;
            seq.n_scheduled = 0;
            if let Some(next) = seq.next_state.take() {
                seq.state.replace(next).into_iter().for_each(|old| self.states.release(old));
            }
            if self.limits.reuse && seq.n_source == 0 {
                self.register(at);
                self.keep_state(at, part.output.is_some());
            }
            self.give_back(at);
        }
    }

    /// Appends a token to a running sequence whose tokens are all computed.
    pub(crate) fn push(&mut self, id: SeqId, token: u32) {
        if let Ok(at) = self.running.binary_search_by_key(&id, |s| s.id) {
            self.running[at].tokens.push(token);
        }
    }

    /// A running sequence's tokens, prompt and answer so far.
    pub(crate) fn tokens(&self, id: SeqId) -> Option<&[u32]> {
        let at = self.running.binary_search_by_key(&id, |s| s.id).ok()?;
        Some(&self.running[at].tokens)
    }

    /// Sends every running sequence back to the queue and forgets what all pages held: the device lost them.
    pub(crate) fn forget(&mut self) {
        while let Some(seq) = self.running.pop() {
            self.requeue(seq);
        }
        self.groups.iter_mut().for_each(|group| group.pages.forget());
        self.states.forget();
    }
}
