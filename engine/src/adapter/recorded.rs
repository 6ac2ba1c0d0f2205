//! Adapters in a recording: beside each matrix that some adapter changes, the thin matrices of all of them as two weights.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::gguf::TABLE;
use super::{Attached, Matched};
use crate::bytes::Bytes;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::file::ModelFile;
use crate::meta::shown;
use crate::plan::{Adapted, Recorder, Segment, Weight, WeightId};

/// Ranks are filled up with zeros to a multiple of this.
const RANKS: usize = 4;

/// Rows of a tensor: its name, rows in all, and the ranges that are used.
pub(crate) type Rows = (String, usize, Vec<Range<usize>>);

/// The adapters of a model that is being recorded.
#[derive(Debug, Default)]
pub(crate) struct Beside<'a> {
    attached: &'a [Attached],
    matched: Vec<HashMap<String, Matched<'a>>>,
    /// Which of their pairs are beside a recorded product.
    used: RefCell<HashSet<(usize, String)>>,
}

impl<'a> Beside<'a> {
    pub(crate) fn new(attached: &'a [Attached], file: &ModelFile) -> Result<Beside<'a>> {
        let matched = attached.iter().map(|of| of.adapter.matched(file).map_err(|e| of.blamed(&e)));
        Ok(Beside { attached, matched: matched.collect::<Result<_>>()?, used: RefCell::default() })
    }

    /// Adapters beside the product with rows of tensors, one after the other.
    pub(crate) fn product(
        &self,
        rec: &mut Recorder,
        weight: WeightId,
        name: &str,
        parts: &[Rows],
        cols: usize,
    ) -> Result<()> {
        let rank = self.most(|of| parts.iter().filter_map(|part| of.get(&part.0)).map(Matched::rank).sum());
        let Some(rank) = rank else { return Ok(()) };
        let rows: usize = parts.iter().flat_map(|part| &part.2).map(|range| range.len()).sum();
        let n = self.attached.len();
        let (mut a, mut b) = (zeros(n * rank, cols)?, zeros(rows, n * rank)?);
        for (i, of) in self.matched.iter().enumerate() {
            // The columns of each part's matrix follow one another; its rows are those of the part alone.
            let (mut at, mut row) = (i * rank, 0);
            for (tensor, _, ranges) in parts {
                let taken: usize = ranges.iter().map(|range| range.len()).sum();
                if let Some(matched) = of.get(tensor) {
                    let (r, values) = (matched.rank(), self.values(i, || matched.b())?);
                    a[at * cols..(at + r) * cols].copy_from_slice(&self.values(i, || matched.a(false))?);
                    for (row, from) in (row..).zip(ranges.iter().cloned().flatten()) {
                        b[row * n * rank + at..][..r].copy_from_slice(&values[from * r..][..r]);
                    }
                    self.note(i, tensor);
                    at += r;
                }
                row += taken;
            }
        }
        let (a, b) = (matrix(rec, name, "lora_a", a, cols), matrix(rec, name, "lora_b", b, n * rank));
        rec.adapt(weight, Adapted { a, b });
        Ok(())
    }

    /// Adapters beside the token table, of `width` columns.
    pub(crate) fn table(&self, rec: &mut Recorder, table: WeightId, rows: usize, width: usize) -> Result<()> {
        let Some(rank) = self.most(|of| of.get(TABLE).map_or(0, Matched::rank)) else { return Ok(()) };
        let n = self.attached.len();
        let (mut a, mut b) = (zeros(rows, n * rank)?, zeros(width, n * rank)?);
        for (i, of) in self.matched.iter().enumerate() {
            let Some(matched) = of.get(TABLE) else { continue };
            let r = matched.rank();
            for (to, from) in [(&mut a, self.values(i, || matched.a(true))?), (&mut b, self.values(i, || matched.b())?)]
            {
                for (to, from) in to.chunks_exact_mut(n * rank).zip(from.chunks_exact(r)) {
                    to[i * rank..][..r].copy_from_slice(from);
                }
            }
            self.note(i, TABLE);
        }
        let (a, b) =
            (matrix(rec, "token_embd", "lora_a", a, n * rank), matrix(rec, "token_embd", "lora_b", b, n * rank));
        rec.adapt_table(table, Adapted { a, b });
        Ok(())
    }

    /// The largest rank that an adapter has, filled up; `None` if all are 0.
    fn most(&self, rank: impl Fn(&HashMap<String, Matched<'a>>) -> usize) -> Option<usize> {
        let most = self.matched.iter().map(rank).max().unwrap_or(0);
        (most > 0).then(|| most.next_multiple_of(RANKS))
    }

    fn values(&self, i: usize, f: impl FnOnce() -> Result<Vec<f32>>) -> Result<Vec<f32>> {
        f().map_err(|e| self.attached[i].blamed(&e))
    }

    fn note(&self, i: usize, tensor: &str) {
        self.used.borrow_mut().insert((i, tensor.to_owned()));
    }

    /// # Errors
    /// A tensor that an adapter changes and no recorded product adapts.
    pub(crate) fn expect_all_used(&self) -> Result<()> {
        let used = self.used.borrow();
        for (i, (of, matched)) in self.attached.iter().zip(&self.matched).enumerate() {
            let mut unused: Vec<&String> =
                matched.keys().filter(|name| !used.contains(&(i, (*name).clone()))).collect();
            unused.sort();
            if let Some(name) = unused.first() {
                return Err(of.blamed(&Error::unsupported(format!(
                    "tensor {} is changed by it, and products with that take no adapters: merge it into the model (ir convert --merge)",
                    shown(name.as_bytes())
                ))));
            }
        }
        Ok(())
    }
}

impl Attached {
    /// An error with the adapter's name in front.
    pub(crate) fn blamed(&self, error: &Error) -> Error {
        Error::unsupported(format!("the adapter {}: {error}", shown(self.name.as_bytes())))
    }
}

fn zeros(rows: usize, cols: usize) -> Result<Vec<f32>> {
    let too_large = || Error::limit("the adapters' matrices are too large for this machine: load fewer of them");
    let n = rows.checked_mul(cols).filter(|n| *n < isize::MAX as usize / 4).ok_or_else(too_large)?;
    let mut values = Vec::new();
    values.try_reserve_exact(n).map_err(|_| too_large())?;
    values.resize(n, 0.0);
    Ok(values)
}

fn matrix(rec: &mut Recorder, name: &str, half: &str, values: Vec<f32>, cols: usize) -> WeightId {
    let rows = values.len() / cols.max(1);
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let segment = Segment {
        name: String::new(),
        dtype: DType::F32,
        rows,
        bytes: Bytes::from(bytes),
        row_bytes: 4 * cols,
        offset: 0,
    };
    rec.weight(Weight { name: format!("{name}.{half}"), cols, segments: vec![segment] })
}
