//! An adapter beside a model: which tensors of the model its matrices are for, and in which order their rows lie there.

use std::collections::HashMap;

use super::gguf::TABLE;
use super::{Adapter, Form, Pair};
use crate::error::{Error, Result};
use crate::file::ModelFile;
use crate::folder::HALVES;
use crate::meta::shown;

/// In which order the rows of an adapter's product are in the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// In the same.
    AsIs,
    /// Heads of so many rows, whose halves are woven into each other.
    Woven(usize),
    /// The other way: neighbours are parted into halves.
    Parted(usize),
}

impl Order {
    /// The adapter's row that is row `r` of the model's matrix.
    fn place(self, r: usize) -> usize {
        match self {
            Order::AsIs => r,
            Order::Woven(len) => r / len * len + r % 2 * (len / 2) + r % len / 2,
            Order::Parted(len) => {
                let (head, i) = (r / len * len, r % len);
                head + if i < len / 2 { 2 * i } else { 2 * (i - len / 2) + 1 }
            }
        }
    }
}

/// What an adapter has for a tensor of a model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matched<'a> {
    pub(super) pair: &'a Pair,
    pub(super) order: Order,
}

impl Adapter {
    /// The model's tensors that it changes.
    ///
    /// # Errors
    /// [`Error::Unsupported`] or [`Error::Shape`] with the first tensor that the model has not, or not in this shape.
    pub(crate) fn matched(&self, file: &ModelFile) -> Result<HashMap<String, Matched<'_>>> {
        let (arch, woven) = (file.meta().arch()?, file.meta().opt_bool(HALVES)?.unwrap_or(false));
        if let Form::Gguf(own) = &self.form
            && own != arch
        {
            let (own, arch) = (shown(own.as_bytes()), shown(arch.as_bytes()));
            return Err(Error::unsupported(format!("the adapter is for {own} models, and this one is of {arch}")));
        }
        let mut all = HashMap::new();
        for pair in &self.pairs {
            let (name, order) = match &self.form {
                // Files have queries and keys as they rotate; a folder that needs another order says so.
                Form::Gguf(_) if woven && is_query_or_key(&pair.name) => {
                    (pair.name.clone(), Order::Parted(head(file)?))
                }
                Form::Gguf(_) => (pair.name.clone(), Order::AsIs),
                Form::Peft(translated) => {
                    let theirs = translated(arch, &pair.name, file.is_folder())?;
                    let order = if theirs.woven && !file.is_folder() { Order::Woven(head(file)?) } else { Order::AsIs };
                    (theirs.name, order)
                }
            };
            expect_shape(file, &name, pair, order)?;
            if all.insert(name, Matched { pair, order }).is_some() {
                let name = shown(pair.name.as_bytes());
                return Err(Error::format(format!("the adapter has two pairs of matrices for {name}")));
            }
        }
        Ok(all)
    }
}

fn is_query_or_key(name: &str) -> bool {
    name.ends_with(".attn_q.weight") || name.ends_with(".attn_k.weight")
}

/// Rows of a query or key head.
fn head(file: &ModelFile) -> Result<usize> {
    let meta = file.meta();
    let count = |name: &str| {
        let value = meta.get(&format!("{}.{name}", meta.arch().ok()?))?;
        let number = match value.as_array() {
            Some(array) => array.iter().find_map(|v| v.as_u64().filter(|n| *n > 0)),
            None => value.as_u64(),
        };
        number.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0)
    };
    let width = || Some(count("embedding_length")? / count("attention.head_count")?);
    let len = count("attention.key_length").or_else(width).filter(|len| *len > 0 && len.is_multiple_of(2));
    len.ok_or_else(|| Error::format("the model does not say how long its heads are"))
}

/// Refuses matrices for a tensor that the model has not, or not in their shape.
fn expect_shape(file: &ModelFile, name: &str, pair: &Pair, order: Order) -> Result<()> {
    // A head that is the token table, too.
    let shared = || file.tensor(TABLE).filter(|_| name == "output.weight");
    let Some(tensor) = file.tensor(name).or_else(shared) else {
        let name = shown(name.as_bytes());
        return Err(Error::unsupported(format!(
            "the adapter changes tensor {name}, which this model has not: it belongs to another model"
        )));
    };
    let dim = |i: usize| tensor.dims().get(i).copied().unwrap_or(1);
    let [cols, rows] = pair.shape();
    // The rows of a table are the columns of what looks them up.
    let wanted = if name == TABLE { [rows as u64, cols as u64] } else { [cols as u64, rows as u64] };
    let whole_heads = match order {
        Order::AsIs => true,
        Order::Woven(len) | Order::Parted(len) => rows.is_multiple_of(len),
    };
    if tensor.dims().len() > 2 || wanted != [dim(0), dim(1)] || !whole_heads {
        return Err(Error::shape(format!(
            "the adapter's matrices for {} are made for {} x {}, and the model's tensor is {:?}: it belongs to another model",
            shown(name.as_bytes()),
            wanted[0],
            wanted[1],
            tensor.dims()
        )));
    }
    Ok(())
}

impl Matched<'_> {
    pub(crate) fn rank(&self) -> usize {
        self.pair.rank()
    }

    /// `[rank, columns]` of the first matrix; beside a table `[rows, rank]`.
    pub(crate) fn a(&self, table: bool) -> Result<Vec<f32>> {
        if table { self.pair.a_turned() } else { self.pair.a() }
    }

    /// `[rows, rank]` of the second matrix in the model's order, with the factor of the product.
    pub(crate) fn b(&self) -> Result<Vec<f32>> {
        let (values, rank) = (self.pair.b()?, self.rank());
        if self.order == Order::AsIs {
            return Ok(values);
        }
        let rows = values.len() / rank;
        Ok((0..rows).flat_map(|r| values[self.order.place(r) * rank..][..rank].iter().copied()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weaving_and_parting_undo_each_other() {
        for r in 0..24 {
            assert_eq!(Order::Woven(8).place(Order::Parted(8).place(r)), r);
            assert_eq!(Order::Parted(8).place(Order::Woven(8).place(r)), r);
        }
        assert_eq!((0..8).map(|r| Order::Woven(8).place(r)).collect::<Vec<_>>(), [0, 4, 1, 5, 2, 6, 3, 7]);
    }
}
