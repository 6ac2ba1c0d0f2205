//! Adapters that are merged into a file's weights: what each adds to the rows of a tensor.

use std::collections::HashMap;

use super::named;
use crate::adapter::{Attached, Matched};
use crate::error::{Error, Result};
use crate::file::{ModelFile, Tensor};
use crate::folder::{FACTORS, SCALES};
use crate::meta::shown;

/// The token table, which adapters change by rows and not by columns.
const TABLE: &str = "token_embd.weight";
const HEAD: &str = "output.weight";

/// What adapters change, by tensors.
#[derive(Debug, Default)]
pub(super) struct Adapters<'a> {
    by_tensor: HashMap<String, Vec<Share<'a>>>,
}

/// What an adapter has for a tensor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share<'a> {
    matched: Matched<'a>,
    scale: f32,
}

/// The matrices of a share, at hand.
#[derive(Debug)]
pub(super) struct Delta {
    a: Vec<f32>,
    b: Vec<f32>,
    rank: usize,
    table: bool,
}

impl<'a> Adapters<'a> {
    /// What these adapters change of a file.
    ///
    /// # Errors
    /// An adapter that is not made for the model, or that changes what cannot be merged, by name.
    pub(super) fn new(file: &ModelFile, merged: &'a [Attached]) -> Result<Adapters<'a>> {
        let mut by_tensor: HashMap<String, Vec<Share<'a>>> = HashMap::new();
        for of in merged {
            let blamed = |e: Error| of.blamed(&e);
            for (name, matched) in of.adapter.matched(file).map_err(blamed)? {
                expect_mergeable(file, &name).map_err(blamed)?;
                by_tensor.entry(name).or_default().push(Share { matched, scale: of.scale });
            }
        }
        Ok(Adapters { by_tensor })
    }

    /// What is added to a tensor.
    pub(super) fn of(&self, tensor: &Tensor) -> Vec<Share<'a>> {
        self.by_tensor.get(tensor.name()).cloned().unwrap_or_default()
    }
}

fn expect_mergeable(file: &ModelFile, name: &str) -> Result<()> {
    let flag = |key: &str| file.meta().opt_bool(key).ok().flatten() == Some(true);
    let refused = |why: &str| Err(Error::unsupported(format!("tensor {} {why}", shown(name.as_bytes()))));
    let at_ends = [TABLE, HEAD].contains(&name);
    if at_ends && file.tensor(HEAD).is_none() {
        return refused("is token table and head at once, and the adapter is for one of the two: it cannot be merged");
    }
    if at_ends && flag(SCALES) {
        return refused("is multiplied by a factor when the file is written: it cannot be merged");
    }
    let beside = name.strip_suffix(".weight").map(|base| format!("{base}.scale"));
    if !flag(FACTORS) && beside.is_some_and(|beside| file.tensor(&beside).is_some()) {
        return refused("has a factor beside it: it cannot be merged");
    }
    Ok(())
}

impl Share<'_> {
    pub(super) fn delta(&self, tensor: &Tensor) -> Result<Delta> {
        let table = tensor.name() == TABLE;
        let (a, mut b) = (self.matched.a(table)?, self.matched.b()?);
        b.iter_mut().for_each(|x| *x *= self.scale);
        let rank = self.matched.rank();
        if rank == 0 || !a.len().is_multiple_of(rank) {
            return Err(Error::shape(format!("the adapter's matrices for {} are damaged", named(tensor))));
        }
        Ok(Delta { a, b, rank, table })
    }
}

impl Delta {
    /// Adds to row `r` of the old file.
    pub(super) fn add(&self, r: usize, out: &mut [f32]) {
        let rank = self.rank;
        if self.table {
            let a = &self.a[r * rank..][..rank];
            for (x, b) in out.iter_mut().zip(self.b.chunks_exact(rank)) {
                *x += a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            }
            return;
        }
        let cols = out.len();
        for (k, factor) in self.b[r * rank..][..rank].iter().enumerate() {
            out.iter_mut().zip(&self.a[k * cols..][..cols]).for_each(|(x, a)| *x += factor * a);
        }
    }
}
