//! [`Table`]: what a file's header says: metadata and the tensor table, looked up by name.

use super::tensor::Tensor;
use crate::error::{Error, Result};
use crate::meta::{Meta, shown};

/// The header of a model file or split set.
#[derive(Debug)]
pub struct Table {
    version: u32,
    meta: Meta,
    tensors: Vec<Tensor>,
    /// Indices into `tensors`, sorted by name.
    by_name: Vec<u32>,
    n_files: usize,
}

impl Table {
    /// # Errors
    /// Where two tensors share a name.
    pub(super) fn new(version: u32, meta: Meta, tensors: Vec<Tensor>) -> Result<Table> {
        Table::of_files(version, meta, tensors, 1)
    }

    /// The table of so many files together.
    ///
    /// # Errors
    /// As [`new`](Table::new).
    pub(super) fn of_files(version: u32, meta: Meta, tensors: Vec<Tensor>, n_files: usize) -> Result<Table> {
        let name = |i: &u32| tensors[*i as usize].name();
        let mut by_name: Vec<u32> = (0..tensors.len() as u32).collect();
        by_name.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        if let Some(twice) = by_name.windows(2).find(|w| name(&w[0]) == name(&w[1])) {
            return Err(Error::format(format!("two tensors are named {}", shown(name(&twice[0]).as_bytes()))));
        }
        Ok(Table { version, meta, tensors, by_name, n_files })
    }

    /// Files whose headers these are: the parts of a split set, or one.
    pub(super) fn n_files(&self) -> usize {
        self.n_files
    }

    /// The GGUF version: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The metadata (of a split set: of its first part).
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The tensor table in the file's order. Empty for a vocabulary-only file.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        Some(&self.tensors[self.index(name)?])
    }

    /// Where the tensor of this name stands in [`tensors`](Table::tensors).
    pub fn index(&self, name: &str) -> Option<usize> {
        let at = self.by_name.binary_search_by(|i| self.tensors[*i as usize].name().cmp(name)).ok()?;
        Some(self.by_name[at] as usize)
    }
}
