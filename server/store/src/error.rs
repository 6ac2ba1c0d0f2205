//! [`Error`]: one sentence for people and a [`Kind`] for programs.

use std::path::Path;

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The name cannot be a model's.
    Name,
    /// Nothing has that name.
    NotFound,
    /// The line broke, or the other side is busy: trying again may help.
    Network,
    /// The other side wants a key, or another one.
    Denied,
    /// What came is not what was announced.
    Corrupt,
    /// The disk has too little room.
    Space,
    /// A file could not be read or written.
    Disk,
    /// It was stopped; what has arrived stays.
    Cancelled,
    /// It cannot be done here.
    Unsupported,
}

/// Why something of the store failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}")]
pub struct Error {
    /// What kind of failure it is.
    pub kind: Kind,
    /// One sentence that says what happened and what to do.
    pub what: String,
}

/// A result with an [`Error`].
pub type Result<T = ()> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(kind: Kind, what: impl Into<String>) -> Error {
        Error { kind, what: what.into() }
    }

    pub(crate) fn name(what: impl Into<String>) -> Error {
        Error::new(Kind::Name, what)
    }

    pub(crate) fn corrupt(what: impl Into<String>) -> Error {
        Error::new(Kind::Corrupt, what)
    }

    pub(crate) fn network(what: impl Into<String>) -> Error {
        Error::new(Kind::Network, what)
    }

    pub(crate) fn unsupported(what: impl Into<String>) -> Error {
        Error::new(Kind::Unsupported, what)
    }

    pub(crate) fn cancelled() -> Error {
        Error::new(Kind::Cancelled, "stopped; what has arrived is kept, and the next pull goes on from there")
    }

    /// A failure of the file system, with the path.
    pub(crate) fn disk(doing: &str, path: &Path, error: &std::io::Error) -> Error {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Kind::Space,
            _ => Kind::Disk,
        };
        Error::new(kind, format!("cannot {doing} {}: {error}", path.display()))
    }
}
