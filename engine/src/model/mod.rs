//! From a file to a model: family, spec, weights, recorded plan, tokenizer and chat template. No device.

mod common;
mod decoder;
mod experts;
mod factors;
mod families;
mod folder;
mod forward;
mod latent;
mod parts;
mod recurrent;
mod rope;
mod spec;
mod weights;

use std::sync::Arc;

#[cfg(not(target_arch = "wasm32"))]
pub use folder::open_file;
pub(crate) use folder::{FACTORS, GROUPED, HALVES, SCALES};
pub use folder::{families as folder_families, present};
pub use spec::{
    Embedding, Ffn, Head, Heads, Latent, Layer, Mixer, ModelSpec, Moe, NormStyle, Normed, Norms, Pooling, Ssm, Wiring,
};
pub use weights::read_at_recording;

use crate::bytes::Bytes;
use crate::error::{Error, Result};
use crate::file::ModelFile;
use crate::meta::Meta;
use crate::plan::Plan;
use crate::text::Tokenizer;
use crate::text::chat::ChatTemplate;

/// How to open a model.
#[derive(Debug, Clone, Default)]
pub struct ModelOptions {
    /// Read the file into memory instead of mapping it.
    pub no_mmap: bool,
    /// Overrides the pre-tokenizer that the file names.
    pub tokenizer_pre: Option<String>,
}

/// What kind of model a file holds and its recorded computation, without a tokenizer: for looking at a model, and for running
/// it on token ids ([`crate::device::Device::prepare`]), as files without a tokenizer can be.
///
/// # Errors
/// Where the file holds what this version does not support, or contradicts itself.
pub fn inspect(file: &ModelFile) -> Result<(ModelSpec, Plan)> {
    if file.tensors().is_empty() {
        return Err(Error::unsupported(
            "this file holds a vocabulary and no weights: it can be tokenized with, not run",
        ));
    }
    let spec = families::spec(file)?;
    let plan = forward::record(&spec, file)?;
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
        let (spec, plan) = inspect(&file)?;
        let plan = Arc::new(plan);
        let tokenizer = Tokenizer::from_meta(file.meta(), options.tokenizer_pre.as_deref())?;
        let template = ChatTemplate::from_meta(file.meta(), &|text| tokenizer.id_of(text).is_some())?;
        Ok(Model { file, spec, plan, tokenizer, template })
    }

    /// The same model with more of its file at hand: recorded anew, with the tokenizer and template that it has.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn with_file(self, file: ModelFile) -> Result<Model> {
        let (spec, plan) = inspect(&file)?;
        Ok(Model { file, spec, plan: Arc::new(plan), ..self })
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
