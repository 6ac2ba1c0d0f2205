//! Orders of columns beside matrices: `x.columns` says for each column of `x.weight` which column of what it multiplies is its
//! own. A folder of GPTQ's act-order has them, whose groups of columns are no neighbours: see `folder`.

use super::weights::Weights;
use crate::adapter::Rows;
use crate::error::{Error, Result};
use crate::plan::{Recorder, WeightId};

/// How the tensor's name ends.
pub(crate) const COLUMNS: &str = ".columns";

impl Weights<'_> {
    /// The order of the columns of the tensors of which rows are used; `None` if they are in their own.
    pub(super) fn columns(
        &self,
        rec: &mut Recorder,
        name: &str,
        parts: &[Rows],
        cols: usize,
    ) -> Result<Option<WeightId>> {
        let beside = |matrix: &str| format!("{}{COLUMNS}", matrix.strip_suffix(".weight").unwrap_or(matrix));
        if !parts.iter().any(|(matrix, ..)| self.has(&beside(matrix))) {
            return Ok(None);
        }
        let mut orders = Vec::new();
        for (matrix, ..) in parts {
            let name = beside(matrix);
            orders.push(if self.has(&name) { Some(self.numbers(&name, cols)?) } else { None });
        }
        let Some(order) = orders.first().cloned().flatten().filter(|_| orders.iter().all(|o| *o == orders[0])) else {
            return Err(Error::unsupported(format!("the matrices of {name} have their columns in different orders")));
        };
        let is_column = |c: &f32| c.fract() == 0.0 && (0.0..cols as f32).contains(c);
        if order.iter().flatten().any(|c| !is_column(c)) {
            return Err(Error::format(format!("the order of the columns of {name} names one that is not there")));
        }
        Ok(Some(self.constant(rec, &format!("{name}{COLUMNS}"), order.as_deref(), cols)))
    }
}
