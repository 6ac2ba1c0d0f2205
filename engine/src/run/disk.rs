//! [`DiskCache`]: a [`PageStore`] in a folder, bounded, the least recently used first to go, shared by the engines of a
//! process. Files are written behind the engine's back, checked before use, and removed if they are not what they should be.
//!
//! A file is named by its key and begins with a header: a mark of the form, the key, the length and a sum of what follows.

mod form;

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::SystemTime;

use super::lasting::{PageStore, StoreKey};
use crate::error::{Error, Result};
use form::{HEADER, header, is_old_partial, make_private, name, parse, private, read};

/// The folder within the one given, by the form of its files: nothing else is ever touched.
const FOLDER: &str = "ir-pages-1";
/// Bytes that wait to be written at most: beyond, what comes is dropped, and kept the next time.
const MOST_WAITING: u64 = 512 << 20;

/// What a cache has and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskCounts {
    /// Bytes of its files.
    pub bytes: u64,
    /// Files.
    pub files: u64,
    /// Bytes that were found again.
    pub loaded: u64,
    /// Bytes that were written.
    pub saved: u64,
    /// Files that were damaged or of something else, and removed.
    pub damaged: u64,
    /// Files that could not be written.
    pub failed: u64,
}

/// A cache in a folder. Clones share it; when the last is dropped, what was given is written first.
#[derive(Debug, Clone)]
pub struct DiskCache(Arc<Shared>);

/// The folder, and the thread that writes to it.
#[derive(Debug)]
struct Shared {
    inner: Arc<Inner>,
    writer: Mutex<Option<Sender<(StoreKey, Vec<u8>)>>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    most: u64,
    index: Mutex<Index>,
    waiting: AtomicU64,
}

#[derive(Debug, Default)]
struct Index {
    files: HashMap<StoreKey, File>,
    /// Ascends with every use.
    now: u64,
    counts: DiskCounts,
}

#[derive(Debug, Clone, Copy)]
struct File {
    bytes: u64,
    used: u64,
    /// Whether it is on the disk, or still waits to be written.
    written: bool,
}

impl DiskCache {
    /// Opens the cache of a folder, which is made where it does not exist, for its owner alone, and keeps it to so many
    /// bytes.
    ///
    /// # Errors
    /// Where the folder cannot be made, read or written.
    pub fn open(folder: &Path, most: u64) -> Result<DiskCache> {
        let folder = folder.join(FOLDER);
        let failed = |e: io::Error| Error::request(format!("the cache folder {} does not open: {e}", folder.display()));
        make_private(&folder).map_err(failed)?;
        let index = Index::read(&folder).map_err(failed)?;
        let inner = Arc::new(Inner { folder, most, index: Mutex::new(index), waiting: AtomicU64::new(0) });
        inner.shrink();
        let (writer, jobs) = channel::<(StoreKey, Vec<u8>)>();
        let to = Arc::clone(&inner);
        let write = move || jobs.into_iter().for_each(|(key, bytes)| to.write(key, &bytes));
        let thread = std::thread::Builder::new().name("ir-cache".into()).spawn(write);
        let thread = Some(thread.map_err(|e| Error::request(e.to_string()))?);
        Ok(DiskCache(Arc::new(Shared { inner, writer: Mutex::new(Some(writer)), thread })))
    }

    /// What it has and did.
    pub fn counts(&self) -> DiskCounts {
        let index = self.0.inner.lock();
        DiskCounts { files: index.files.len() as u64, ..index.counts }
    }

    /// Waits until all that was given is written.
    pub fn flush(&self) {
        while self.0.inner.waiting.load(Ordering::Acquire) > 0 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

impl PageStore for DiskCache {
    fn has(&self, key: StoreKey) -> bool {
        self.0.inner.lock().files.contains_key(&key)
    }

    fn load(&self, key: StoreKey) -> Option<Vec<u8>> {
        if !self.0.inner.lock().files.get(&key)?.written {
            // On its way to the disk: the few that are asked for again at once are computed again.
            return None;
        }
        let path = self.0.inner.path(key);
        match read(&path, key) {
            Ok(bytes) => {
                let mut index = self.0.inner.lock();
                index.touch(key);
                index.counts.loaded += bytes.len() as u64;
                // The time of use outlives this process; without it the file only goes sooner.
                let _ = fs::File::options().append(true).open(&path).and_then(|f| f.set_modified(SystemTime::now()));
                Some(bytes)
            }
            Err(e) => {
                // Another process may have made room.
                let gone = e.kind() == io::ErrorKind::NotFound;
                self.0.inner.forget(key, !gone);
                None
            }
        }
    }

    fn save(&self, key: StoreKey, bytes: Vec<u8>) {
        let len = (bytes.len() + HEADER) as u64;
        if len > self.0.inner.most || self.0.inner.waiting.load(Ordering::Acquire) + len > MOST_WAITING {
            return;
        }
        {
            let mut index = self.0.inner.lock();
            if index.files.contains_key(&key) {
                return;
            }
            let used = index.tick();
            index.files.insert(key, File { bytes: len, used, written: false });
            index.counts.bytes += len;
        }
        self.0.inner.waiting.fetch_add(len, Ordering::AcqRel);
        let writer = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.as_ref().is_none_or(|writer| writer.send((key, bytes)).is_err()) {
            self.0.inner.waiting.fetch_sub(len, Ordering::AcqRel);
            self.0.inner.forget(key, false);
        }
    }

    fn remove(&self, key: StoreKey) {
        self.0.inner.forget(key, true);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        *self.writer.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has left files of other names, which the next process removes.
            let _ = thread.join();
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, key: StoreKey) -> PathBuf {
        self.folder.join(name(key))
    }

    /// Writes a file under another name and gives it its own when it is whole.
    fn write(&self, key: StoreKey, bytes: &[u8]) {
        self.shrink();
        let (path, len) = (self.path(key), (bytes.len() + HEADER) as u64);
        let partial = path.with_extension(format!("tmp{}", std::process::id()));
        let written = private(&partial).and_then(|mut file| {
            file.write_all(&header(key, bytes))?;
            file.write_all(bytes)
        });
        match written.and_then(|()| fs::rename(&partial, &path)) {
            Ok(()) => {
                let mut index = self.lock();
                index.counts.saved += len;
                if let Some(file) = index.files.get_mut(&key) {
                    file.written = true;
                }
            }
            Err(_) => {
                let _ = fs::remove_file(&partial);
                self.lock().counts.failed += 1;
                self.forget(key, false);
            }
        }
        self.waiting.fetch_sub(len, Ordering::AcqRel);
    }

    /// Removes what was used longest ago until the rest fits.
    fn shrink(&self) {
        let mut index = self.lock();
        if index.counts.bytes <= self.most {
            return;
        }
        let mut by_use: Vec<(u64, StoreKey)> =
            index.files.iter().filter(|(_, f)| f.written).map(|(key, f)| (f.used, *key)).collect();
        by_use.sort_unstable();
        for (_, key) in by_use {
            if index.counts.bytes <= self.most {
                break;
            }
            index.take(key);
            let _ = fs::remove_file(self.path(key));
        }
    }

    fn forget(&self, key: StoreKey, damaged: bool) {
        let mut index = self.lock();
        index.take(key);
        index.counts.damaged += u64::from(damaged);
        let _ = fs::remove_file(self.path(key));
    }
}

impl Index {
    /// What lies in a folder, by the times of last use. What an earlier process left half written is removed; files of other
    /// names are left alone.
    fn read(folder: &Path) -> io::Result<Index> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let (file_name, meta) = (entry.file_name(), entry.metadata()?);
            let file_name = file_name.to_string_lossy();
            if let Some(key) = parse(&file_name).filter(|_| meta.is_file()) {
                found.push((meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), key, meta.len()));
            } else if is_old_partial(&file_name, &meta) {
                let _ = fs::remove_file(entry.path());
            }
        }
        found.sort_unstable_by_key(|(time, key, _)| (*time, *key));
        let mut index = Index::default();
        for (_, key, bytes) in found {
            let used = index.tick();
            index.files.insert(key, File { bytes, used, written: true });
            index.counts.bytes += bytes;
        }
        Ok(index)
    }

    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    fn touch(&mut self, key: StoreKey) {
        let now = self.tick();
        if let Some(file) = self.files.get_mut(&key) {
            file.used = now;
        }
    }

    fn take(&mut self, key: StoreKey) {
        if let Some(file) = self.files.remove(&key) {
            self.counts.bytes = self.counts.bytes.saturating_sub(file.bytes);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("ir-disk-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    fn key(prefix: u128) -> StoreKey {
        StoreKey { prefix, group: prefix.is_multiple_of(2).then_some(1) }
    }

    fn page(n: u128) -> Vec<u8> {
        (0..1000 + n as usize).map(|i| (i as u128 * n) as u8).collect()
    }

    #[test]
    fn what_was_kept_is_found_after_a_restart_and_the_least_used_goes_first() {
        let folder = folder("lru");
        let cache = DiskCache::open(&folder, 5_000).unwrap();
        (1..=4).for_each(|n| cache.save(key(n), page(n)));
        drop(cache);
        let cache = DiskCache::open(&folder, 5_000).unwrap();
        assert_eq!((1..=4).filter(|n| cache.load(key(*n)) == Some(page(*n))).count(), 4);
        drop(cache);
        let cache = DiskCache::open(&folder, 5_000).unwrap();
        assert_eq!(cache.counts().files, 4);
        assert_eq!(cache.load(key(1)), Some(page(1)));
        (5..=6).for_each(|n| cache.save(key(n), page(n)));
        cache.flush();
        // One more write makes room.
        cache.save(key(7), page(7));
        cache.flush();
        let there: Vec<u128> = (1..=7).filter(|n| cache.has(key(*n))).collect();
        assert!(there.contains(&1) && there.contains(&7) && !there.contains(&2), "{there:?}");
        assert!(cache.counts().bytes <= 5_000 + 1_100 && cache.counts().damaged == 0);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&folder.join(FOLDER)), 0o700);
            assert_eq!(mode(&folder.join(FOLDER).join(name(key(7)))), 0o600);
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn damaged_and_foreign_files_are_removed_and_others_left_alone() {
        let folder = folder("damage");
        let cache = DiskCache::open(&folder, 1 << 20).unwrap();
        (1..=4).for_each(|n| cache.save(key(n), page(n)));
        cache.flush();
        let path = |n| folder.join(FOLDER).join(name(key(n)));
        let mut bytes = fs::read(path(1)).unwrap();
        bytes[500] ^= 1;
        fs::write(path(1), &bytes).unwrap();
        fs::write(path(2), &bytes[..700]).unwrap();
        fs::copy(path(4), path(3)).unwrap();
        fs::write(folder.join(FOLDER).join("notes.txt"), "mine").unwrap();
        let cache = DiskCache::open(&folder, 1 << 20).unwrap();
        assert_eq!([1, 2, 3].map(|n| cache.load(key(n))), [None, None, None]);
        assert_eq!([1, 2, 3].map(|n| path(n).exists()), [false; 3]);
        assert_eq!((cache.load(key(4)), cache.counts().damaged), (Some(page(4)), 3));
        // A file that another process removed is no damage.
        fs::remove_file(path(4)).unwrap();
        assert_eq!((cache.load(key(4)), cache.has(key(4)), cache.counts().damaged), (None, false, 3));
        assert!(folder.join(FOLDER).join("notes.txt").exists());
        fs::remove_dir_all(folder).unwrap();
    }
}
