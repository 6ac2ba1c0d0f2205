//! [`Pages`]: who holds which page of the KV cache, and which pages hold a prefix that can be used again.
//! List work only: what the pages hold lives on the device, and who needs a page is the scheduler's business.

use std::collections::HashMap;

use crate::plan::PAGE;

/// Number of a page in the pool.
pub(crate) type PageId = u32;

/// What a full page holds: its own tokens after everything its parents hold. An identity is never given twice, so a
/// page whose parent was reused can no longer be reached, and a match compares token ids all the way to the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Content(u64);

impl Content {
    /// The empty prefix.
    pub(crate) const ROOT: Content = Content(0);

    /// One that no page has.
    #[cfg(test)]
    pub(crate) fn of_test(n: u64) -> Content {
        Content(u64::MAX - n)
    }
}

/// A full page's key: what lies before it, and its own tokens.
type Key = (Content, [u32; PAGE]);

const NONE: PageId = PageId::MAX;

#[derive(Debug)]
struct Page {
    /// Sequences that hold it.
    refs: u32,
    /// Where `by_key` lists it, and as what; `None` while it is not full or another page holds the same.
    key: Option<(Key, Content)>,
    /// Neighbours in the free list.
    prev: PageId,
    next: PageId,
}

/// The pool. A page is *held* (by one sequence or several) or *free*; a free page may still hold a prefix that is
/// found again, until the page is needed. The least recently used one goes first.
#[derive(Debug)]
pub(crate) struct Pages {
    n_pages: usize,
    /// Pages that were ever used; the others are free and blank, so a large pool costs nothing before it is needed.
    pages: Vec<Page>,
    by_key: HashMap<Key, PageId>,
    next_content: u64,
    /// Free list of used pages: blank ones first, then those with content, least recently used first.
    first: PageId,
    last: PageId,
    n_listed: usize,
}

impl Pages {
    /// A pool of `n_pages` blank pages.
    pub(crate) fn new(n_pages: usize) -> Self {
        let n_pages = n_pages.min(NONE as usize);
        Self {
            n_pages,
            pages: Vec::new(),
            by_key: HashMap::new(),
            next_content: 1,
            first: NONE,
            last: NONE,
            n_listed: 0,
        }
    }

    /// Pages in the pool.
    pub(crate) fn n_pages(&self) -> usize {
        self.n_pages
    }

    /// Pages that nobody holds.
    pub(crate) fn n_free(&self) -> usize {
        self.n_listed + (self.n_pages - self.pages.len())
    }

    /// Takes a free page, held once and blank. `None` when all are held.
    pub(crate) fn alloc(&mut self) -> Option<PageId> {
        let blank_listed = self.first != NONE && self.pages[self.first as usize].key.is_none();
        if !blank_listed && self.pages.len() < self.n_pages {
            self.pages.push(Page { refs: 1, key: None, prev: NONE, next: NONE });
            return Some((self.pages.len() - 1) as PageId);
        }
        let page = self.first;
        if page == NONE {
            return None;
        }
        self.unlist(page);
        if let Some((key, _)) = self.pages[page as usize].key.take() {
            self.by_key.remove(&key);
        }
        self.pages[page as usize].refs = 1;
        Some(page)
    }

    /// Finds the page that holds `tokens` after `parent` and holds it once more.
    pub(crate) fn find(&mut self, parent: Content, tokens: &[u32; PAGE]) -> Option<(PageId, Content)> {
        let page = *self.by_key.get(&(parent, *tokens))?;
        let (_, content) = self.pages[page as usize].key?;
        if self.pages[page as usize].refs == 0 {
            self.unlist(page);
        }
        self.pages[page as usize].refs += 1;
        Some((page, content))
    }

    /// Says that a held page is full: it holds `tokens` after `parent`. Where another page holds the same, that one
    /// stays the one to be found. Returns what to pass as the next page's parent.
    pub(crate) fn register(&mut self, page: PageId, parent: Content, tokens: &[u32; PAGE]) -> Content {
        let key = (parent, *tokens);
        let other = self.by_key.get(&key).and_then(|other| self.pages[*other as usize].key);
        if let Some((_, content)) = other {
            return content;
        }
        let content = Content(self.next_content);
        self.next_content += 1;
        self.by_key.insert(key, page);
        self.pages[page as usize].key = Some((key, content));
        content
    }

    /// Gives back one hold on a page.
    pub(crate) fn release(&mut self, page: PageId) {
        let p = &mut self.pages[page as usize];
        p.refs -= 1;
        if p.refs == 0 {
            let blank = p.key.is_none();
            self.list(page, blank);
        }
    }

    /// Forgets every prefix, held or free: what the device held is gone.
    pub(crate) fn forget(&mut self) {
        self.by_key.clear();
        for page in &mut self.pages {
            page.key = None;
        }
    }

    fn list(&mut self, page: PageId, at_front: bool) {
        let (prev, next) = if at_front { (NONE, self.first) } else { (self.last, NONE) };
        self.pages[page as usize].prev = prev;
        self.pages[page as usize].next = next;
        match prev {
            NONE => self.first = page,
            prev => self.pages[prev as usize].next = page,
        }
        match next {
            NONE => self.last = page,
            next => self.pages[next as usize].prev = page,
        }
        self.n_listed += 1;
    }

    fn unlist(&mut self, page: PageId) {
        let (prev, next) = (self.pages[page as usize].prev, self.pages[page as usize].next);
        match prev {
            NONE => self.first = next,
            prev => self.pages[prev as usize].next = next,
        }
        match next {
            NONE => self.last = prev,
            next => self.pages[next as usize].prev = prev,
        }
        self.n_listed -= 1;
    }

    /// Checks every invariant against the tables that hold pages; for tests.
    #[cfg(test)]
    pub(crate) fn check<'a>(&self, held: impl Iterator<Item = &'a [PageId]>) {
        let mut refs = vec![0u32; self.pages.len()];
        held.flatten().for_each(|page| refs[*page as usize] += 1);
        let counted: Vec<u32> = self.pages.iter().map(|p| p.refs).collect();
        assert_eq!(refs, counted, "reference counts differ from the tables");
        let (mut listed, mut at, mut before, mut seen_content) =
            (vec![false; self.pages.len()], self.first, NONE, false);
        while at != NONE {
            let page = &self.pages[at as usize];
            assert!(!listed[at as usize] && page.refs == 0 && page.prev == before, "free list is broken");
            assert!(!(seen_content && page.key.is_none()), "a blank page behind one with content");
            seen_content |= page.key.is_some();
            listed[at as usize] = true;
            (before, at) = (at, page.next);
        }
        assert_eq!(self.last, before);
        assert_eq!(listed.iter().filter(|l| **l).count(), self.n_listed);
        assert!(self.pages.iter().zip(&listed).all(|(p, l)| *l == (p.refs == 0)), "a page leaked");
        for (key, page) in &self.by_key {
            assert_eq!(self.pages[*page as usize].key.map(|k| k.0), Some(*key), "the index names a page that moved on");
        }
        assert_eq!(self.by_key.len(), self.pages.iter().filter(|p| p.key.is_some()).count());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_recently_used_content_goes_first_and_blank_pages_before_it() {
        let mut pages = Pages::new(3);
        let held: Vec<PageId> = (0..3).map(|_| pages.alloc().unwrap()).collect();
        assert_eq!(pages.alloc(), None);
        let a = pages.register(held[0], Content::ROOT, &[1; PAGE]);
        pages.register(held[1], a, &[2; PAGE]);
        held.iter().for_each(|p| pages.release(*p));
        pages.check(std::iter::empty());
        assert_eq!(pages.alloc(), Some(held[2]), "the blank page goes first");
        assert_eq!(pages.alloc(), Some(held[0]), "then the least recently used");
        assert_eq!(pages.find(Content::ROOT, &[1; PAGE]), None, "and its content is gone");
        assert_eq!(pages.find(a, &[2; PAGE]).map(|f| f.0), Some(held[1]), "the other is still found");
        assert_eq!(pages.n_free(), 0);
    }

    #[test]
    fn a_page_is_not_found_after_another_parent() {
        let mut pages = Pages::new(8);
        let (p, q) = (pages.alloc().unwrap(), pages.alloc().unwrap());
        let a = pages.register(p, Content::ROOT, &[1; PAGE]);
        let b = pages.register(q, a, &[7; PAGE]);
        assert_eq!(pages.find(Content::ROOT, &[7; PAGE]), None);
        assert_eq!(pages.find(b, &[7; PAGE]), None);
        assert_eq!(pages.find(a, &[7; PAGE]), Some((q, b)));
        // The same content a second time: the first page stays the one that is found.
        let r = pages.alloc().unwrap();
        assert_eq!(pages.register(r, Content::ROOT, &[1; PAGE]), a);
        assert_eq!(pages.find(Content::ROOT, &[1; PAGE]), Some((p, a)));
        pages.forget();
        assert_eq!(pages.find(Content::ROOT, &[1; PAGE]), None);
    }
}
