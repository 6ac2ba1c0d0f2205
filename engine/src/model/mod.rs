//! From a file to a model: family, spec, weights, recorded plan, tokenizer and chat template. No device.

mod altup;
mod attention;
mod banked;
pub(crate) mod columns;
mod common;
mod decoder;
mod embedded;
mod experts;
mod factors;
mod families;
mod feed;
mod forward;
mod hyper;
mod kda;
mod latent;
mod mamba;
mod mixers;
mod parts;
mod pooled;
mod recurrent;
mod rope;
mod source;
mod spec;
mod weights;
mod words;

use std::sync::Arc;

pub use crate::adapter::{Adapter, Attached, Pair};
pub use crate::folder::{families as folder_families, present};
#[cfg(not(target_arch = "wasm32"))]
pub use crate::folder::{open_file, open_natural};
pub use families::{Prefix, task_prefixes};
pub use spec::{
    Beside, Cycles, Embedding, Encoder, Ffn, Head, Heads, Hyper, Index, Kda, Latent, Layer, Lightning, Mixer,
    ModelSpec, Moe, NormStyle, Normed, Norms, OutputKind, Pooling, Ranking, RelativeTable, Route, Second, Ssm, Streams,
    TokenTypes, Wiring,
};
pub use weights::read_at_recording;

use crate::bytes::Bytes;
use crate::error::{Error, Result};
use crate::file::ModelFile;
use crate::meta::Meta;
use crate::plan::Plan;
use crate::text::Tokenizer;
use crate::text::chat::ChatTemplate;

/// Adapters are used so many times at most, either way.
const MOST_SCALE: f32 = 1e4;

/// How to open a model.
#[derive(Debug, Clone, Default)]
pub struct ModelOptions {
    /// Read the file into memory instead of mapping it.
    pub no_mmap: bool,
    /// Overrides the pre-tokenizer that the file names.
    pub tokenizer_pre: Option<String>,
    /// Adapters that requests may use.
    pub adapters: Vec<Attached>,
}

/// What kind of model a file holds and its recorded computation, without a tokenizer: for looking at a model, and for running
/// it on token ids ([`crate::device::Device::prepare`]), as files without a tokenizer can be.
///
/// # Errors
/// Where the file holds what this version does not support, or contradicts itself.
pub fn inspect(file: &ModelFile) -> Result<(ModelSpec, Plan)> {
    inspect_with(file, &[])
}

/// As [`inspect`], with adapters that rows may use.
///
/// # Errors
/// As [`inspect`], and where an adapter is not made for the model.
pub fn inspect_with(file: &ModelFile, adapters: &[Attached]) -> Result<(ModelSpec, Plan)> {
    if crate::adapter::is_adapter(file.meta()) {
        return Err(Error::unsupported(
            "this file is an adapter and no model: give it beside its model, as in ir run MODEL --lora FILE",
        ));
    }
    if file.tensors().is_empty() {
        return Err(Error::unsupported(
            "this file holds a vocabulary and no weights: it can be tokenized with, not run",
        ));
    }
    let spec = families::spec(file)?;
    let plan = forward::record(&spec, file, adapters)?;
    Ok((spec, plan))
}

/// An opened model: everything but a device. Weights stay in the file's bytes.
#[derive(Debug)]
pub struct Model {
    file: ModelFile,
    spec: ModelSpec,
    plan: Arc<Plan>,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    adapters: Vec<Attached>,
}

impl Model {
    /// Opens a model: a GGUF file or a folder of safetensors. Nothing is decoded and the weights are not read yet.
    ///
    /// # Errors
    /// Where the file cannot be read, is damaged, or holds what this version does not support.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(path: &std::path::Path, options: &ModelOptions) -> Result<Model> {
        Model::from_file(open_file(path, options.no_mmap)?, options)
    }

    /// A model in memory, for example an embedded one.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_bytes(bytes: Bytes, options: &ModelOptions) -> Result<Model> {
        Model::from_file(ModelFile::from_bytes(bytes)?, options)
    }

    /// A model whose file is open already.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_file(file: ModelFile, options: &ModelOptions) -> Result<Model> {
        let adapters = options.adapters.clone();
        let (spec, plan) = inspect_with(&file, &adapters)?;
        let plan = Arc::new(plan);
        let tokenizer = Tokenizer::from_meta(file.meta(), options.tokenizer_pre.as_deref())?;
        let template = ChatTemplate::from_meta(file.meta(), &|text| tokenizer.id_of(text).is_some())?;
        Ok(Model { file, spec, plan, tokenizer, template, adapters })
    }

    /// The same model with more of its file at hand: recorded anew, with the tokenizer and template that it has.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn with_file(self, file: ModelFile) -> Result<Model> {
        let (spec, plan) = inspect_with(&file, &self.adapters)?;
        Ok(Model { file, spec, plan: Arc::new(plan), ..self })
    }

    /// The adapters that requests may use, by their numbers.
    pub fn adapters(&self) -> &[Attached] {
        &self.adapters
    }

    /// Refuses adapters that the model was not opened with, and scales that are none.
    ///
    /// # Errors
    /// [`Error::Request`] with the first that is wrong.
    pub fn check_adapters(&self, asked: &[(usize, f32)]) -> Result<()> {
        for (i, scale) in asked {
            if *i >= self.adapters.len() {
                return Err(Error::request(match self.adapters.len() {
                    0 => format!(
                        "adapter {i} is asked for, and the model was loaded without adapters: load it with --lora"
                    ),
                    n => format!(
                        "adapter {i} is asked for, and the model was loaded with {n}: their numbers are 0 to {}",
                        n - 1
                    ),
                }));
            }
            if !scale.is_finite() || scale.abs() > MOST_SCALE {
                return Err(Error::request(format!(
                    "an adapter's scale is {scale}: it must be between -{MOST_SCALE} and {MOST_SCALE}"
                )));
            }
        }
        Ok(())
    }

    /// Whether the weights are at hand. Those of a file that arrived in pieces may be on a device alone.
    pub fn has_weights(&self) -> bool {
        let mut segments = self.plan.weights.iter().flat_map(|w| &w.segments);
        segments.all(|s| s.bytes.len() as u64 == s.n_bytes())
    }

    /// The file's metadata.
    pub fn meta(&self) -> &Meta {
        self.file.meta()
    }

    /// The file: tensors, sizes, parts.
    pub fn file(&self) -> &ModelFile {
        &self.file
    }

    /// What kind of model it is.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Refuses to generate with a model that has no head.
    ///
    /// # Errors
    /// Says what the model is for instead.
    pub fn expect_head(&self) -> Result<()> {
        let (family, ranks) = (&self.spec.family, self.ranks());
        match (self.spec.generates, ranks) {
            (true, _) => Ok(()),
            (false, true) => Err(Error::unsupported(format!(
                "this {family} model ranks texts and generates none: use `ir rerank` or /v1/rerank"
            ))),
            (false, false) => Err(Error::unsupported(format!(
                "this {family} model makes embeddings and generates no text: use `ir embed` or /v1/embeddings"
            ))),
        }
    }

    /// Whether it scores pairs of texts: its file says so and has a head for it.
    pub fn ranks(&self) -> bool {
        let has = |tensor| self.file.tensor(tensor).is_some();
        self.spec.pooling == Pooling::Rank && (has("cls.weight") || has("cls.output.weight"))
    }

    /// Refuses to rank with a model that cannot.
    ///
    /// # Errors
    /// Says what a model needs for that.
    pub fn expect_ranking(&self) -> Result<()> {
        if self.ranks() {
            return Ok(());
        }
        Err(Error::unsupported(format!(
            "this {} model ranks no texts: take a reranker, whose file has a head for it (tensors cls)",
            self.spec.family
        )))
    }

    /// How an embedding is pooled, asked for or by the file.
    ///
    /// # Errors
    /// A model that ranks instead, or [`Pooling::Rank`] where it is asked for.
    pub fn embeds(&self, asked: Option<Pooling>) -> Result<Pooling> {
        if self.spec.encoder.is_some() {
            return Err(Error::unsupported(
                "this model has an encoder in front of a decoder and makes no embeddings: take one made for that",
            ));
        }
        let pooling = asked.unwrap_or(self.spec.pooling);
        if self.ranks() {
            return Err(Error::unsupported(
                "this model gives a score of two texts and no embedding: use `ir rerank` or /v1/rerank",
            ));
        }
        if pooling == Pooling::Rank {
            return Err(Error::unsupported(
                "rank pooling gives a score of two texts and no embedding: ask for mean, cls or last pooling",
            ));
        }
        Ok(pooling)
    }

    /// The recorded computation.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Text to token ids and back.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The chat template; `None` where the file has none and no known turn tokens.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }
}
