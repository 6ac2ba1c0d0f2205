//! [`Group`]: layers that keep the same positions, and the pages of their caches.

use crate::plan::PAGE;
use crate::run::pages::{PageId, Pages};

/// A group of caches.
#[derive(Debug)]
pub(super) struct Group {
    /// Positions that a row sees, itself included; all if `None`.
    window: Option<usize>,
    pub pages: Pages,
}

/// A sequence's pages in a group.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Pages in front of these were given back.
    pub first: usize,
    /// The page of each place from there on.
    pub pages: Vec<PageId>,
}

impl Table {
    /// The place behind its last page.
    pub(super) fn end(&self) -> usize {
        self.first + self.pages.len()
    }

    /// The page of every place; in front of the window any.
    pub(super) fn whole(&self) -> Vec<PageId> {
        let any = self.pages.first().copied().unwrap_or(0);
        std::iter::repeat_n(any, self.first).chain(self.pages.iter().copied()).collect()
    }
}

impl Group {
    pub(super) fn new(window: Option<u32>, n_pages: usize) -> Group {
        Group { window: window.map(|window| window.max(1) as usize), pages: Pages::new(n_pages) }
    }

    /// Tokens of a sequence at most: any number where the pages hold what a row sees.
    pub(super) fn context(&self) -> usize {
        match self.most(0) {
            Some(window) if window <= self.pages.n_pages() => usize::MAX,
            _ => self.pages.n_pages().saturating_mul(PAGE),
        }
    }

    /// The first page of which the row at `position` sees something.
    pub(super) fn first_page(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window) / PAGE)
    }

    /// Pages that a sequence holds at most, in steps of `chunk` rows; `None` without a window.
    pub(super) fn most(&self, chunk: usize) -> Option<usize> {
        self.window.map(|window| (window - 1).div_ceil(PAGE) + 1 + chunk.div_ceil(PAGE))
    }

    /// Whether a page lies in the window in front of `at`, the end of a page.
    pub(super) fn is_before(&self, place: usize, at: usize) -> bool {
        self.window.is_some() && (self.first_page(at)..at / PAGE).contains(&place)
    }

    /// Gives a sequence's pages back, those in front of `end` as in front of a mark. Tail first, so that the start of a
    /// prefix is the last to be used anew.
    pub(super) fn release(&mut self, table: &mut Table, end: usize) {
        for (i, page) in table.pages.drain(..).enumerate().rev() {
            let marked = self.is_before(table.first + i, end);
            self.pages.release(page, marked);
        }
        table.first = 0;
    }
}
