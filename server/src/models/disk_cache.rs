//! The cache of prefixes in a folder, with what goes wrong in it told in the log.

use std::sync::atomic::{AtomicU64, Ordering};

use ir_engine::run::{DiskCache, PageStore, StoreKey};

/// A cache whose faults are logged.
#[derive(Debug)]
pub(crate) struct Logged {
    cache: DiskCache,
    /// Files that could not be written, as many as were told of.
    failed: AtomicU64,
}

impl Logged {
    pub(crate) fn new(cache: DiskCache) -> Logged {
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
