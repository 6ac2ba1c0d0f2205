//! [`Bytes`]: a shared, immutable range of a mapped file, a vector or embedded data. Slicing copies nothing.
//! The only place where the engine maps files, and where it notices that a mapped file was changed.

#[cfg(unix)]
mod fault;
#[cfg(not(target_arch = "wasm32"))]
mod watch;

use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::error::{Error, Result};
#[cfg(not(target_arch = "wasm32"))]
pub use watch::Change;

/// Bytes that Linux maps at once around a page that is touched (its `fault_around_bytes`).
#[cfg(unix)]
const FAULT_AROUND: usize = 64 << 10;

enum Owner {
    Vec(Vec<u8>),
    Static(&'static [u8]),
    #[cfg(not(target_arch = "wasm32"))]
    Map(Map),
}

/// A mapped file.
#[cfg(not(target_arch = "wasm32"))]
struct Map {
    /// Ends before the map does.
    #[cfg(unix)]
    guard: Option<fault::Guard>,
    map: memmap2::Mmap,
    watch: watch::Watch,
}

impl Owner {
    fn as_slice(&self) -> &[u8] {
        match self {
            Owner::Vec(v) => v,
            Owner::Static(s) => s,
            #[cfg(not(target_arch = "wasm32"))]
            Owner::Map(m) => &m.map,
        }
    }
}

/// A shared range of bytes. Cloning and slicing are cheap; alignment is 1.
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<Owner>,
    range: Range<usize>,
}

impl Bytes {
    /// Maps a whole file for reading. Pages are read when they are touched.
    ///
    /// # Errors
    /// [`Error::Io`] where the file cannot be opened or mapped, [`Error::Format`] where the path is a directory or the
    /// like.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn map(path: &std::path::Path) -> Result<Bytes> {
        regular(path)?;
        let io = |action| move |source| Error::Io { action, path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(io("open"))?;
        let meta = file.metadata().map_err(io("open"))?;
        if meta.len() == 0 {
            return Ok(Bytes::from(Vec::new()));
        }
        #[allow(unsafe_code, reason = "mapping a file is the point of this function")]
        // SAFETY: the map is read-only. If another process writes to the file, its bytes change under the readers' hands, as
        // on every engine that maps models: any bytes are valid, and `change` tells. If it cuts the file, reads fault, which
        // `fault` mends; `read` below is the way without.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io("map"))?;
        let map = Map {
            #[cfg(unix)]
            guard: fault::Guard::new(&map),
            map,
            watch: watch::Watch::new(path, file, &meta),
        };
        Ok(Bytes { range: 0..map.map.len(), owner: Arc::new(Owner::Map(map)) })
    }

    /// Reads a whole file into memory: the `--no-mmap` way.
    ///
    /// # Errors
    /// As [`map`](Bytes::map).
    pub fn read(path: &std::path::Path) -> Result<Bytes> {
        regular(path)?;
        let bytes =
            std::fs::read(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })?;
        Ok(Bytes::from(bytes))
    }

    /// Bytes that live as long as the program, such as an embedded model.
    pub fn from_static(bytes: &'static [u8]) -> Bytes {
        Bytes { range: 0..bytes.len(), owner: Arc::new(Owner::Static(bytes)) }
    }

    /// A part of this range, sharing the owner. `None` where it does not lie inside.
    pub fn slice(&self, range: Range<usize>) -> Option<Bytes> {
        if range.start > range.end || range.end > self.len() {
            return None;
        }
        let start = self.range.start + range.start;
        Some(Bytes { owner: Arc::clone(&self.owner), range: start..start + (range.end - range.start) })
    }

    /// The bytes as a vector: the one they were made from where nobody else shares it, or a copy.
    pub fn into_vec(self) -> Vec<u8> {
        match Arc::try_unwrap(self.owner) {
            Ok(Owner::Vec(v)) if self.range == (0..v.len()) => v,
            Ok(owner) => owner.as_slice()[self.range].to_vec(),
            Err(shared) => shared.as_slice()[self.range].to_vec(),
        }
    }

    /// Gives back the memory that these bytes take where they are a mapped file: for bytes that will hardly be read again.
    /// Reading them still works, from the file. Does nothing for other bytes, and where the system knows no such advice.
    pub fn drop_pages(&self) {
        #[cfg(unix)]
        if let Owner::Map(map) = &*self.owner {
            // A fault maps the pages around it too, so neighbours are given back with these.
            let start = self.range.start.saturating_sub(FAULT_AROUND);
            let map = &map.map;
            let end = self.range.end.saturating_add(FAULT_AROUND).min(map.len());
            #[allow(unsafe_code, reason = "memmap2 marks this advice unsafe, as it would zero anonymous memory")]
            // SAFETY: the range lies inside the map, which is of a file, read-only and never written through: a page that
            // was dropped is read from the file again when it is touched, with the contents that it had (or, where the file
            // was cut, as the zeros that stand there), so that references to these bytes, in other threads too, see no change.
            let advised = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
            // Where the advice is refused, the pages stay: more memory, nothing wrong.
            drop(advised);
        }
    }

    /// What became of the file that these bytes are mapped from; `None` where they are as they were, or no mapped file. Asks
    /// the system, and reads nothing. What it cannot see: a write that keeps length and time of writing.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn change(&self) -> Option<Change> {
        let Owner::Map(map) = &*self.owner else { return None };
        if self.is_overwritten() {
            return Some(Change::Overwritten);
        }
        map.watch.is_replaced().then_some(Change::Replaced)
    }

    /// Whether the file that these bytes are mapped from was written to or cut, so that they are no longer what they were.
    pub fn is_overwritten(&self) -> bool {
        match &*self.owner {
            #[cfg(unix)]
            Owner::Map(map) if map.guard.as_ref().is_some_and(fault::Guard::is_damaged) => true,
            #[cfg(not(target_arch = "wasm32"))]
            Owner::Map(map) => map.watch.is_overwritten(),
            _ => false,
        }
    }

    /// The file that these bytes are mapped from.
    pub fn path(&self) -> Option<&std::path::Path> {
        match &*self.owner {
            #[cfg(not(target_arch = "wasm32"))]
            Owner::Map(map) => Some(map.watch.path()),
            _ => None,
        }
    }

    /// Whether the bytes are a mapped file (pages come from the file, not from anonymous memory).
    pub fn is_mapped(&self) -> bool {
        #[cfg(not(target_arch = "wasm32"))]
        return matches!(*self.owner, Owner::Map(_));
        #[cfg(target_arch = "wasm32")]
        false
    }
}

/// Refuses what is no file: opening a pipe would block, and reading a device might never end.
fn regular(path: &std::path::Path) -> Result<()> {
    let io = |source| Error::Io { action: "open", path: path.to_owned(), source };
    let meta = std::fs::metadata(path).map_err(io)?;
    if meta.is_file() {
        return Ok(());
    }
    let kind = if meta.is_dir() { "a directory" } else { "not a regular file" };
    Err(Error::format(format!("{} is {kind}: give the path of a .gguf file", path.display())))
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        Bytes { range: 0..bytes.len(), owner: Arc::new(Owner::Vec(bytes)) }
    }
}

impl Default for Bytes {
    fn default() -> Bytes {
        Bytes::from_static(&[])
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.owner.as_slice()[self.range.clone()]
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({} bytes)", self.len())
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;

    #[test]
    fn dropped_pages_read_the_same() {
        let path = std::env::temp_dir().join(format!("ir-bytes-{}", std::process::id()));
        let data: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &data).unwrap();
        let bytes = Bytes::map(&path).unwrap();
        for range in [0..300_000, 0..0, 1..4097, 150_000..150_001, 299_999..300_000, 300_000..300_000] {
            assert_eq!(bytes[..], data);
            bytes.slice(range).unwrap().drop_pages();
            assert_eq!(bytes[..], data);
        }
        assert_eq!((bytes.change(), bytes.path()), (None, Some(path.as_path())));
        drop(bytes);
        std::fs::remove_file(&path).unwrap();
        let vec = Bytes::from(data.clone());
        vec.drop_pages();
        assert_eq!(vec[..], data);
    }

    #[test]
    fn a_file_that_is_changed_is_noticed() {
        let folder = std::env::temp_dir().join(format!("ir-watch-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (path, other) = (folder.join("a"), folder.join("b"));
        let data = vec![7u8; 300_000];
        let begin = || {
            std::fs::write(&path, &data).unwrap();
            let file = std::fs::File::open(&path).unwrap();
            // As if it had been written long ago: file systems count time in steps.
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
            Bytes::map(&path).unwrap()
        };
        let bytes = begin();
        std::fs::write(&other, b"new").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!((bytes.change(), bytes.is_overwritten()), (Some(Change::Replaced), false));
        assert_eq!(bytes[..], data);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(bytes.change(), None);
        let bytes = begin();
        let mut same = data.clone();
        same[5] = 8;
        std::fs::write(&path, &same).unwrap();
        assert_eq!(bytes.change(), Some(Change::Overwritten));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn reading_what_was_cut_off_gives_zeros_and_a_note() {
        let path = std::env::temp_dir().join(format!("ir-cut-{}", std::process::id()));
        std::fs::write(&path, vec![9u8; 3 << 20]).unwrap();
        let (bytes, second) = (Bytes::map(&path).unwrap(), Bytes::map(&path).unwrap());
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(5000).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let sum: u64 = bytes.iter().map(|b| u64::from(*b)).sum();
                    // What is left is there, up to the page in which the file ends.
                    assert!((9 * 5000..=9 * 8192).contains(&sum), "{sum}");
                });
            }
        });
        assert_eq!(bytes[(3 << 20) - 1], 0);
        assert!(bytes.is_overwritten() && second.is_overwritten());
        drop((bytes, second));
        std::fs::remove_file(&path).unwrap();
    }
}
