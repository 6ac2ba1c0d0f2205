//! Metadata from `config.json`: the keys that families share. A family's own are in `rows.rs` and are written first; of a key
//! that is there twice the first counts.

use serde_json::Value;

use super::config::{Config, missing};
use super::pooling;
use super::tensors::Door;
use super::{FACTORS, GROUPED, HALVES, SCALES};
use crate::error::{Error, Result};
use crate::file::Folder;
use crate::meta::{MetaBuilder, shown};

/// Writes keys of one architecture.
pub(super) struct Keys<'a, 'b> {
    pub(super) door: &'a mut Door<'b>,
    meta: MetaBuilder,
}

impl Keys<'_, '_> {
    pub(super) fn config(&self) -> &Config {
        &self.door.config
    }

    pub(super) fn put(&mut self, write: impl FnOnce(MetaBuilder) -> MetaBuilder) {
        self.meta = write(std::mem::take(&mut self.meta));
    }

    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.door.row.arch)
    }

    /// A count, if there is one.
    pub(super) fn u32(&mut self, name: &str, value: Option<u32>) {
        let key = self.key(name);
        if let Some(value) = value {
            self.put(|meta| meta.u32(&key, value));
        }
    }

    pub(super) fn f32(&mut self, name: &str, value: Option<f32>) {
        let key = self.key(name);
        if let Some(value) = value {
            self.put(|meta| meta.f32(&key, value));
        }
    }

    pub(super) fn bool(&mut self, name: &str, value: Option<bool>) {
        let key = self.key(name);
        if let Some(value) = value {
            self.put(|meta| meta.bool(&key, value));
        }
    }

    pub(super) fn str(&mut self, name: &str, value: &str) {
        let key = self.key(name);
        self.put(|meta| meta.str(&key, value));
    }

    /// A count for each layer.
    pub(super) fn u32s(&mut self, name: &str, values: &[u32]) {
        let key = self.key(name);
        self.put(|meta| meta.u32s(&key, values));
    }

    pub(super) fn bools(&mut self, name: &str, values: &[bool]) {
        let key = self.key(name);
        self.put(|meta| meta.bools(&key, values));
    }

    pub(super) fn f32s(&mut self, name: &str, values: &[f32]) {
        let key = self.key(name);
        self.put(|meta| meta.f32s(&key, values));
    }

    pub(super) fn strs(&mut self, name: &str, values: &[&str]) {
        let key = self.key(name);
        self.put(|meta| meta.strs(&key, values));
    }

    /// Value heads lie beside their key's.
    pub(super) fn grouped(&mut self) {
        self.put(|meta| meta.bool(GROUPED, true));
    }

    /// Factors beside matrices count, and those of embedding and logits are keys.
    pub(super) fn factors(&mut self) {
        self.put(|meta| meta.bool(FACTORS, true).bool(SCALES, true));
    }

    /// A count that `config.json` has under one of these names.
    pub(super) fn copy(&mut self, name: &str, from: &[&str]) {
        let value = self.config().u32(from);
        self.u32(name, value);
    }

    /// # Errors
    /// Settings that say something else than these, the only ones that are computed here.
    pub(super) fn only(&self, settings: &[(&str, &str)]) -> Result<()> {
        for (name, value) in settings {
            let Some(said) = self.config().get(&[name]) else { continue };
            let said = said.as_str().map_or_else(|| said.to_string(), str::to_owned);
            let same_number = said.parse::<f64>().is_ok_and(|said| value.parse() == Ok(said));
            if said != *value && !same_number {
                return Err(Error::unsupported(format!(
                    "this folder's {name} is {}: of its architecture only {value} is supported",
                    shown(said.as_bytes())
                )));
            }
        }
        Ok(())
    }

    /// A number likewise.
    pub(super) fn copy_f32(&mut self, name: &str, from: &[&str]) {
        let value = self.config().f32(from);
        self.f32(name, value);
    }
}

/// All keys of a folder.
pub(super) fn write(door: &mut Door<'_>) -> Result<MetaBuilder> {
    let mut meta = MetaBuilder::new().str("general.architecture", door.row.arch);
    let path = door.folder.path();
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = door.config.str(&["_name_or_path"]).filter(|n| !n.is_empty()).map(str::to_owned);
    let name = name.or_else(|| Some(path.file_name()?.to_string_lossy().into_owned()));
    meta = meta.str("general.name", &name.unwrap_or_default());
    if door.row.halves {
        meta = meta.bool(HALVES, true);
    }
    if door.factors {
        meta = meta.bool(FACTORS, true);
    }
    let own = door.row.keys;
    let mut keys = Keys { door, meta };
    own(&mut keys)?;
    shape(&mut keys)?;
    experts(&mut keys)?;
    windows(&mut keys)?;
    rope(&mut keys)?;
    pooling::write(&mut keys)?;
    Ok(keys.meta)
}

fn shape(keys: &mut Keys<'_, '_>) -> Result<()> {
    let layers = keys.config().layers()?;
    // Blocks behind the last layer draft tokens.
    let blocks = keys.door.n_blocks().max(layers);
    keys.u32("block_count", Some(blocks));
    keys.u32("nextn_predict_layers", Some(blocks - layers).filter(|n| *n > 0));
    let context =
        ["max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length", "max_sequence_length"];
    keys.u32("context_length", Some(keys.config().count(&context)?));
    keys.u32("embedding_length", Some(keys.config().width()?));
    let hidden = keys.config().u32(&["intermediate_size", "ffn_hidden_size", "n_inner", "d_ff"]);
    let built = keys.door.dims_of(".ffn_down.weight").and_then(|d| u32::try_from(*d.first()?).ok());
    keys.u32("feed_forward_length", hidden.or(built));
    keys.copy("attention.head_count", &["num_attention_heads", "n_head", "num_heads"]);
    keys.copy("attention.head_count_kv", &["num_key_value_heads", "num_kv_heads"]);
    let head = keys.config().u32(&["head_dim"]).filter(|n| *n > 0);
    keys.u32("attention.key_length", head);
    keys.u32("attention.value_length", head);
    keys.copy_f32("attention.layer_norm_rms_epsilon", &["rms_norm_eps", "norm_eps"]);
    keys.copy_f32("attention.layer_norm_epsilon", &["layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"]);
    keys.copy_f32("attn_logit_softcapping", &["attn_logit_softcapping"]);
    keys.copy_f32("final_logit_softcapping", &["final_logit_softcapping"]);
    let vocab = keys.door.n_vocab() as u32;
    keys.u32("vocab_size", Some(vocab).filter(|n| *n > 0));
    Ok(())
}

fn experts(keys: &mut Keys<'_, '_>) -> Result<()> {
    let count = ["num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"];
    let Some(n) = keys.config().u32(&count).filter(|n| *n > 0) else { return Ok(()) };
    keys.u32("expert_count", Some(n));
    let used = ["num_experts_per_tok", "moe_k", "moe_topk", "num_experts_per_token", "top_k_experts"];
    keys.u32("expert_used_count", Some(keys.config().count(&used)?));
    keys.copy("expert_feed_forward_length", &["moe_intermediate_size"]);
    keys.copy("expert_shared_count", &["n_shared_experts", "moe_num_shared_experts", "num_shared_expert"]);
    keys.copy(
        "expert_shared_feed_forward_length",
        &["shared_expert_intermediate_size", "moe_shared_expert_intermediate_size"],
    );
    keys.copy("leading_dense_block_count", &["first_k_dense_replace", "num_dense_layers", "moe_layer_start_index"]);
    keys.copy("expert_group_count", &["n_group"]);
    keys.copy("expert_group_used_count", &["topk_group"]);
    keys.copy_f32("expert_weights_scale", &["routed_scaling_factor"]);
    let norm = keys.config().bool(&["norm_topk_prob"]);
    keys.bool("expert_weights_norm", norm);
    let scoring = match keys.config().str(&["scoring_func", "score_function"]) {
        None => None,
        Some("softmax") => Some(1),
        Some("sigmoid") => Some(2),
        Some(other) => {
            let other = shown(other.as_bytes());
            return Err(Error::unsupported(format!("experts scored by {other} are not known")));
        }
    };
    keys.u32("expert_gating_func", scoring);
    Ok(())
}

/// Windows: none if the folder says so in any of the ways there are.
fn windows(keys: &mut Keys<'_, '_>) -> Result<()> {
    let config = keys.config();
    let Some(size) = config.u32(&["sliding_window"]).filter(|n| *n > 0) else { return Ok(()) };
    let layers = config.layers()?;
    let sliding: Option<Vec<bool>> =
        config.layer_types().map(|types| types.iter().map(|t| *t == "sliding_attention").collect());
    let off = config.bool(&["use_sliding_window"]) == Some(false);
    // Qwen's first layers see everything.
    let seeing = config.u32(&["max_window_layers"]).filter(|_| sliding.is_none()).unwrap_or(0);
    if off || seeing >= layers || sliding.as_ref().is_some_and(|marks| !marks.contains(&true)) {
        return Ok(());
    }
    let every = config.u32(&["sliding_window_pattern", "_sliding_window_pattern"]);
    let mixed = sliding.as_ref().is_some_and(|marks| marks.contains(&false)) || seeing > 0;
    if mixed && !keys.door.row.windows {
        return Err(Error::unsupported(
            "this folder mixes layers with and without windows (layer_types), which this architecture is not known to do",
        ));
    }
    keys.u32("attention.sliding_window", Some(size));
    match sliding.filter(|_| keys.door.row.windows) {
        Some(marks) => keys.bools("attention.sliding_window_pattern", &marks),
        None if keys.door.row.windows => keys.u32("attention.sliding_window_pattern", every),
        None => {}
    }
    Ok(())
}

fn rope(keys: &mut Keys<'_, '_>) -> Result<()> {
    let config = keys.config();
    let (base, window_base) = (config.rope_base(), config.window_base());
    let partial = config.rope_number("partial_rotary_factor").map(|x| x as f32);
    let partial = partial.or_else(|| config.f32(&["partial_rotary_factor", "rotary_pct"])).filter(|f| *f < 1.0);
    let turning = match (config.u32(&["rotary_dim"]), partial) {
        (Some(n), _) => Some(n),
        (None, Some(part)) => Some((config.head_dim()? as f32 * part) as u32),
        (None, None) => None,
    };
    keys.f32("rope.freq_base", base);
    keys.f32("rope.freq_base_swa", window_base);
    keys.u32("rope.dimension_count", turning);
    let kind = keys.config().rope_kind().to_owned();
    match kind.as_str() {
        // Those that change something only behind the trained context are as good as none within it.
        "default" | "none" | "mrope" | "dynamic" => {}
        // Written with the family's own keys.
        "proportional" if keys.door.row.arch == "gemma4" => {}
        "linear" => {
            keys.str("rope.scaling.type", "linear");
            let factor = keys.config().rope_number("factor").ok_or_else(|| missing(&["rope_scaling.factor"]))?;
            keys.f32("rope.scaling.factor", Some(factor as f32));
        }
        "yarn" => yarn(keys)?,
        "llama3" => llama3(keys, turning)?,
        "longrope" | "su" => longrope(keys)?,
        other => {
            let other = shown(other.as_bytes());
            return Err(Error::unsupported(format!("rotations scaled by {other} are not supported yet")));
        }
    }
    Ok(())
}

fn yarn(keys: &mut Keys<'_, '_>) -> Result<()> {
    let config = keys.config();
    let factor = config.rope_number("factor").ok_or_else(|| missing(&["rope_scaling.factor"]))?;
    let original = config.rope_number("original_max_position_embeddings").map(|n| n as u32);
    let original = original.or_else(|| config.u32(&["max_position_embeddings"]));
    let (fast, slow) = (config.rope_number("beta_fast"), config.rope_number("beta_slow"));
    // What it would be without being said.
    let usual = 1.0 + 0.1 * factor.max(1.0).ln();
    let said = config.rope_number("attention_factor").map(|a| a / usual).filter(|a| (a - 1.0).abs() > 1e-6);
    keys.str("rope.scaling.type", "yarn");
    keys.f32("rope.scaling.factor", Some(factor as f32));
    keys.u32("rope.scaling.original_context_length", original);
    keys.f32("rope.scaling.yarn_beta_fast", fast.map(|x| x as f32));
    keys.f32("rope.scaling.yarn_beta_slow", slow.map(|x| x as f32));
    keys.f32("rope.scaling.attn_factor", said.map(|x| x as f32));
    Ok(())
}

/// Llama 3's scaling is a factor for each pair.
fn llama3(keys: &mut Keys<'_, '_>, turning: Option<u32>) -> Result<()> {
    let config = keys.config();
    let number = |name: &'static str| config.rope_number(name).ok_or_else(|| missing(&[name]));
    let (factor, original) = (number("factor")?, number("original_max_position_embeddings")?);
    let (low, high) = (number("low_freq_factor")?, number("high_freq_factor")?);
    let dims = turning.map_or_else(|| config.head_dim(), Ok)?.min(1 << 16);
    let base = f64::from(config.rope_base().unwrap_or(10_000.0));
    let of = |i: u32| {
        let length = 2.0 * std::f64::consts::PI * base.powf(f64::from(2 * i) / f64::from(dims));
        if length < original / high {
            return 1.0;
        }
        if length > original / low {
            return factor as f32;
        }
        let smooth = (original / length - low) / (high - low);
        (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
    };
    let factors = (0..dims / 2).map(of).collect();
    keys.door.numbers("rope_freqs.weight", factors);
    Ok(())
}

/// Factors for each pair, of which the context in use chooses.
fn longrope(keys: &mut Keys<'_, '_>) -> Result<()> {
    let config = keys.config();
    let original = config.rope_number("original_max_position_embeddings").map(|n| n as u32);
    let original = original.or_else(|| config.u32(&["original_max_position_embeddings"]));
    let context = config.u32(&["max_position_embeddings"]).unwrap_or(0);
    let list = |name: &'static str| {
        let list = config.rope().and_then(|r| r.get(name)).and_then(Value::as_array);
        let all = list.map(|l| l.iter().map(|v| v.as_f64().unwrap_or(1.0) as f32).collect::<Vec<_>>());
        all.ok_or_else(|| missing(&[name]))
    };
    let (long, short) = (list("long_factor")?, list("short_factor")?);
    let given = config.rope_number("attention_factor").or_else(|| config.rope_number("factor"));
    let (length, trained) = (f64::from(context), f64::from(original.unwrap_or(context).max(2)));
    let said = config.rope_number("short_mscale").or_else(|| config.rope_number("attention_factor"));
    let magnitude = match (said, given.unwrap_or(length / trained)) {
        (Some(said), _) => said,
        (None, scale) if scale <= 1.0 => 1.0,
        (None, scale) => (1.0 + scale.ln() / trained.ln()).sqrt(),
    };
    keys.u32("rope.scaling.original_context_length", original);
    keys.f32("rope.scaling.attn_factor", Some(magnitude as f32));
    keys.door.numbers("rope_factors_long.weight", long);
    keys.door.numbers("rope_factors_short.weight", short);
    Ok(())
}

/// Chat templates by name, the one that is used without being asked for as `default`.
pub(super) fn templates(folder: &Folder, config: &Value) -> Result<Vec<(String, String)>> {
    if let Some(bytes) = folder.small("chat_template.jinja")? {
        return Ok(vec![("default".into(), String::from_utf8_lossy(&bytes).into_owned())]);
    }
    let json = folder.json("chat_template.json")?.unwrap_or_default();
    let said = config.get("chat_template").or_else(|| json.get("chat_template"));
    Ok(match said {
        Some(Value::String(text)) => vec![("default".into(), text.clone())],
        Some(Value::Array(all)) => {
            let of = |t: &Value| Some((t.get("name")?.as_str()?.to_owned(), t.get("template")?.as_str()?.to_owned()));
            all.iter().take(16).filter_map(of).collect()
        }
        _ => Vec::new(),
    })
}

/// Recommended settings of `generation_config.json`.
pub(super) fn sampling(generation: &Value, mut meta: MetaBuilder) -> MetaBuilder {
    if generation.get("do_sample").and_then(Value::as_bool) != Some(true) {
        return meta;
    }
    for (ours, theirs) in [("temp", "temperature"), ("top_p", "top_p"), ("min_p", "min_p")] {
        if let Some(value) = generation.get(theirs).and_then(Value::as_f64) {
            meta = meta.f32(&format!("general.sampling.{ours}"), value as f32);
        }
    }
    if let Some(k) = generation.get("top_k").and_then(Value::as_u64).and_then(|k| u32::try_from(k).ok()) {
        meta = meta.u32("general.sampling.top_k", k);
    }
    meta
}
