//! Adapters (LoRA; Hu et al. 2021): files that change the matrices of a model, `W x + scale * alpha / rank * B (A x)`, as GGUF
//! or as PEFT publishes them. Read and checked here (`gguf`, `peft`), brought together with a model's tensors (`matched`) and
//! with its recording (`recorded`).

mod gguf;
mod matched;
mod peft;
mod recorded;

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::bytes::Bytes;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::folder::Theirs;
use crate::meta::shown;
use crate::quant;

pub(crate) use gguf::is_adapter;
pub(crate) use matched::Matched;
pub(crate) use recorded::{Beside, Rows};

/// Numbers of adapters are at most so large, which keeps products with them finite: what a row does not use must not harm it.
const MOST: f32 = 1e6;

/// The file's form, and what it says of the model that it is for.
#[derive(Debug, Clone)]
enum Form {
    /// GGUF, for models of this architecture.
    Gguf(String),
    /// A folder of PEFT: names are those of folders, which this puts in GGUF's terms. A function, so that the tables behind it
    /// are in no program that opens no such adapter, as pages do not.
    Peft(fn(arch: &str, name: &str, in_folder: bool) -> Result<Theirs>),
}

impl Form {
    /// What digests of adapters begin with.
    fn text(&self) -> String {
        match self {
            Form::Gguf(arch) => format!("Gguf({arch:?})"),
            Form::Peft(_) => "Peft".into(),
        }
    }
}

/// A matrix of an adapter, in the file's own bytes.
#[derive(Debug, Clone)]
struct Thin {
    dtype: DType,
    rows: usize,
    cols: usize,
    bytes: Bytes,
}

/// What an adapter has for one matrix of a model.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The matrix, as the file calls it: with `.weight` in GGUF files, without it in folders.
    name: String,
    /// `[rank, columns]`; of a token table `[rank, tokens]`.
    a: Thin,
    /// Whether `a` is there with its sides exchanged: `[tokens, rank]`.
    a_on_side: bool,
    /// `[rows, rank]`; of a token table `[columns, rank]`.
    b: Thin,
    /// On the product: `alpha / rank`, or 1.
    factor: f32,
}

/// An adapter, for any model that has its matrices.
#[derive(Debug)]
pub struct Adapter {
    form: Form,
    pairs: Vec<Pair>,
    digest: [u8; 32],
    alpha: Option<f32>,
    task_name: String,
    prompt_prefix: String,
}

/// An adapter that a model was opened with.
#[derive(Debug, Clone)]
pub struct Attached {
    /// What people call it.
    pub name: String,
    /// The adapter.
    pub adapter: Arc<Adapter>,
    /// How much of it is used where a request says nothing.
    pub scale: f32,
}

impl Thin {
    /// The numbers as f32.
    fn values(&self, of: &str) -> Result<Vec<f32>> {
        let wrong = |what: &str| Error::format(format!("the adapter's matrices for {} {what}", shown(of.as_bytes())));
        let n = self.rows.checked_mul(self.cols).ok_or_else(|| wrong("are too large"))?;
        let mut values = Vec::new();
        values.try_reserve_exact(n).map_err(|_| wrong("are too large"))?;
        values.resize(n, 0.0);
        let row_bytes = self.dtype.bytes_for(self.cols).ok_or_else(|| wrong("have rows of no whole blocks"))?;
        if row_bytes.checked_mul(self.rows) != Some(self.bytes.len()) {
            return Err(wrong("end before their last row"));
        }
        for (row, out) in self.bytes.chunks_exact(row_bytes.max(1)).zip(values.chunks_exact_mut(self.cols.max(1))) {
            quant::decode(self.dtype, row, out)?;
        }
        match values.iter().all(|x| x.abs() <= MOST) {
            true => Ok(values),
            false => Err(wrong("hold numbers that are none, or beyond a million: the file is damaged")),
        }
    }
}

/// Rows and columns exchanged.
fn turned(values: &[f32], cols: usize) -> Vec<f32> {
    let rows = values.len() / cols.max(1);
    (0..cols).flat_map(|c| (0..rows).map(move |r| values[r * cols + c])).collect()
}

impl Pair {
    /// The rank.
    pub fn rank(&self) -> usize {
        self.b.cols
    }

    /// The matrix, as the file calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Columns and rows of the matrix that is changed.
    fn shape(&self) -> [usize; 2] {
        [if self.a_on_side { self.a.rows } else { self.a.cols }, self.b.rows]
    }

    /// `[rank, columns]`.
    fn a(&self) -> Result<Vec<f32>> {
        let values = self.a.values(&self.name)?;
        Ok(if self.a_on_side { turned(&values, self.a.cols) } else { values })
    }

    /// `[columns, rank]`.
    fn a_turned(&self) -> Result<Vec<f32>> {
        let values = self.a.values(&self.name)?;
        Ok(if self.a_on_side { values } else { turned(&values, self.a.cols) })
    }

    /// `[rows, rank]`, with the factor of the product.
    fn b(&self) -> Result<Vec<f32>> {
        let mut values = self.b.values(&self.name)?;
        values.iter_mut().for_each(|x| *x *= self.factor);
        Ok(values)
    }
}

impl Adapter {
    /// Opens an adapter: a GGUF file, or a folder with `adapter_config.json` and `adapter_model.safetensors` (any of the two
    /// files stands for it).
    ///
    /// # Errors
    /// Where files cannot be read, are damaged, or hold what this version does not support.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(path: &std::path::Path) -> Result<Adapter> {
        let is_part = path.extension().is_some_and(|e| e == "safetensors" || e == "json") && path.is_file();
        let folder = if is_part { path.parent().unwrap_or(path) } else { path };
        if is_part || path.is_dir() { peft::open(folder) } else { gguf::open(path) }
    }

    /// An adapter of the bytes of a GGUF file.
    ///
    /// # Errors
    /// As [`Adapter::open`].
    pub fn from_bytes(bytes: Bytes) -> Result<Adapter> {
        gguf::read(&crate::file::ModelFile::from_bytes(bytes)?)
    }

    /// An adapter of the bytes of PEFT's two files.
    ///
    /// # Errors
    /// As [`Adapter::open`].
    pub fn from_peft(config: &[u8], weights: &Bytes) -> Result<Adapter> {
        peft::read(config, weights)
    }

    fn new(form: Form, pairs: Vec<Pair>, alpha: Option<f32>) -> Result<Adapter> {
        let mut pairs = pairs;
        pairs.sort_by(|a, b| a.name.cmp(&b.name));
        if pairs.is_empty() {
            return Err(Error::format("the adapter changes no matrix: no pair of lora_a and lora_b is in its file"));
        }
        if let Some(twice) = pairs.windows(2).find(|w| w[0].name == w[1].name) {
            let name = shown(twice[0].name.as_bytes());
            return Err(Error::format(format!("the adapter has two pairs of matrices for {name}")));
        }
        for pair in &pairs {
            let (name, rank) = (shown(pair.name.as_bytes()), pair.rank());
            let a_rank = if pair.a_on_side { pair.a.cols } else { pair.a.rows };
            if a_rank != rank || rank == 0 {
                return Err(Error::shape(format!(
                    "the adapter's matrices for {name} do not fit each other: one has rank {a_rank}, the other {rank}"
                )));
            }
            if !(pair.factor.is_finite() && pair.factor.abs() <= MOST) {
                return Err(Error::format(format!("the adapter's factor for {name} is {}", pair.factor)));
            }
        }
        let digest = digest(&form, &pairs);
        Ok(Adapter { form, pairs, digest, alpha, task_name: String::new(), prompt_prefix: String::new() })
    }

    /// The architecture that it is for, where the file says it.
    pub fn arch(&self) -> Option<&str> {
        match &self.form {
            Form::Gguf(arch) => Some(arch),
            Form::Peft(_) => None,
        }
    }

    /// What it has for each matrix, by the matrices' names.
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    /// The smallest and the largest rank.
    pub fn ranks(&self) -> (usize, usize) {
        let ranks = || self.pairs.iter().map(Pair::rank);
        (ranks().min().unwrap_or(0), ranks().max().unwrap_or(0))
    }

    /// Numbers in all its matrices.
    pub fn n_params(&self) -> u64 {
        let n = |thin: &Thin| thin.rows as u64 * thin.cols as u64;
        self.pairs.iter().map(|pair| n(&pair.a) + n(&pair.b)).sum()
    }

    /// The types of its matrices, each once.
    pub fn dtypes(&self) -> Vec<DType> {
        let mut types = Vec::new();
        for dtype in self.pairs.iter().flat_map(|pair| [pair.a.dtype, pair.b.dtype]) {
            if !types.contains(&dtype) {
                types.push(dtype);
            }
        }
        types
    }

    /// The numerator of the factor of its products, where the file has one.
    pub fn alpha(&self) -> Option<f32> {
        self.alpha
    }

    /// What the file calls the task that it is for; empty where it says nothing.
    pub fn task_name(&self) -> &str {
        &self.task_name
    }

    /// What prompts of the task begin with; empty where the file says nothing.
    pub fn prompt_prefix(&self) -> &str {
        &self.prompt_prefix
    }

    /// What tells it from any other: a hash of all that it holds.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

/// Hashes everything that products with an adapter depend on.
fn digest(form: &Form, pairs: &[Pair]) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(b"ir adapter");
    let mut text = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    text(form.text().as_bytes());
    for pair in pairs {
        text(pair.name.as_bytes());
        for thin in [&pair.a, &pair.b] {
            text(format!("{} {} {}", thin.dtype, thin.rows, thin.cols).as_bytes());
            text(&thin.bytes);
        }
        text(&pair.factor.to_le_bytes());
    }
    hash.finalize().into()
}
