//! [`PageStore`]: where pages and states are kept beyond the cache they were computed in, and the engine's way there and back.
//!
//! When a sequence ends, its full pages and the state at the last end of a page go there; what is there already is not
//! written again. Before a sequence is let in, those of its start that are missing in the cache are brought back.

use super::pages::PageId;
use super::scheduler::Scheduler;
use super::states::StateId;
use crate::device::Runner;

/// Names what is kept: a page's tokens down to the model and the form of its cache, and the group of caches, or none for a
/// state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreKey {
    /// The chained key of the tokens in front of its end: the same in every run.
    pub prefix: u128,
    /// The group of a page; `None` for the state behind it.
    pub group: Option<u8>,
}

/// Keeps bytes by key. Whatever it gives must be what it was given: it checks that before.
pub trait PageStore: Send + std::fmt::Debug {
    /// Whether there is something, as far as can be told at once.
    fn has(&self, key: StoreKey) -> bool;

    /// What was kept, if it is there and unharmed.
    fn load(&self, key: StoreKey) -> Option<Vec<u8>>;

    /// Keeps bytes, later and if there is room.
    fn save(&self, key: StoreKey, bytes: Vec<u8>);

    /// Removes what turned out to be of no use.
    fn remove(&self, key: StoreKey);
}

/// A place on the device that is to be kept, or that waits for what was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A page of a group.
    Page(usize, PageId),
    /// A slot of states.
    State(StateId),
}

/// Hands what sequences left behind to a store. The pages may be free already; nothing has written them since.
pub(crate) fn save(store: &dyn PageStore, runner: &mut Runner, left: Vec<(StoreKey, Place)>) {
    for (key, place) in left {
        if store.has(key) {
            continue;
        }
        let bytes = match place {
            Place::Page(group, page) => runner.page(group, page),
            Place::State(slot) => runner.state(slot),
        };
        match bytes {
            Some(bytes) => store.save(key, bytes),
            None => return,
        }
    }
}

/// Brings back what a store has of the start of the sequence that is let in next.
pub(crate) fn restore(store: &dyn PageStore, runner: &mut Runner, scheduler: &mut Scheduler) {
    if !runner.gives_pages() {
        return;
    }
    let wanted = scheduler.wanted(&|key| store.has(key));
    let mut there = Vec::with_capacity(wanted.len());
    let mut whole = true;
    for (key, place) in wanted {
        // One missing page makes those behind it useless; their places are given back all the same.
        let bytes = if whole { store.load(key) } else { None };
        let taken = bytes.is_some_and(|bytes| {
            let fits = match place {
                Place::Page(group, page) => runner.set_page(group, page, &bytes),
                Place::State(slot) => runner.set_state(slot, &bytes),
            };
            if !fits {
                store.remove(key);
            }
            fits
        });
        whole &= taken;
        there.push((key, place, taken));
    }
    scheduler.brought(&there);
}
