//! [`Details`]: what a model's file says of itself, read from its header only.

use std::collections::BTreeMap;
use std::path::Path;

use ir_engine::file::ModelFile;
use serde::{Deserialize, Serialize};

/// What a model's file says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// `gguf` or `safetensors`.
    pub format: String,
    /// `general.architecture`.
    pub family: String,
    /// The type that most bytes have.
    pub type_name: String,
    /// Elements of all tensors.
    pub parameters: u64,
    /// Tokens of context.
    pub context: u64,
    /// Values of an embedding.
    pub embedding: u64,
    /// Whether there is a vocabulary and no weights.
    pub vocabulary_only: bool,
    /// Why it cannot be read.
    pub error: Option<String>,
}

impl Details {
    pub(crate) fn broken(why: &str) -> Details {
        Details { error: Some(why.to_owned()), ..Details::default() }
    }

    /// Reads the header of a GGUF file (of a split set: any part), or the config of a folder of safetensors.
    pub fn of(path: &Path) -> Details {
        if path.is_dir() {
            return Details::of_folder(path);
        }
        match ModelFile::open(path) {
            Ok(file) => Details::of_file(&file),
            Err(e) => Details::broken(&e.to_string()),
        }
    }

    /// The same of an opened file.
    pub fn of_file(file: &ModelFile) -> Details {
        let mut types: BTreeMap<String, u64> = BTreeMap::new();
        let mut parameters = 0u64;
        for tensor in file.tensors() {
            let unknown = |_| format!("type {}", tensor.type_id());
            let name = tensor.dtype().map_or_else(unknown, |dtype| dtype.name().to_owned());
            let bytes = types.entry(name).or_default();
            *bytes = bytes.saturating_add(tensor.byte_len());
            parameters = parameters.saturating_add(tensor.n_elements());
        }
        let meta = file.meta();
        let family = meta.arch().unwrap_or("-").to_owned();
        let number = |key: &str| meta.opt_u32(&format!("{family}.{key}")).ok().flatten().unwrap_or(0).into();
        Details {
            format: "gguf".into(),
            type_name: types.into_iter().max_by_key(|(_, bytes)| *bytes).map_or_else(|| "-".into(), |(name, _)| name),
            parameters,
            context: number("context_length"),
            embedding: number("embedding_length"),
            vocabulary_only: file.tensors().is_empty(),
            error: None,
            family,
        }
    }

    fn of_folder(folder: &Path) -> Details {
        let config = crate::disk::read_small(&folder.join("config.json"), 4 << 20).ok();
        let config: Option<serde_json::Value> = config.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let Some(config) = config else { return Details::broken("the folder has no config.json that can be read") };
        let text = |key: &str| config[key].as_str().unwrap_or("-").chars().take(64).collect::<String>();
        let number = |key: &str| config[key].as_u64().unwrap_or(0);
        Details {
            format: "safetensors".into(),
            family: text("model_type"),
            type_name: text("torch_dtype"),
            context: number("max_position_embeddings"),
            embedding: number("hidden_size"),
            ..Details::default()
        }
    }
}
