//! [`Config`]: `config.json`, old style and new: settings of the text part first, then those of the whole.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The settings of a model.
#[derive(Debug, Clone)]
pub(super) struct Config {
    root: Value,
    text: Value,
}

impl Config {
    pub(super) fn new(root: &Value) -> Config {
        let inner = ["text_config", "llm_config", "language_config"].iter().find_map(|name| root.get(name));
        let text = inner.filter(|v| v.is_object()).unwrap_or(root).clone();
        Config { root: root.clone(), text }
    }

    /// The settings of the text part.
    pub(super) fn text(&self) -> &Value {
        &self.text
    }

    /// The class that PyTorch runs the model with.
    pub(super) fn class(&self) -> String {
        let first = |config: &Value| Some(config.get("architectures")?.get(0)?.as_str()?.to_owned());
        let kind = |config: &Value| Some(config.get("model_type")?.as_str()?.to_owned());
        first(&self.root).or_else(|| first(&self.text)).or_else(|| kind(&self.root)).unwrap_or_default()
    }

    /// The same with what the class has where nothing is said, as JSON.
    pub(super) fn with_defaults(mut self, defaults: &str) -> Config {
        let Ok(Value::Object(defaults)) = serde_json::from_str(defaults) else { return self };
        if let Value::Object(map) = &mut self.text {
            for (key, value) in defaults {
                map.entry(key).or_insert(value);
            }
        }
        self
    }

    /// The first of these settings that says something.
    pub(super) fn get(&self, names: &[&str]) -> Option<&Value> {
        fn said<'a>(config: &'a Value, name: &str) -> Option<&'a Value> {
            config.get(name).filter(|v| !v.is_null())
        }
        names.iter().find_map(|name| said(&self.text, name).or_else(|| said(&self.root, name)))
    }

    /// A count; of a list, its first.
    pub(super) fn u32(&self, names: &[&str]) -> Option<u32> {
        let value = self.get(names)?;
        let value = value.get(0).unwrap_or(value);
        let whole =
            value.as_u64().or_else(|| value.as_f64().filter(|x| x.fract() == 0.0 && *x >= 0.0).map(|x| x as u64));
        whole.and_then(|n| u32::try_from(n).ok())
    }

    /// A count that must be there.
    pub(super) fn count(&self, names: &[&str]) -> Result<u32> {
        self.u32(names).ok_or_else(|| missing(names))
    }

    pub(super) fn f32(&self, names: &[&str]) -> Option<f32> {
        self.get(names)?.as_f64().map(|x| x as f32)
    }

    pub(super) fn bool(&self, names: &[&str]) -> Option<bool> {
        self.get(names)?.as_bool()
    }

    pub(super) fn str(&self, names: &[&str]) -> Option<&str> {
        self.get(names)?.as_str()
    }

    /// A list of texts.
    pub(super) fn list(&self, name: &str) -> Option<Vec<&str>> {
        Some(self.get(&[name])?.as_array()?.iter().map(|v| v.as_str().unwrap_or("")).collect())
    }

    /// What layers do, one by one: `full_attention`, `sliding_attention`, `mamba` and the like.
    pub(super) fn layer_types(&self) -> Option<Vec<&str>> {
        self.list("layer_types")
    }

    /// The settings of rotations: `rope_parameters`, or the older `rope_scaling`; those of layers without window where each
    /// kind has its own.
    pub(super) fn rope(&self) -> Option<&Map<String, Value>> {
        let rope = self.get(&["rope_parameters", "rope_scaling"])?;
        rope.get("full_attention").unwrap_or(rope).as_object()
    }

    /// A number of the rotations' settings.
    pub(super) fn rope_number(&self, name: &str) -> Option<f64> {
        self.rope()?.get(name)?.as_f64()
    }

    /// The base of rotations.
    pub(super) fn rope_base(&self) -> Option<f32> {
        let inside = self.rope_number("rope_theta").map(|x| x as f32);
        inside.or_else(|| self.f32(&["rope_theta", "rotary_emb_base", "global_rope_theta"]))
    }

    /// The base of rotations in layers with a window.
    pub(super) fn window_base(&self) -> Option<f32> {
        let rope = self.get(&["rope_parameters"]).and_then(|r| r.get("sliding_attention"));
        let inside = rope.and_then(|r| r.get("rope_theta")).and_then(Value::as_f64).map(|x| x as f32);
        inside.or_else(|| self.f32(&["rope_local_base_freq", "local_rope_theta"]))
    }

    /// The kind of the rotations' scaling; `default` if there is none.
    pub(super) fn rope_kind(&self) -> &str {
        let kind = |name| self.rope().and_then(|r| r.get(name)).and_then(Value::as_str);
        kind("rope_type").or_else(|| kind("type")).unwrap_or("default")
    }

    pub(super) fn layers(&self) -> Result<u32> {
        self.count(&["num_hidden_layers", "n_layer", "n_layers", "num_layers"])
    }

    pub(super) fn width(&self) -> Result<u32> {
        self.count(&["hidden_size", "n_embd", "d_model"])
    }

    pub(super) fn heads(&self) -> Result<u32> {
        self.count(&["num_attention_heads", "n_head", "num_heads"])
    }

    /// Columns of a head.
    pub(super) fn head_dim(&self) -> Result<u32> {
        match self.u32(&["head_dim", "attention_head_dim"]).filter(|n| *n > 0) {
            Some(n) => Ok(n),
            None => Ok(self.width()? / self.heads()?.max(1)),
        }
    }
}

/// What must be in `config.json` and is not.
pub(super) fn missing(names: &[&str]) -> Error {
    Error::format(format!(
        "config.json does not say {}: the folder is no complete model of its kind",
        names.join(" or ")
    ))
}
