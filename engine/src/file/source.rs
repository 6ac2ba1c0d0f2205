//! [`Source`]: where a tensor's bytes are that is no single range of one model file: pieces of several files, or bytes that
//! are made of others. [`Described`] is a tensor with its source, for [`super::ModelFile::from_sources`].

use std::sync::{Arc, OnceLock};

use crate::bytes::Bytes;
use crate::dtype::DType;
use crate::error::{Error, Result};

/// Where a tensor's bytes are.
#[derive(Debug, Clone)]
pub enum Source {
    /// Ranges of files, one after the other.
    Pieces(Vec<Bytes>),
    /// Made when they are first asked for, and then kept.
    Made(Made),
}

/// Bytes that are made once.
#[derive(Clone)]
pub struct Made(Arc<Maker>);

type Make = Box<dyn Fn() -> Result<Vec<u8>> + Send + Sync>;

struct Maker {
    make: Make,
    made: OnceLock<std::result::Result<Bytes, String>>,
}

/// A tensor that is described and not read from a file's table.
#[derive(Debug, Clone)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// Its shape, contiguous elements first.
    pub dims: Vec<u64>,
    /// Its storage type.
    pub dtype: DType,
    /// Its bytes.
    pub source: Source,
}

impl Source {
    /// Bytes that this function makes.
    pub fn made(make: impl Fn() -> Result<Vec<u8>> + Send + Sync + 'static) -> Source {
        Source::Made(Made(Arc::new(Maker { make: Box::new(make), made: OnceLock::new() })))
    }

    /// The pieces, one after the other.
    ///
    /// # Errors
    /// What making them says.
    pub fn pieces(&self) -> Result<Vec<Bytes>> {
        match self {
            Source::Pieces(pieces) => Ok(pieces.clone()),
            Source::Made(made) => Ok(vec![made.bytes()?]),
        }
    }

    /// All bytes as one range: the only piece, or a copy of several.
    ///
    /// # Errors
    /// As [`pieces`](Source::pieces).
    pub fn bytes(&self) -> Result<Bytes> {
        match self {
            Source::Pieces(pieces) => Ok(match &pieces[..] {
                [one] => one.clone(),
                several => Bytes::from(several.iter().flat_map(|p| p.iter().copied()).collect::<Vec<u8>>()),
            }),
            Source::Made(made) => made.bytes(),
        }
    }

    /// Bytes in all, if they need not be made to know.
    pub(super) fn byte_len(&self) -> Option<u64> {
        match self {
            Source::Pieces(pieces) => Some(pieces.iter().map(|p| p.len() as u64).sum()),
            Source::Made(_) => None,
        }
    }
}

impl Made {
    fn bytes(&self) -> Result<Bytes> {
        let make = || (self.0.make)().map(Bytes::from).map_err(|e| e.to_string());
        self.0.made.get_or_init(make).clone().map_err(Error::Format)
    }
}

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Made")
    }
}
