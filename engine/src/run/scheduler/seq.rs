//! [`Seq`]: a sequence as the scheduler sees it.

use std::sync::Arc;

use super::UsedAdapters;
use super::group::{Group, Table};
use crate::model::Pooling;
use crate::plan::{PAGE, Pool};
use crate::run::pages::PageKey;
use crate::run::request::{Marks, SeqId};
use crate::run::states::StateId;

/// The end of a page at which what lies in front of it is likely to be used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// Tokens in front of it.
    pub at: usize,
    /// Whether its state is among the last to be given up.
    pub first: bool,
}

/// Tokens behind a mark that are not worth another one.
const NEAR: usize = 64;

#[derive(Debug)]
pub(super) struct Seq {
    pub id: SeqId,
    /// Prompt and answer so far.
    pub tokens: Vec<u32>,
    /// Tokens whose keys and values lie in the pages.
    pub n_computed: usize,
    /// Rows in the step that is being made.
    pub n_scheduled: usize,
    /// Its pages in each group of caches.
    pub tables: Vec<Table>,
    /// Keys of its full pages, as many as were asked for.
    pub keys: Vec<PageKey>,
    /// Full pages that are registered.
    pub n_registered: usize,
    /// Prompt tokens that were found in pages when it was first admitted.
    pub n_cached: Option<usize>,
    /// Tokens at its start that an encoder reads, all in one step.
    pub n_source: usize,
    /// Which of its rows are pooled, where it is to be embedded and not continued.
    pub pooling: Option<Pooling>,
    /// Where the second text of a pair begins. Models that look at it read a text in one step, so no page of theirs is found by
    /// another pair.
    pub second: Option<usize>,
    /// Where the state behind the computed tokens lies, and where that behind the step that is being made will.
    pub state: Option<StateId>,
    pub next_state: Option<StateId>,
    /// The last end of a page of its answer whose state is kept.
    pub boundary: Option<PageKey>,
    /// Whether it was asked of a store what it has of its start.
    pub was_sought: bool,
    /// What its page keys begin with.
    pub root: PageKey,
    /// How much of each adapter it uses; empty if none.
    pub scales: Arc<[f32]>,
    marks: Marks,
}

impl Seq {
    pub(super) fn new(
        id: SeqId,
        tokens: Vec<u32>,
        n_source: usize,
        marks: Marks,
        used: UsedAdapters,
        n_groups: usize,
    ) -> Seq {
        Seq {
            id,
            tokens,
            n_computed: 0,
            n_scheduled: 0,
            tables: (0..n_groups).map(|_| Table::default()).collect(),
            keys: Vec::new(),
            n_registered: 0,
            n_cached: None,
            n_source,
            pooling: None,
            second: None,
            state: None,
            next_state: None,
            boundary: None,
            was_sought: false,
            root: used.root,
            scales: used.scales,
            marks,
        }
    }

    /// Whether its source is still to be read.
    pub(super) fn wants_source(&self) -> bool {
        self.n_computed < self.n_source
    }

    /// Tokens that remain to be computed.
    pub(super) fn pending(&self) -> usize {
        self.tokens.len() - self.n_computed
    }

    /// Pages that it lacks in a group to compute all its tokens in steps of `chunk` rows.
    pub(super) fn lacking(&self, index: usize, group: &Group, chunk: usize) -> usize {
        let (all, table) = (self.tokens.len().div_ceil(PAGE), &self.tables[index]);
        let beyond = all.saturating_sub(table.end());
        group.most(chunk).map_or(beyond, |most| beyond.min(most.saturating_sub(table.pages.len())))
    }

    /// Tokens whose rows may come from pages that an earlier sequence filled. The last token is always computed, or
    /// there would be no row to continue from; and every row that is pooled. Rows of a source depend on all of it.
    pub(super) fn reusable(&self) -> usize {
        match self.pooling {
            _ if self.n_source > 0 => 0,
            Some(Pooling::Mean | Pooling::Cls) => 0,
            _ => self.tokens.len() - 1,
        }
    }

    /// Those of the rows scheduled now that are pooled; the first of them is the step's row `row`.
    pub(super) fn pool(&self, row: u32) -> Option<Pool> {
        let rows = self.n_scheduled as u32;
        match self.pooling? {
            Pooling::Mean => Some(Pool { first: row, rows }),
            Pooling::Cls => (self.n_computed == 0).then_some(Pool { first: row, rows: 1 }),
            _ => (self.pending() == self.n_scheduled).then_some(Pool { first: row + rows - 1, rows: 1 }),
        }
    }

    /// Makes the keys of its first `n` full pages.
    pub(super) fn make_keys(&mut self, n: usize) {
        while self.keys.len() < n {
            let before = self.keys.last().copied().unwrap_or(self.root);
            let page = self.tokens.get(self.keys.len() * PAGE..).and_then(|rest| rest.first_chunk());
            let Some(tokens) = page else { break };
            self.keys.push(before.then(tokens));
        }
    }

    /// Ends of pages in front of the marks of its request, ascending: of the last message of the user, of all messages,
    /// and of the tokens that it came with or was sent back with, unless the messages end near.
    pub(super) fn marks(&self) -> impl Iterator<Item = Mark> + use<> {
        let down = |n: usize| n.min(self.tokens.len() - 1) / PAGE * PAGE;
        let user = self.marks.last_user.map(|n| Mark { at: down(n), first: false });
        let messages = self.marks.messages_end.map(|n| Mark { at: down(n), first: true });
        let end = Mark { at: down(self.tokens.len() - 1), first: messages.is_none() };
        let end = messages.is_none_or(|m| end.at > m.at + NEAR).then_some(end);
        user.into_iter().chain(messages).chain(end)
    }
}
