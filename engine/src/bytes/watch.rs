//! [`Watch`]: whether a mapped file is still what it was when it was mapped.

use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What became of a file that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Another file has its name now. What is mapped is whole.
    Replaced,
    /// It was written to or cut: what is mapped is no longer what it was.
    Overwritten,
}

/// A file's length and time of writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp(u64, Option<SystemTime>);

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp(metadata.len(), metadata.modified().ok())
    }
}

/// A file that is watched.
#[derive(Debug)]
pub(super) struct Watch {
    path: PathBuf,
    /// The mapped file itself, whatever has its name meanwhile.
    file: File,
    stamp: Stamp,
    identity: Option<(u64, u64)>,
}

impl Watch {
    pub(super) fn new(path: &Path, file: File, metadata: &Metadata) -> Watch {
        let (path, stamp, identity) = (path.to_owned(), Stamp::of(metadata), identity(metadata));
        Watch { path, file, stamp, identity }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file itself was written to: two questions to the system, no reading.
    pub(super) fn is_overwritten(&self) -> bool {
        self.file.metadata().map_or(true, |now| Stamp::of(&now) != self.stamp)
    }

    /// Whether another file has its name. One whose name is gone has not been replaced.
    pub(super) fn is_replaced(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|now| identity(&now) != self.identity)
    }
}

/// What tells a file from others on this machine, where the system says.
#[cfg(unix)]
fn identity(metadata: &Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> Option<(u64, u64)> {
    None
}
