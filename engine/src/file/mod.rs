//! Model files: bytes to metadata, names and shapes. Weights stay as they are in the file; nothing is decoded here.
//! [`ModelFile`] reads whole files and split sets, [`Folder`] opens folders of safetensors, [`PushReader`] reads files that arrive
//! in pieces, [`GgufWriter`] writes. What a type's blocks mean is in `quant`.

mod folder;
mod gguf;
mod magic;
pub mod safetensors;
mod source;
mod split;
mod stream;
mod table;
mod tensor;
mod write;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

pub use folder::Folder;
pub use source::{Described, Source};
pub use split::part_name;
pub use stream::{Placement, PushReader, Sink};
pub use table::Table;
pub use tensor::Tensor;
pub use write::GgufWriter;

use crate::bytes::Bytes;
use crate::error::{Error, Result};
use crate::meta::{Meta, shown};

/// A model file, or a split set of them, opened for reading.
#[derive(Debug)]
pub struct ModelFile {
    table: Arc<Table>,
    data: Data,
}

/// Where the tensors' bytes are.
#[derive(Debug)]
enum Data {
    /// In the whole file, or in the parts of a split set.
    Parts(Vec<Bytes>),
    /// Of files of `total` bytes that arrived in pieces: what was kept, by the tensors' indices.
    Kept { total: u64, tensors: BTreeMap<usize, Bytes> },
    /// Of files that are no GGUF: each tensor's own.
    Sources { files: Vec<Bytes>, tensors: Vec<Source> },
}

impl ModelFile {
    /// Maps a GGUF file; of a split set, any part may be given, and the others must lie beside it.
    ///
    /// # Errors
    /// [`Error::Io`] where a file cannot be read, [`Error::Format`] where it is no GGUF, is damaged or is cut short.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(path: &Path) -> Result<ModelFile> {
        split::open(path, Bytes::map)
    }

    /// As [`open`](ModelFile::open), but reads the file into memory instead of mapping it.
    ///
    /// # Errors
    /// As [`open`](ModelFile::open).
    pub fn read(path: &Path) -> Result<ModelFile> {
        split::open(path, Bytes::read)
    }

    /// Reads a model from the bytes of one whole file.
    ///
    /// # Errors
    /// [`Error::Format`] where they are no whole GGUF file.
    pub fn from_bytes(bytes: Bytes) -> Result<ModelFile> {
        ModelFile::from_parts(vec![bytes])
    }

    /// Reads a model from the bytes of every part of a split set, in order. One part is a plain file.
    ///
    /// # Errors
    /// [`Error::Format`] where they are no whole GGUF files or do not belong together.
    pub fn from_parts(parts: Vec<Bytes>) -> Result<ModelFile> {
        split::join(parts)
    }

    /// Files of `total` bytes together that arrived through a [`PushReader`], with the bytes of those tensors that were kept,
    /// by their indices in the table. None at all is a model known by its headers alone.
    ///
    /// # Errors
    /// [`Error::Shape`] where a tensor's bytes have another length than the table says, [`Error::Format`] for a part of a
    /// split set without the others.
    pub fn from_pieces(table: Arc<Table>, total: u64, tensors: BTreeMap<usize, Bytes>) -> Result<ModelFile> {
        split::whole(&table)?;
        let wrong = |(index, bytes): &(&usize, &Bytes)| {
            table.tensors().get(**index).is_none_or(|t| t.byte_len() != bytes.len() as u64)
        };
        if let Some((index, bytes)) = tensors.iter().find(wrong) {
            return Err(Error::shape(format!("tensor {index} of the file is not {} bytes long", bytes.len())));
        }
        Ok(ModelFile { table, data: Data::Kept { total, tensors } })
    }

    /// A model of tensors from anywhere, described in GGUF's terms. `files` are those whose bytes the sources share.
    ///
    /// # Errors
    /// [`Error::Format`] where two tensors share a name, [`Error::Shape`] where a tensor's bytes are not as many as its shape
    /// takes.
    pub fn from_sources(meta: Meta, tensors: Vec<Described>, files: Vec<Bytes>) -> Result<ModelFile> {
        let (mut table, mut sources) = (Vec::with_capacity(tensors.len()), Vec::with_capacity(tensors.len()));
        for Described { name, dims, dtype, source } in tensors {
            let tensor = Tensor::described(&name, &dims, dtype)?;
            if source.byte_len().is_some_and(|len| len != tensor.byte_len()) {
                let name = shown(name.as_bytes());
                return Err(Error::shape(format!("tensor {name} of {dims:?} does not take the bytes that it has")));
            }
            table.push(tensor);
            sources.push(source);
        }
        let table = Arc::new(Table::new(3, meta, table)?);
        Ok(ModelFile { table, data: Data::Sources { files, tensors: sources } })
    }

    /// The header: metadata and tensor table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The metadata (of a split set: of its first part).
    pub fn meta(&self) -> &Meta {
        self.table.meta()
    }

    /// The tensor table in the file's order. Empty for a vocabulary-only file.
    pub fn tensors(&self) -> &[Tensor] {
        self.table.tensors()
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.table.tensor(name)
    }

    /// The bytes of one of this file's tensors, shared with the file.
    ///
    /// # Errors
    /// [`Error::Format`] where the tensor is another file's and lies outside this one, [`Error::Reload`] where the file
    /// arrived in pieces and these were not kept.
    pub fn bytes(&self, tensor: &Tensor) -> Result<Bytes> {
        self.held(tensor)?.ok_or(Error::Reload("the model's weights are not held here"))
    }

    /// As [`bytes`](ModelFile::bytes); `None` where the file arrived in pieces and these were not kept.
    ///
    /// # Errors
    /// [`Error::Format`] where the tensor is another file's and lies outside this one.
    pub fn held(&self, tensor: &Tensor) -> Result<Option<Bytes>> {
        let parts = match &self.data {
            Data::Parts(parts) => parts,
            Data::Kept { tensors, .. } => {
                return Ok(self.table.index(tensor.name()).and_then(|i| tensors.get(&i)).cloned());
            }
            Data::Sources { .. } => return self.source(tensor)?.bytes().map(Some),
        };
        let range = || {
            let start = usize::try_from(tensor.offset()).ok()?;
            let end = start.checked_add(usize::try_from(tensor.byte_len()).ok()?)?;
            parts.get(tensor.part())?.slice(start..end)
        };
        let name = || shown(tensor.name().as_bytes());
        range().map(Some).ok_or_else(|| Error::format(format!("tensor {} does not lie inside this file", name())))
    }

    /// A tensor's bytes in the pieces that they lie in: one but for tensors that several files hold. `None` as
    /// [`held`](ModelFile::held) has it.
    ///
    /// # Errors
    /// As [`held`](ModelFile::held).
    pub fn pieces(&self, tensor: &Tensor) -> Result<Option<Vec<Bytes>>> {
        match &self.data {
            Data::Sources { .. } => self.source(tensor)?.pieces().map(Some),
            _ => Ok(self.held(tensor)?.map(|bytes| vec![bytes])),
        }
    }

    fn source(&self, tensor: &Tensor) -> Result<&Source> {
        let found = match &self.data {
            Data::Sources { tensors, .. } => self.table.index(tensor.name()).and_then(|i| tensors.get(i)),
            _ => None,
        };
        found.ok_or_else(|| Error::format(format!("tensor {} is another file's", shown(tensor.name().as_bytes()))))
    }

    /// The files' bytes: one for a plain file, one for each part of a split set, none for what arrived in pieces.
    pub fn parts(&self) -> &[Bytes] {
        match &self.data {
            Data::Parts(parts) => parts,
            Data::Sources { files, .. } => files,
            Data::Kept { .. } => &[],
        }
    }

    /// Whether its tensors come from a folder of safetensors, and not from GGUF files.
    pub fn is_folder(&self) -> bool {
        matches!(self.data, Data::Sources { .. })
    }

    /// Whether a file was written to or cut since it was mapped: what was read of it since may be wrong.
    ///
    /// # Errors
    /// [`Error::Changed`] with its name.
    pub fn check_unchanged(&self) -> Result<()> {
        match self.parts().iter().find(|part| part.is_overwritten()) {
            Some(part) => {
                let name = part.path().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
                Err(Error::Changed(name.unwrap_or_else(|| "the model's file".into())))
            }
            None => Ok(()),
        }
    }

    /// Whether opening the files again would give others: they were written to, or others have their names.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn is_outdated(&self) -> bool {
        self.parts().iter().any(|part| part.change().is_some())
    }

    /// Bytes of the file, or of all parts together.
    pub fn byte_len(&self) -> u64 {
        match &self.data {
            Data::Parts(parts) | Data::Sources { files: parts, .. } => parts.iter().map(|p| p.len() as u64).sum(),
            Data::Kept { total, .. } => *total,
        }
    }
}
