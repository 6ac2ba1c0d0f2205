//! [`Pages`]: who holds which page of a group of caches, and which pages hold a prefix that can be used again.
//! List work only: what the pages hold lives on the device, and who needs a page is the scheduler's business.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::plan::PAGE;

/// Number of a page in the pool.
pub(crate) type PageId = u32;

/// What a full page holds: its tokens after everything in front of it, down to the model and the form of its cache. The first
/// 128 bits of a chain of SHA-256, the same in every run; nobody can make two prefixes with one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct PageKey(pub(crate) u128);

impl PageKey {
    /// The key of an empty prefix of what `root` says.
    pub(crate) fn root(root: Sha256) -> PageKey {
        PageKey::of(root)
    }

    /// The key of a page of `tokens` behind what this one stands for.
    pub(crate) fn then(self, tokens: &[u32; PAGE]) -> PageKey {
        let mut hash = Sha256::new_with_prefix(self.0.to_le_bytes());
        tokens.iter().for_each(|token| hash.update(token.to_le_bytes()));
        PageKey::of(hash)
    }

    fn of(hash: Sha256) -> PageKey {
        let digest = hash.finalize();
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        PageKey(u128::from_le_bytes(first))
    }
}

const NONE: PageId = PageId::MAX;

#[derive(Debug)]
struct Page {
    /// Sequences that hold it.
    refs: u32,
    /// Where `by_key` lists it; `None` while it is not full or another page holds the same.
    key: Option<PageKey>,
    /// Whether it lies in front of a mark: such pages go last.
    marked: bool,
    /// Neighbours in a free list.
    prev: PageId,
    next: PageId,
}

/// A list of free pages, the next to be used first.
#[derive(Debug)]
struct List {
    first: PageId,
    last: PageId,
    len: usize,
}

/// The pool. A page is *held* (by one sequence or several) or *free*; a free page may still hold a prefix that is
/// found again, until the page is needed. Blank ones go first, then those that no mark is behind, then the others, each the
/// least recently used first.
#[derive(Debug)]
pub(crate) struct Pages {
    n_pages: usize,
    /// Pages that were ever used; the others are free and blank, so a large pool costs nothing before it is needed.
    pages: Vec<Page>,
    by_key: HashMap<PageKey, PageId>,
    /// Free pages that were used: blank ones and then those without a mark; those with one.
    lists: [List; 2],
    /// Free pages that hold a prefix.
    n_kept: usize,
}

impl Pages {
    /// A pool of `n_pages` blank pages.
    pub(crate) fn new(n_pages: usize) -> Self {
        let list = || List { first: NONE, last: NONE, len: 0 };
        Self {
            n_pages: n_pages.min(NONE as usize),
            pages: Vec::new(),
            by_key: HashMap::new(),
            lists: [list(), list()],
            n_kept: 0,
        }
    }

    /// Pages in the pool.
    pub(crate) fn n_pages(&self) -> usize {
        self.n_pages
    }

    /// Pages that nobody holds.
    pub(crate) fn n_free(&self) -> usize {
        self.lists[0].len + self.lists[1].len + (self.n_pages - self.pages.len())
    }

    /// Those of them that hold a prefix.
    pub(crate) fn n_kept(&self) -> usize {
        self.n_kept
    }

    /// Takes a free page, held once and blank. `None` when all are held.
    pub(crate) fn alloc(&mut self) -> Option<PageId> {
        let first = self.lists[0].first;
        let blank_listed = first != NONE && self.pages[first as usize].key.is_none();
        if !blank_listed && self.pages.len() < self.n_pages {
            self.pages.push(Page { refs: 1, key: None, marked: false, prev: NONE, next: NONE });
            return Some((self.pages.len() - 1) as PageId);
        }
        let page = self.lists.iter().map(|list| list.first).find(|first| *first != NONE)?;
        self.unlist(page);
        let p = &mut self.pages[page as usize];
        (p.refs, p.marked) = (1, false);
        if let Some(key) = p.key.take() {
            self.by_key.remove(&key);
        }
        Some(page)
    }

    /// Whether a page holds this.
    pub(crate) fn has(&self, key: PageKey) -> bool {
        self.by_key.contains_key(&key)
    }

    /// The page that holds this.
    pub(crate) fn peek(&self, key: PageKey) -> Option<PageId> {
        self.by_key.get(&key).copied()
    }

    /// Finds the page that holds this and holds it once more.
    pub(crate) fn find(&mut self, key: PageKey) -> Option<PageId> {
        let page = *self.by_key.get(&key)?;
        if self.pages[page as usize].refs == 0 {
            self.unlist(page);
        }
        self.pages[page as usize].refs += 1;
        Some(page)
    }

    /// Says that a held page is full. Where another page holds the same, that one stays the one to be found.
    pub(crate) fn register(&mut self, page: PageId, key: PageKey) {
        if !self.by_key.contains_key(&key) && self.pages[page as usize].key.is_none() {
            self.by_key.insert(key, page);
            self.pages[page as usize].key = Some(key);
        }
    }

    /// Gives back one hold on a page. `marked`: it lies in front of a mark.
    pub(crate) fn release(&mut self, page: PageId, marked: bool) {
        let p = &mut self.pages[page as usize];
        p.refs -= 1;
        p.marked |= marked;
        if p.refs == 0 {
            self.list(page);
        }
    }

    /// Forgets every prefix, held or free: what the device held is gone.
    pub(crate) fn forget(&mut self) {
        self.by_key.clear();
        self.n_kept = 0;
        for page in &mut self.pages {
            page.key = None;
        }
    }

    fn list_of(page: &Page) -> usize {
        usize::from(page.marked && page.key.is_some())
    }

    fn list(&mut self, page: PageId) {
        let p = &mut self.pages[page as usize];
        // A page without a key has nothing to be found by, mark or none.
        p.marked &= p.key.is_some();
        let (list, blank) = (&mut self.lists[Self::list_of(p)], p.key.is_none());
        let (prev, next) = if blank { (NONE, list.first) } else { (list.last, NONE) };
        (p.prev, p.next) = (prev, next);
        self.n_kept += usize::from(!blank);
        list.len += 1;
        match prev {
            NONE => list.first = page,
            prev => self.pages[prev as usize].next = page,
        }
        match next {
            NONE => list.last = page,
            next => self.pages[next as usize].prev = page,
        }
    }

    fn unlist(&mut self, page: PageId) {
        let p = &self.pages[page as usize];
        let (prev, next) = (p.prev, p.next);
        // A page that was forgotten stays in the list that it was in.
        let list = &mut self.lists[usize::from(p.marked)];
        self.n_kept -= usize::from(p.key.is_some());
        list.len -= 1;
        match prev {
            NONE => list.first = next,
            prev => self.pages[prev as usize].next = next,
        }
        match next {
            NONE => list.last = prev,
            next => self.pages[next as usize].prev = prev,
        }
    }

    /// Checks every invariant against the tables that hold pages; for tests.
    #[cfg(test)]
    pub(crate) fn check<'a>(&self, held: impl Iterator<Item = &'a [PageId]>) {
        let mut refs = vec![0u32; self.pages.len()];
        held.flatten().for_each(|page| refs[*page as usize] += 1);
        let counted: Vec<u32> = self.pages.iter().map(|p| p.refs).collect();
        assert_eq!(refs, counted, "reference counts differ from the tables");
        let (mut listed, mut kept) = (vec![false; self.pages.len()], 0);
        for (marked, list) in [false, true].into_iter().zip(&self.lists) {
            let (mut at, mut before, mut n) = (list.first, NONE, 0);
            while at != NONE {
                let page = &self.pages[at as usize];
                assert!(!listed[at as usize] && page.refs == 0 && page.prev == before, "a free list is broken");
                assert_eq!(page.marked, marked, "a page in the wrong list");
                (kept, n) = (kept + usize::from(page.key.is_some()), n + 1);
                listed[at as usize] = true;
                (before, at) = (at, page.next);
            }
            assert_eq!((list.last, list.len), (before, n));
        }
        assert_eq!(kept, self.n_kept);
        assert!(self.pages.iter().zip(&listed).all(|(p, l)| *l == (p.refs == 0)), "a page leaked");
        for (key, page) in &self.by_key {
            assert_eq!(self.pages[*page as usize].key, Some(*key), "the index names a page that moved on");
        }
        assert_eq!(self.by_key.len(), self.pages.iter().filter(|p| p.key.is_some()).count());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_recently_used_content_goes_first_blank_pages_before_it_and_marked_ones_last() {
        let mut pages = Pages::new(4);
        let held: Vec<PageId> = (0..4).map(|_| pages.alloc().unwrap()).collect();
        assert_eq!(pages.alloc(), None);
        let keys = [1, 2, 3].map(PageKey);
        held.iter().zip(keys).for_each(|(page, key)| pages.register(*page, key));
        held.iter().for_each(|p| pages.release(*p, *p == held[0]));
        pages.check(std::iter::empty());
        assert_eq!((pages.n_free(), pages.n_kept()), (4, 3));
        assert_eq!(pages.alloc(), Some(held[3]), "the blank page goes first");
        assert_eq!(pages.alloc(), Some(held[1]), "then the least recently used without a mark");
        assert_eq!(pages.find(keys[1]), None, "and its content is gone");
        assert_eq!(pages.find(keys[2]), Some(held[2]), "the other is still found");
        assert_eq!((pages.has(keys[0]), pages.alloc(), pages.has(keys[0])), (true, Some(held[0]), false));
        assert_eq!((pages.alloc(), pages.n_free(), pages.n_kept()), (None, 0, 0));
    }

    #[test]
    fn the_first_page_of_equals_is_found_until_all_is_forgotten() {
        let mut pages = Pages::new(8);
        let (p, q) = (pages.alloc().unwrap(), pages.alloc().unwrap());
        let key = PageKey(7);
        pages.register(p, key);
        pages.register(q, key);
        assert_eq!(pages.find(key), Some(p));
        pages.release(p, true);
        pages.release(p, true);
        pages.forget();
        assert_eq!((pages.find(key), pages.n_kept()), (None, 0));
        pages.check([&[q][..]].into_iter());
        assert_eq!(pages.alloc(), Some(2), "never used");
    }

    #[test]
    fn keys_are_those_of_every_run_and_depend_on_all_in_front() {
        let tokens = |first: u32| std::array::from_fn(|i| first + i as u32);
        let root = PageKey::root(Sha256::new_with_prefix(b"a model"));
        let chain = root.then(&tokens(1)).then(&tokens(17));
        assert_eq!(format!("{:032x}", chain.0), "ad028f0e26301f2bf21686b5bc321fb8");
        assert_ne!(chain, root.then(&tokens(17)));
        assert_ne!(chain, PageKey::root(Sha256::new_with_prefix(b"another")).then(&tokens(1)).then(&tokens(17)));
    }
}
