//! [`ImportanceMatrix`]: how much each input column of a matrix matters, as llama.cpp's `imatrix` writes it: a GGUF with the
//! sums of squares of what each column was multiplied with, and how often.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::file::ModelFile;
use crate::quant;

/// Weights of columns, by the names of matrices.
#[derive(Debug, Clone, Default)]
pub struct ImportanceMatrix {
    entries: BTreeMap<String, Vec<f32>>,
}

impl ImportanceMatrix {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Format`] where it is no importance matrix.
    pub fn read(file: &ModelFile) -> Result<ImportanceMatrix> {
        let mut entries = BTreeMap::new();
        for tensor in file.tensors() {
            let Some(name) = tensor.name().strip_suffix(".in_sum2") else { continue };
            let values = |t: &crate::file::Tensor| -> Result<Vec<f32>> {
                let mut out = vec![0.0; usize::try_from(t.n_elements()).unwrap_or(usize::MAX)];
                quant::decode(t.dtype()?, &file.bytes(t)?, &mut out)?;
                Ok(out)
            };
            let counts = file.tensor(&format!("{name}.counts"));
            let counts = counts.ok_or_else(|| Error::format(format!("the counts of {name:?} are missing")))?;
            let (sums, counts) = (values(tensor)?, values(counts)?);
            if counts.is_empty() || !sums.len().is_multiple_of(counts.len()) {
                return Err(Error::format(format!("the counts of {name:?} do not go with its sums")));
            }
            let cols = sums.len() / counts.len();
            let mean = |(i, sum): (usize, &f32)| {
                // What was never used is as important as anything.
                let n = counts[i / cols];
                if n > 0.0 { sum / n } else { 1.0 }
            };
            let weights: Vec<f32> = sums.iter().enumerate().map(mean).collect();
            if weights.iter().any(|w| !w.is_finite() || *w < 0.0) {
                return Err(Error::format(format!("the importance of {name:?} is no number somewhere")));
            }
            entries.insert(name.to_owned(), weights);
        }
        if entries.is_empty() {
            return Err(Error::format("this file holds no importance matrix: make one with `ir imatrix`"));
        }
        Ok(ImportanceMatrix { entries })
    }

    /// Matrices that it knows of.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it knows of none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The weights of the columns of one of several matrices.
    pub(super) fn of(&self, name: &str, matrix: usize, n: usize, cols: usize) -> Option<&[f32]> {
        let all = self.entries.get(name)?;
        match all.len() {
            len if len == cols => Some(all),
            len if len == cols.checked_mul(n)? => all.get(matrix * cols..(matrix + 1) * cols),
            _ => None,
        }
    }
}
