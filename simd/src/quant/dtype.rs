//! The enum of storage types that the table makes, and what follows from ids and sizes.

use super::{FOLDERS, block_types};
use crate::error::{Error, Result};

macro_rules! dtypes {
    ($($(#[$doc:meta])* $name:ident = $id:literal, $block:ty, $feature:literal {
        block: $len:literal x $bytes:literal, $($rest:tt)*
    })*) => {
        /// A storage type of a tensor. Ids are those of the GGUF format (ggml.h, `enum ggml_type`), but for types that only
        /// folders have.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(non_camel_case_types, reason = "the field writes Q4_K, and so do the files")]
        #[repr(u32)]
        pub enum DType { $($(#[$doc])* $name = $id,)* }

        impl DType {
            /// Every type this version can read, in the order of their ids.
            pub const ALL: &'static [DType] = &[$(DType::$name),*];

            /// The name as files and people write it, for example `Q4_K`.
            pub const fn name(self) -> &'static str {
                match self { $(DType::$name => stringify!($name),)* }
            }

            /// Elements in one block (1 for plain types).
            pub const fn block_len(self) -> usize {
                match self { $(DType::$name => $len,)* }
            }

            /// Bytes of one block.
            pub const fn block_bytes(self) -> usize {
                match self { $(DType::$name => $bytes,)* }
            }
        }
    };
}
block_types!(dtypes);

/// Types of ggml that no row stands for yet, or that no file stores matrices in.
const OTHERS: &[(u32, &str)] = &[(9, "Q8_1"), (24, "I8"), (25, "I16"), (26, "I32"), (27, "I64"), (28, "F64")];

impl DType {
    /// The type with this GGUF id.
    ///
    /// # Errors
    /// Names the id, and the type where it is one that exists but is removed or not yet supported.
    pub fn from_id(id: u32) -> Result<DType> {
        if let Some(dtype) = DType::of(id).filter(|dtype| !dtype.is_of_folders()) {
            return Ok(dtype);
        }
        Err(match (OTHERS.iter().find(|(i, _)| *i == id), id) {
            (Some((_, name)), _) => Error::unsupported(format!("tensor type {name} (id {id}) is not supported yet")),
            (None, 4 | 5 | 31..=33 | 36..=38) => {
                Error::unsupported(format!("tensor type id {id} was removed from GGUF: convert the model anew"))
            }
            (None, _) => Error::unsupported(format!("tensor type id {id} is unknown to this version")),
        })
    }

    /// The type with this id, also if no file has it.
    pub fn of(id: u32) -> Option<DType> {
        DType::ALL.iter().copied().find(|dtype| *dtype as u32 == id)
    }

    /// Whether only folders hold this type, and no GGUF file can.
    pub const fn is_of_folders(self) -> bool {
        self as u32 >= FOLDERS
    }

    /// The type in which GGUF files hold such values: this one, or f16 for those of a type of folders, which it
    /// rounds where their scales ask for more.
    pub const fn in_files(self) -> DType {
        if self.is_of_folders() { DType::F16 } else { self }
    }

    /// The type with this name, in letters of either case.
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.iter().copied().find(|d| d.name().eq_ignore_ascii_case(name))
    }

    /// Whether elements are floats that meet floats, and not integers in groups.
    pub const fn is_plain(self) -> bool {
        self.traits().groups.is_none()
    }

    /// As [`bytes_for`](DType::bytes_for), for lengths in files, which may be beyond this machine's `usize`.
    pub fn file_bytes_for(self, len: u64) -> Option<u64> {
        let block = self.block_len() as u64;
        if !len.is_multiple_of(block) {
            return None;
        }
        (len / block).checked_mul(self.block_bytes() as u64)
    }

    /// Bytes that `len` elements take, or `None` where `len` is no whole number of blocks or the size overflows.
    pub const fn bytes_for(self, len: usize) -> Option<usize> {
        if !len.is_multiple_of(self.block_len()) {
            return None;
        }
        (len / self.block_len()).checked_mul(self.block_bytes())
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
