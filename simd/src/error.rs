//! What block types and instruction sets refuse.

/// A refusal: one sentence a user can act on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something well-formed that this version or this machine cannot do.
    #[error("{0}")]
    Unsupported(String),
    /// Sizes that must agree do not.
    #[error("{0}")]
    Shape(String),
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Unsupported`] with this sentence.
    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Error::Unsupported(what.into())
    }

    /// An [`Error::Shape`] with this sentence.
    pub(crate) fn shape(what: impl Into<String>) -> Self {
        Error::Shape(what.into())
    }
}
