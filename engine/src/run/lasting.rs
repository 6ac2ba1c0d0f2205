//! [`PageStore`]: where pages and states are kept beyond the cache they were computed in, and the engine's way there and back.
//!
//! When a sequence ends, its full pages and the state at the last end of a page go there; what is there already is not
//! written again. Before a sequence is let in, those of its start that are missing in the cache are brought back.

use super::scheduler::Scheduler;
use crate::device::Runner;
use crate::plan::CachePlace;

/// Pages that are read at once: a GPU is waited for once for all of them.
const AT_ONCE: usize = 256;

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

/// Hands what sequences left behind to a store. The pages may be free already; nothing has written them since.
pub(crate) fn save(store: &dyn PageStore, runner: &mut Runner, left: Vec<(StoreKey, CachePlace)>) {
    let new: Vec<(StoreKey, CachePlace)> = left.into_iter().filter(|(key, _)| !store.has(*key)).collect();
    for some in new.chunks(AT_ONCE) {
        let places: Vec<CachePlace> = some.iter().map(|(_, place)| *place).collect();
        let Some(read) = runner.read_kept(&places) else { return };
        some.iter().zip(read).for_each(|((key, _), bytes)| store.save(*key, bytes));
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
            let fits = runner.write_kept(place, &bytes);
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
