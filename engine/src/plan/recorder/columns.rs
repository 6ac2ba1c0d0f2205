//! Orders of columns, recorded: in front of products with matrices that have their columns in another order.

use super::Recorder;
use crate::error::Result;
use crate::plan::{Norm, Op, Slot, WeightId};

impl Recorder {
    /// Products with this weight take the columns of what they multiply in this order from here on.
    pub fn reorder(&mut self, weight: WeightId, columns: WeightId) {
        self.orders.insert(weight, columns);
    }

    /// The columns of `x` in this order: numbers that are none of its columns stand for the last one.
    pub fn take_cols(&mut self, x: Slot, columns: WeightId) -> Result<Slot> {
        let shape = self.shape(x);
        self.expect_rows(columns, shape.cols)?;
        let out = self.slot(shape.rows, shape.cols);
        self.push(Op::TakeCols { x, columns, out });
        Ok(out)
    }

    /// What a weight multiplies, and the norm that is left to its product: a norm is of columns in their own order.
    pub(super) fn in_order(&mut self, x: Slot, norm: Option<Norm>, weight: WeightId) -> Result<(Slot, Option<Norm>)> {
        let Some(columns) = self.orders.get(&weight).copied() else { return Ok((x, norm)) };
        let x = match norm {
            Some(norm) => self.norm(self.all(x), norm)?,
            None => x,
        };
        Ok((self.take_cols(x, columns)?, None))
    }
}
