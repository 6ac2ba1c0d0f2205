//! The one error type of the engine: what happened, where, and what to do about it.

use std::path::PathBuf;

/// Everything that can go wrong in the engine. Each message is one sentence a user can act on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: "open", "map", "write".
        action: &'static str,
        /// The file in question.
        path: PathBuf,
        /// The system's own reason.
        source: std::io::Error,
    },
    /// A file's bytes contradict its format: damaged, truncated or hostile.
    #[error("{0}")]
    Format(String),
    /// A well-formed file or request asks for something this version cannot do.
    #[error("{0}")]
    Unsupported(String),
    /// Sizes that must agree do not.
    #[error("{0}")]
    Shape(String),
    /// A budget (memory, context, output) would be exceeded.
    #[error("{0}")]
    Limit(String),
    /// A request's values are out of range or contradict each other.
    #[error("{0}")]
    Request(String),
    /// A chat template failed to parse or render.
    #[error("chat template: {0}")]
    Template(String),
    /// A file, by its name, was written to while it was in use.
    #[error("{0} was changed while it was in use: load the model again")]
    Changed(String),
    /// A device failed.
    #[error("{0}")]
    Device(String),
    /// A device is gone, and everything on it: a driver was reset, a page's GPU process ended. It can be opened again.
    #[error("the device was lost ({0}): open it again and compute anew")]
    Lost(String),
    /// The weights are not at hand: they arrived in pieces and went to a device that is gone. The file is to be fed anew.
    #[error("{0}: load the model again")]
    Reload(&'static str),
}

/// A result with the engine's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Format`] with this sentence.
    pub fn format(what: impl Into<String>) -> Self {
        Error::Format(what.into())
    }

    /// An [`Error::Unsupported`] with this sentence.
    pub fn unsupported(what: impl Into<String>) -> Self {
        Error::Unsupported(what.into())
    }

    /// An [`Error::Shape`] with this sentence.
    pub fn shape(what: impl Into<String>) -> Self {
        Error::Shape(what.into())
    }

    /// An [`Error::Limit`] with this sentence.
    pub fn limit(what: impl Into<String>) -> Self {
        Error::Limit(what.into())
    }

    /// An [`Error::Request`] with this sentence.
    pub fn request(what: impl Into<String>) -> Self {
        Error::Request(what.into())
    }
}

impl From<ir_simd::Error> for Error {
    fn from(error: ir_simd::Error) -> Self {
        match error {
            ir_simd::Error::Shape(what) => Error::Shape(what),
            other => Error::Unsupported(other.to_string()),
        }
    }
}
