//! [`Bytes`]: a shared, immutable range of a mapped file, a vector or embedded data. Slicing copies nothing.
//! The only place where the engine maps files.

use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::error::{Error, Result};

/// Bytes that Linux maps at once around a page that is touched (its `fault_around_bytes`).
#[cfg(unix)]
const FAULT_AROUND: usize = 64 << 10;

enum Owner {
    Vec(Vec<u8>),
    Static(&'static [u8]),
    #[cfg(not(target_arch = "wasm32"))]
    Map(memmap2::Mmap),
}

impl Owner {
    fn as_slice(&self) -> &[u8] {
        match self {
            Owner::Vec(v) => v,
            Owner::Static(s) => s,
            #[cfg(not(target_arch = "wasm32"))]
            Owner::Map(m) => m,
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
        // SAFETY: the map is read-only. If another process truncates the file while it is mapped, reads fault (SIGBUS)
        // on every engine that maps models; `read` below is the way without.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io("map"))?;
        Ok(Bytes { range: 0..map.len(), owner: Arc::new(Owner::Map(map)) })
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
            let end = self.range.end.saturating_add(FAULT_AROUND).min(map.len());
            #[allow(unsafe_code, reason = "memmap2 marks this advice unsafe, as it would zero anonymous memory")]
            // SAFETY: the range lies inside the map, which is of a file, read-only and never written through: a page that
            // was dropped is read from the file again when it is touched, with the contents that it had, so that
            // references to these bytes, in other threads too, see no change.
            let advised = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
            // Where the advice is refused, the pages stay: more memory, nothing wrong.
            drop(advised);
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
        drop(bytes);
        std::fs::remove_file(&path).unwrap();
        let vec = Bytes::from(data.clone());
        vec.drop_pages();
        assert_eq!(vec[..], data);
    }
}
