//! Where the starts of conversations are kept beyond a model's life: in memory, and in a folder, whose faults are logged.

use std::sync::atomic::{AtomicU64, Ordering};

use ir_engine::run::{DiskCache, PageStore, RamCache, StoreKey};

/// The caches of prefixes that all models share.
#[derive(Debug, Clone, Default)]
pub struct PrefixCaches {
    /// In memory.
    pub ram: Option<RamCache>,
    /// In a folder.
    pub disk: Option<DiskCache>,
}

impl PrefixCaches {
    /// What an engine keeps its pages in, if anything.
    pub(crate) fn store(&self) -> Option<Box<dyn PageStore>> {
        let disk = self.disk.clone().map(Logged::new);
        match (self.ram.clone(), disk) {
            (Some(ram), Some(disk)) => Some(Box::new(ram.over(Box::new(disk)))),
            (Some(ram), None) => Some(Box::new(ram)),
            (None, Some(disk)) => Some(Box::new(disk)),
            (None, None) => None,
        }
    }
}

/// A cache whose faults are logged.
#[derive(Debug)]
struct Logged {
    cache: DiskCache,
    /// Files that could not be written, as many as were told of.
    failed: AtomicU64,
}

impl Logged {
    fn new(cache: DiskCache) -> Logged {
        let failed = AtomicU64::new(cache.counts().failed);
        Logged { cache, failed }
    }
}

impl PageStore for Logged {
    fn has(&self, key: StoreKey) -> bool {
        self.cache.has(key)
    }

    fn load(&self, key: StoreKey) -> Option<Vec<u8>> {
        let damaged = self.cache.counts().damaged;
        let bytes = self.cache.load(key);
        if bytes.is_none() && self.cache.counts().damaged > damaged {
            tracing::warn!(key = %format_args!("{:032x}", key.prefix), "a damaged file of the cache folder was removed");
        }
        bytes
    }

    fn save(&self, key: StoreKey, bytes: Vec<u8>) {
        self.cache.save(key, bytes);
        let failed = self.cache.counts().failed;
        if self.failed.swap(failed, Ordering::Relaxed) < failed {
            tracing::warn!(failed, "files of the cache folder could not be written: is the disk full?");
        }
    }

    fn remove(&self, key: StoreKey) {
        self.cache.remove(key);
        tracing::warn!(key = %format_args!("{:032x}", key.prefix), "a foreign file of the cache folder was removed");
    }
}
