//! Adapters as PEFT publishes them: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::BTreeMap;
#[cfg(not(target_arch = "wasm32"))]
use std::path::Path;

use serde_json::{Map, Value};

use super::{Adapter, Form, Pair, Thin};
use crate::bytes::Bytes;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::file::safetensors::{self, Element, Stored};
use crate::folder::translated;
use crate::meta::shown;

/// `adapter_config.json` is at most so large.
#[cfg(not(target_arch = "wasm32"))]
const MAX_CONFIG: u64 = 1 << 20;

#[cfg(not(target_arch = "wasm32"))]
pub(super) fn open(folder: &Path) -> Result<Adapter> {
    let (config, weights) = (folder.join("adapter_config.json"), folder.join("adapter_model.safetensors"));
    if !config.is_file() || !weights.is_file() {
        let is_old = folder.join("adapter_model.bin").is_file();
        let more = if is_old {
            " (adapter_model.bin is a program for PyTorch and is not read: save it as safetensors)"
        } else {
            ""
        };
        return Err(Error::format(format!(
            "{} holds no adapter_config.json and adapter_model.safetensors{more}: give a folder as PEFT saves it, or a GGUF file",
            folder.display()
        )));
    }
    if std::fs::metadata(&config).is_ok_and(|meta| meta.len() > MAX_CONFIG) {
        return Err(Error::format(format!("{} is larger than {MAX_CONFIG} bytes", config.display())));
    }
    read(&Bytes::read(&config)?, &Bytes::read(&weights)?)
}

/// Reads an adapter of the bytes of its two files.
pub(super) fn read(config: &[u8], weights: &Bytes) -> Result<Adapter> {
    let config = Config::read(config)?;
    let mut halves: BTreeMap<String, [Option<Stored>; 2]> = BTreeMap::new();
    for tensor in safetensors::read(weights)? {
        let (name, half) = parted(&tensor.name)?;
        let place = &mut halves.entry(name.to_owned()).or_default()[half];
        if place.is_some() {
            let name = shown(name.as_bytes());
            return Err(Error::format(format!("the adapter has two pairs of matrices for {name}")));
        }
        *place = Some(tensor);
    }
    let mut pairs = Vec::with_capacity(halves.len());
    for (name, halves) in halves {
        let [Some(a), Some(b)] = halves else {
            return Err(Error::format(format!(
                "the adapter has one of the two matrices for {}: the file is incomplete",
                shown(name.as_bytes())
            )));
        };
        let (a, b) = (thin(&a)?, thin(&b)?);
        let factor = config.factor(&name, b.cols);
        pairs.push(Pair { name, a, a_on_side: false, b, factor });
    }
    Adapter::new(Form::Peft(translated), pairs, Some(config.alpha as f32))
}

/// The matrix that a tensor is for, without PEFT's own beginning, and whether it is A or B.
fn parted(name: &str) -> Result<(&str, usize)> {
    let bare = name.strip_prefix("base_model.model.").unwrap_or(name);
    let bare = bare.strip_suffix(".weight").unwrap_or(bare);
    let bare = bare.strip_suffix(".default").unwrap_or(bare);
    let halves = [(".lora_A", 0), (".lora_B", 1), (".lora_embedding_A", 0), (".lora_embedding_B", 1)];
    let found = halves.iter().find_map(|(end, half)| Some((bare.strip_suffix(end)?, *half)));
    found.ok_or_else(|| {
        let what = if name.contains("lora_magnitude") { " (DoRA)" } else { "" };
        Error::unsupported(format!(
            "the adapter holds a tensor {}{what}, which is no lora_A or lora_B: adapters that change more than products are not supported",
            shown(name.as_bytes())
        ))
    })
}

fn thin(tensor: &Stored) -> Result<Thin> {
    let wrong =
        |what: String| Error::unsupported(format!("tensor {} of the adapter {what}", shown(tensor.name.as_bytes())));
    let dtype = match tensor.element {
        Element::F32 => DType::F32,
        Element::F16 => DType::F16,
        Element::BF16 => DType::BF16,
        other => return Err(wrong(format!("is of type {}: F32, F16 and BF16 are read", other.name()))),
    };
    let [rows, cols] = *tensor.shape() else { return Err(wrong("is no matrix".into())) };
    let (Ok(rows), Ok(cols)) = (usize::try_from(rows), usize::try_from(cols)) else {
        return Err(wrong("is too large".into()));
    };
    Ok(Thin { dtype, rows, cols, bytes: tensor.bytes.clone() })
}

/// What `adapter_config.json` says.
struct Config {
    alpha: f64,
    /// Divides by the rank's root (rank-stabilised LoRA).
    root: bool,
    /// Other alphas, by the ends of matrices' names.
    alphas: Vec<(String, f64)>,
}

impl Config {
    fn read(bytes: &[u8]) -> Result<Config> {
        let wrong = |what: String| Error::format(format!("adapter_config.json {what}"));
        let json: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|e| wrong(format!("cannot be read as a JSON object: {e}")))?;
        refuse_more(&json)?;
        let alpha = match json.get("lora_alpha") {
            Some(value) => value.as_f64().ok_or_else(|| wrong("has a lora_alpha that is no number".into()))?,
            None => return Err(wrong("has no lora_alpha".into())),
        };
        let mut alphas = Vec::new();
        if let Some(patterns) = json.get("alpha_pattern").and_then(Value::as_object) {
            for (pattern, value) in patterns {
                let value = value.as_f64().ok_or_else(|| wrong("has an alpha_pattern that is no number".into()))?;
                if pattern.contains(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.' || c == '-')) {
                    return Err(Error::unsupported(format!(
                        "the adapter's alpha_pattern {} is a regular expression, which is not read: names of matrices are",
                        shown(pattern.as_bytes())
                    )));
                }
                alphas.push((pattern.clone(), value));
            }
        }
        let root = json.get("use_rslora").and_then(Value::as_bool) == Some(true);
        Ok(Config { alpha, root, alphas })
    }

    /// The factor of the products of a matrix.
    fn factor(&self, name: &str, rank: usize) -> f32 {
        let fits =
            |pattern: &str| name.strip_suffix(pattern).is_some_and(|before| before.is_empty() || before.ends_with('.'));
        let alpha = self.alphas.iter().find(|(pattern, _)| fits(pattern)).map_or(self.alpha, |(_, alpha)| *alpha);
        let rank = rank.max(1) as f64;
        (alpha / if self.root { rank.sqrt() } else { rank }) as f32
    }
}

/// Refuses settings that mean another computation than that of LoRA.
fn refuse_more(json: &Map<String, Value>) -> Result<()> {
    let refused = |what: String| Err(Error::unsupported(format!("this adapter {what}, which is not supported")));
    let kind = json.get("peft_type").and_then(Value::as_str).unwrap_or("LORA");
    if kind != "LORA" {
        return refused(format!("is of the type {}", shown(kind.as_bytes())));
    }
    let is_set = |name: &&&str| match json.get(**name) {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(_) => true,
    };
    let more = [
        "use_dora",
        "modules_to_save",
        "lora_bias",
        "layer_replication",
        "use_qalora",
        "alora_invocation_tokens",
        "trainable_token_indices",
    ];
    if let Some(name) = more.iter().find(is_set) {
        return refused(format!("was made with {name}"));
    }
    match json.get("bias").and_then(Value::as_str).unwrap_or("none") {
        "none" => Ok(()),
        bias => refused(format!("changes biases (bias: {})", shown(bias.as_bytes()))),
    }
}
