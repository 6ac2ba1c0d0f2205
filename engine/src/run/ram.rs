//! [`RamCache`]: a [`PageStore`] in memory, bounded, the least recently used first to go, shared by the engines of a process. What
//! a GPU computed outlives the pages it was computed in, and any model's conversations outlive its unloading.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::lasting::{PageStore, StoreKey};

/// What a cache has and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RamCounts {
    /// Bytes that it holds.
    pub bytes: u64,
    /// Pages and states.
    pub entries: u64,
    /// Bytes that were found again.
    pub loaded: u64,
    /// Bytes that were kept.
    pub saved: u64,
}

/// A cache in memory. Clones share it.
#[derive(Debug, Clone)]
pub struct RamCache(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    most: u64,
    entries: HashMap<StoreKey, (Vec<u8>, u64)>,
    /// The keys by when they were last used.
    order: BTreeMap<u64, StoreKey>,
    now: u64,
    counts: RamCounts,
}

impl RamCache {
    /// An empty cache of so many bytes at most.
    pub fn new(most: u64) -> RamCache {
        RamCache(Arc::new(Mutex::new(Inner { most, ..Inner::default() })))
    }

    /// What it has and did.
    pub fn counts(&self) -> RamCounts {
        let inner = self.lock();
        RamCounts { entries: inner.entries.len() as u64, ..inner.counts }
    }

    /// A store that looks here first and then in another one, and keeps everything in both.
    pub fn over(self, under: Box<dyn PageStore>) -> impl PageStore {
        Layered { ram: self, under }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Marks an entry as the one used last.
    fn touch(&mut self, key: StoreKey) {
        self.now += 1;
        let Some((_, used)) = self.entries.get_mut(&key) else { return };
        self.order.remove(&std::mem::replace(used, self.now));
        self.order.insert(self.now, key);
    }

    fn remove(&mut self, key: StoreKey) {
        let Some((bytes, used)) = self.entries.remove(&key) else { return };
        self.order.remove(&used);
        self.counts.bytes -= bytes.len() as u64;
    }

    fn keep(&mut self, key: StoreKey, bytes: Vec<u8>) {
        self.remove(key);
        let len = bytes.len() as u64;
        if len > self.most {
            return;
        }
        while self.counts.bytes + len > self.most {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            self.remove(oldest);
        }
        self.now += 1;
        self.order.insert(self.now, key);
        self.entries.insert(key, (bytes, self.now));
        self.counts.bytes += len;
        self.counts.saved += len;
    }
}

impl PageStore for RamCache {
    fn has(&self, key: StoreKey) -> bool {
        self.lock().entries.contains_key(&key)
    }

    fn load(&self, key: StoreKey) -> Option<Vec<u8>> {
        let mut inner = self.lock();
        inner.touch(key);
        let bytes = inner.entries.get(&key)?.0.clone();
        inner.counts.loaded += bytes.len() as u64;
        Some(bytes)
    }

    fn save(&self, key: StoreKey, bytes: Vec<u8>) {
        self.lock().keep(key, bytes);
    }

    fn remove(&self, key: StoreKey) {
        self.lock().remove(key);
    }
}

/// Memory in front of another store.
#[derive(Debug)]
struct Layered {
    ram: RamCache,
    under: Box<dyn PageStore>,
}

impl PageStore for Layered {
    fn has(&self, key: StoreKey) -> bool {
        self.ram.has(key) || self.under.has(key)
    }

    fn load(&self, key: StoreKey) -> Option<Vec<u8>> {
        self.ram.load(key).or_else(|| {
            let bytes = self.under.load(key)?;
            self.ram.save(key, bytes.clone());
            Some(bytes)
        })
    }

    fn save(&self, key: StoreKey, bytes: Vec<u8>) {
        self.ram.save(key, bytes.clone());
        self.under.save(key, bytes);
    }

    fn remove(&self, key: StoreKey) {
        self.ram.remove(key);
        self.under.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(prefix: u128) -> StoreKey {
        StoreKey { prefix, group: Some(0) }
    }

    #[test]
    fn it_keeps_to_its_bound_and_drops_what_was_used_least_recently() {
        let cache = RamCache::new(100);
        (0..5).for_each(|i| cache.save(key(i), vec![i as u8; 20]));
        assert_eq!(cache.load(key(0)), Some(vec![0; 20]));
        cache.save(key(5), vec![5; 30]);
        let there: Vec<u128> = (0..6).filter(|i| cache.has(key(*i))).collect();
        assert_eq!(there, [0, 3, 4, 5], "1 and 2 made room");
        assert_eq!(cache.counts(), RamCounts { bytes: 90, entries: 4, loaded: 20, saved: 130 });
        cache.save(key(6), vec![0; 101]);
        assert!(!cache.has(key(6)) && cache.has(key(5)), "what is larger than all of it is not kept");
        cache.save(key(5), vec![6; 10]);
        assert_eq!((cache.load(key(5)), cache.counts().bytes), (Some(vec![6; 10]), 70));
        (0..6).for_each(|i| cache.remove(key(i)));
        assert_eq!((cache.counts().bytes, cache.counts().entries, cache.load(key(3))), (0, 0, None));
    }

    #[test]
    fn what_lies_under_it_comes_up() {
        let (ram, under) = (RamCache::new(100), RamCache::new(1000));
        let both = ram.clone().over(Box::new(under.clone()));
        (0..8).for_each(|i| both.save(key(i), vec![i as u8; 25]));
        assert_eq!((ram.counts().entries, under.counts().entries), (4, 8));
        assert!(both.has(key(0)) && !ram.has(key(0)));
        assert_eq!(both.load(key(0)), Some(vec![0; 25]));
        assert!(ram.has(key(0)));
        both.remove(key(0));
        assert!(!both.has(key(0)));
    }
}
