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
mod resume;

use std::collections::VecDeque;

use super::pages::{Content, PageId, Pages};
use super::request::SeqId;
use super::states::{StateId, States};
use crate::error::{Error, Result};
use crate::model::Pooling;
use crate::plan::{Inputs, PAGE, Pool};

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

#[derive(Debug)]
struct Seq {
    id: SeqId,
    /// Prompt and answer so far.
    tokens: Vec<u32>,
    /// Tokens whose keys and values lie in the pages.
    n_computed: usize,
    /// Rows in the step that is being made.
    n_scheduled: usize,
    /// Its pages in order.
    pages: Vec<PageId>,
    /// Full pages that are registered, and what the last of them holds.
    n_registered: usize,
    content: Content,
    /// Prompt tokens that were found in pages when it was first admitted.
    n_cached: Option<usize>,
    /// Tokens at its start that an encoder reads, all in one step.
    n_source: usize,
    /// Which of its rows are pooled, where it is to be embedded and not continued.
    pooling: Option<Pooling>,
    /// Where the state behind the computed tokens lies, and where that behind the step that is being made will.
    state: Option<StateId>,
    next_state: Option<StateId>,
    /// The last end of a page of its answer whose state is kept.
    boundary: Option<Content>,
}

impl Seq {
    /// Whether its source is still to be read.
    fn wants_source(&self) -> bool {
        self.n_computed < self.n_source
    }

    /// Tokens that remain to be computed.
    fn pending(&self) -> usize {
        self.tokens.len() - self.n_computed
    }

    /// Pages it lacks to compute all its tokens.
    fn lacking(&self) -> usize {
        self.tokens.len().div_ceil(PAGE).saturating_sub(self.pages.len())
    }

    /// Tokens whose rows may come from pages that an earlier sequence filled. The last token is always computed, or
    /// there would be no row to continue from; and every row that is pooled.
    fn reusable(&self) -> usize {
        match self.pooling {
            _ if self.n_source > 0 => 0,
            Some(Pooling::Mean | Pooling::Cls) => 0,
            _ => self.tokens.len() - 1,
        }
    }

    /// Those of the rows scheduled now that are pooled; the first of them is the step's row `row`.
    fn pool(&self, row: u32) -> Option<Pool> {
        let rows = self.n_scheduled as u32;
        match self.pooling? {
            Pooling::Mean => Some(Pool { first: row, rows }),
            Pooling::Cls => (self.n_computed == 0).then_some(Pool { first: row, rows: 1 }),
            _ => (self.pending() == self.n_scheduled).then_some(Pool { first: row + rows - 1, rows: 1 }),
        }
    }

    fn page_tokens(&self, page: usize) -> Option<&[u32; PAGE]> {
        self.tokens.get(page * PAGE..)?.first_chunk()
    }
}

/// Queue, running sequences and pages. Ids ascend with arrival, and both lists are kept in that order.
#[derive(Debug)]
pub(crate) struct Scheduler {
    limits: Limits,
    pages: Pages,
    states: States,
    waiting: VecDeque<Seq>,
    running: Vec<Seq>,
    n_preempted: u64,
    /// Whether the step that is being made reads sources; `None` as long as it has no rows.
    reads_source: Option<bool>,
    /// Rows of a step at most, as far as every sequence that decodes has one.
    brisk_rows: usize,
}

impl Scheduler {
    /// An empty scheduler over `n_pages` pages. The context is cut to what the pool can hold, and the number of
    /// running sequences to the rows of a step.
    /// `n_states` slots hold states: none for a model without recurrent parts, else two for each running sequence and more
    /// for snapshots.
    pub(crate) fn new(mut limits: Limits, n_pages: usize, n_states: usize) -> Self {
        limits.rows = limits.rows.max(1);
        limits.chunk = limits.chunk.clamp(1, limits.rows);
        limits.seqs = limits.seqs.clamp(1, limits.rows);
        limits.context = limits.context.min(n_pages.saturating_mul(PAGE));
        if limits.whole {
            (limits.context, limits.chunk, limits.reuse) = (limits.context.min(limits.rows), limits.rows, false);
        }
        Self {
            limits,
            pages: Pages::new(n_pages),
            states: States::new(n_states, 2 * limits.seqs),
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
    pub(crate) fn add(&mut self, id: SeqId, tokens: Vec<u32>, n_source: usize) -> Result<()> {
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
        self.queue(id, tokens, n_source, None)
    }

    /// Queues a sequence whose rows are pooled. Its id must be above all earlier ones.
    ///
    /// # Errors
    /// An empty prompt, or one that exceeds the context.
    pub(crate) fn add_pooled(&mut self, id: SeqId, tokens: Vec<u32>, pooling: Pooling) -> Result<()> {
        let (n, context) = (tokens.len(), self.limits.context);
        if n > context {
            return Err(Error::limit(format!(
                "the text has {n} tokens and the context holds {context}: shorten the text or raise the context"
            )));
        }
        self.queue(id, tokens, 0, Some(pooling))
    }

    fn queue(&mut self, id: SeqId, tokens: Vec<u32>, n_source: usize, pooling: Option<Pooling>) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::request("the prompt is empty: give at least one token"));
        }
        self.waiting.push_back(Seq {
            id,
            tokens,
            n_computed: 0,
            n_scheduled: 0,
            pages: Vec::new(),
            n_registered: 0,
            content: Content::ROOT,
            n_cached: None,
            n_source,
            pooling,
            state: None,
            next_state: None,
            boundary: None,
        });
        Ok(())
    }

    /// Removes a sequence and gives its pages back. Says whether it was there.
    pub(crate) fn remove(&mut self, id: SeqId) -> bool {
        if let Ok(at) = self.running.binary_search_by_key(&id, |s| s.id) {
            let mut seq = self.running.remove(at);
            self.release(&seq.pages);
            self.release_states(&mut seq);
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
        if !self.states.is_empty() && self.limits.reuse && (n_computed + 1..n_computed + want).contains(&seq.mark()) {
            want = seq.mark() - n_computed;
        }
        let n_pages = (n_computed + want).div_ceil(PAGE);
        while self.running[at].pages.len() < n_pages {
            match self.pages.alloc() {
                Some(page) => self.running[at].pages.push(page),
                None if at + 1 < self.running.len() => self.preempt_youngest(rows),
                None => break,
            }
        }
        let seq = &mut self.running[at];
        seq.n_scheduled = want.min(seq.pages.len() * PAGE - n_computed);
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
        self.release(&seq.pages);
        self.release_states(&mut seq);
        seq.pages.clear();
        (seq.n_computed, seq.n_scheduled, seq.n_registered, seq.content) = (0, 0, 0, Content::ROOT);
        let at = self.waiting.partition_point(|s| s.id < seq.id);
        self.waiting.insert(at, seq);
    }

    /// Tail first, so that the start of a prefix is the last to be reused.
    fn release(&mut self, pages: &[PageId]) {
        pages.iter().rev().for_each(|page| self.pages.release(*page));
    }

    /// Moves the head of the queue to the running ones, with the pages of its prefix that are still there. It is let in
    /// when the free pages suffice for every prompt that is under way, or when nobody else runs.
    fn admit(&mut self) -> bool {
        let Some(mut seq) = self.waiting.pop_front() else { return false };
        let reusable = if self.limits.reuse { seq.reusable() / PAGE } else { 0 };
        let mut contents = Vec::new();
        while seq.pages.len() < reusable {
            let Some(tokens) = seq.page_tokens(seq.pages.len()) else { break };
            let Some((page, content)) = self.pages.find(seq.content, tokens) else { break };
            seq.pages.push(page);
            seq.content = content;
            contents.push(content);
        }
        self.resume(&mut seq, &contents);
        let wanted: usize = seq.lacking() + self.running.iter().map(Seq::lacking).sum::<usize>();
        if wanted > self.pages.n_free() && !self.running.is_empty() {
            self.requeue(seq);
            return false;
        }
        seq.n_registered = seq.pages.len();
        seq.n_computed = seq.pages.len() * PAGE;
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
            while self.limits.reuse && seq.n_source == 0 && (seq.n_registered + 1) * PAGE <= seq.n_computed {
                let Some(tokens) = seq.page_tokens(seq.n_registered) else { break };
                seq.content = self.pages.register(seq.pages[seq.n_registered], seq.content, tokens);
                seq.n_registered += 1;
            }
            if seq.state.is_some() && seq.n_registered > 0 && seq.n_registered * PAGE == seq.n_computed {
                self.keep_state(at, part.output.is_some());
            }
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
        self.pages.forget();
        self.states.forget();
    }
}
