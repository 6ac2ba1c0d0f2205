//! What sequences leave behind for a store that outlives the cache, and what is brought back from there.

use super::{Scheduler, Seq};
use crate::plan::{CachePlace, PAGE};
use crate::run::lasting::StoreKey;
use crate::run::pages::PageKey;

fn page_key(group: usize, key: PageKey) -> StoreKey {
    StoreKey { prefix: key.0, group: Some(group as u8) }
}

fn state_key(key: PageKey) -> StoreKey {
    StoreKey { prefix: key.0, group: None }
}

impl Scheduler {
    /// Notes from here on what sequences leave behind.
    pub(crate) fn note_left(&mut self) {
        self.left.get_or_insert_default();
    }

    /// What sequences left behind since this was asked last: in the order in which it is of use.
    pub(crate) fn take_left(&mut self) -> Vec<(StoreKey, CachePlace)> {
        self.left.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Notes what a sequence leaves that has ended: up to the last end of a page, and up to its marks.
    pub(super) fn leave(&mut self, seq: &Seq) {
        let Some(left) = &mut self.left else { return };
        let mut ends: Vec<usize> = seq.marks().map(|mark| mark.at / PAGE).filter(|n| *n < seq.n_registered).collect();
        ends.push(seq.n_registered);
        ends.dedup();
        for end in ends.into_iter().filter(|end| *end > 0) {
            for (index, group) in self.groups.iter().enumerate() {
                let first = group.first_page(end * PAGE).min(end);
                let pages = seq.keys[first..end].iter().filter_map(|key| Some((*key, group.pages.peek(*key)?)));
                left.extend(pages.map(|(key, page)| (page_key(index, key), CachePlace::Page { group: index, page })));
            }
            let key = seq.keys[end - 1];
            left.extend(self.states.peek(key).map(|slot| (state_key(key), CachePlace::State(slot))));
        }
        // The state of an answer may be some pages in front of its end.
        if let Some(key) = seq.boundary {
            left.extend(self.states.peek(key).map(|slot| (state_key(key), CachePlace::State(slot))));
        }
    }

    /// Of the sequence that is let in next, what the cache lacks of its start and the store has: places for it, which are
    /// held until [`Scheduler::brought`] is told of them. Asked once for each sequence.
    pub(crate) fn wanted(&mut self, has: &dyn Fn(StoreKey) -> bool) -> Vec<(StoreKey, CachePlace)> {
        let full = self.running.len() >= self.limits.seqs;
        let Some(seq) = self.waiting.front_mut().filter(|seq| !seq.was_sought && !full) else { return Vec::new() };
        seq.was_sought = true;
        let reusable = if self.limits.reuse { seq.reusable() / PAGE } else { 0 };
        seq.make_keys(reusable);
        let keys = seq.keys[..reusable.min(seq.keys.len())].to_vec();
        let here = self.depth(&keys);
        let depth = self.depth_with(
            &keys,
            &|group, key| self.groups[group].pages.has(key) || has(page_key(group, key)),
            &|key| self.states.has(key) || has(state_key(key)),
        );
        if depth <= here {
            return Vec::new();
        }
        let mut wanted = Vec::new();
        for index in 0..self.groups.len() {
            let group = &mut self.groups[index];
            let first = group.first_page(depth * PAGE).min(depth);
            // What is there is held first, so that it is not what gives way.
            let there: Vec<Option<u32>> = keys[first..depth].iter().map(|key| group.pages.find(*key)).collect();
            for (key, page) in keys[first..depth].iter().zip(&there) {
                match page.is_none().then(|| group.pages.alloc()) {
                    Some(Some(page)) => wanted.push((page_key(index, *key), CachePlace::Page { group: index, page })),
                    Some(None) => break,
                    None => {}
                }
            }
            there.into_iter().flatten().for_each(|page| group.pages.release(page, false));
        }
        let key = keys[depth - 1];
        if !self.states.is_empty() && !self.states.has(key) {
            wanted.extend(self.states.alloc().map(|slot| (state_key(key), CachePlace::State(slot))));
        }
        wanted
    }

    /// Takes places back that were wanted; those that were filled are found from here on.
    pub(crate) fn brought(&mut self, places: &[(StoreKey, CachePlace, bool)]) {
        for (key, place, filled) in places.iter().rev() {
            let prefix = PageKey(key.prefix);
            match *place {
                CachePlace::Page { group, page } => {
                    let (marked, pages) = (self.groups[group].most(0).is_some(), &mut self.groups[group].pages);
                    if *filled {
                        pages.register(page, prefix);
                    }
                    pages.release(page, marked);
                }
                CachePlace::State(slot) => {
                    if *filled {
                        self.states.keep(prefix, slot, true);
                    }
                    self.states.release(slot);
                }
            }
        }
    }
}
