//! What follows the rows of a text, recorded: their pooling, and the matrices that make of it an embedding or a score.

use super::forward::Part;
use super::spec::Pooling;
use crate::error::{Error, Result};
use crate::plan::{Norm, Product, Rows, Slot};

/// Matrices behind the pooled rows of some models that make embeddings.
const DENSE: [&str; 2] = ["dense_2", "dense_3"];

impl Part<'_> {
    /// The embedding or score of what is pooled of `x`, normed. Steps that want none pass all of this over.
    pub(super) fn pooled(&mut self, x: Slot, norm: Option<Norm>) -> Result<Slot> {
        let normed = match norm {
            Some(norm) => self.only_pools(|me| me.rec.norm(me.rec.all(x), norm))?,
            None => x,
        };
        self.only_pools(|me| {
            let pooled = me.rec.pool(normed)?;
            let out = if me.spec.pooling == Pooling::Rank { me.score(pooled)? } else { me.matrices(pooled)? };
            me.rec.gives_pooled(out);
            Ok(out)
        })
    }

    fn only_pools<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let before = self.rec.set_when(Rows::Pools);
        let result = f(self);
        self.rec.set_when(before);
        result
    }

    fn matrices(&mut self, mut x: Slot) -> Result<Slot> {
        for name in DENSE {
            if self.has(&format!("{name}.weight")) {
                let cols = self.rec.all(x).cols;
                let product = self.all_rows(name, cols)?;
                x = self.rec.linear(x, product)?;
            }
        }
        Ok(x)
    }

    /// A score for each label of the head that ranks; without such a head the rows themselves, which are no score.
    fn score(&mut self, mut x: Slot) -> Result<Slot> {
        let width = self.spec.width;
        if self.has("cls.weight") {
            let product = self.all_rows("cls", width)?;
            x = self.rec.linear_act(x, product, self.spec.ranking.act)?;
        }
        let cols = self.rec.all(x).cols;
        let norm = self.part_norm("cls.norm", cols)?;
        x = self.behind(norm, x)?;
        if self.has("cls.output.weight") {
            let product = self.all_rows("cls.output", cols)?;
            x = self.rec.linear(x, product)?;
        }
        Ok(x)
    }

    /// The product with all rows of a matrix.
    fn all_rows(&mut self, name: &str, cols: usize) -> Result<Product> {
        let dims = self.weights.dims(&format!("{name}.weight"));
        let rows = dims.map(|dims| dims.get(1).copied().unwrap_or(1)).and_then(|n| usize::try_from(n).ok());
        let rows = rows.ok_or_else(|| Error::format(format!("tensor {name}.weight is missing")))?;
        self.matrix(name, rows, cols)
    }
}
