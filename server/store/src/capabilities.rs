//! [`Capabilities`]: what a model can do, found in its file's metadata.

use std::collections::HashMap;

use ir_engine::meta::{Array, Meta};
use ir_engine::model::Pooling;
use ir_engine::text::chat::ChatTemplate;
use ir_engine::text::tools::ToolFormat;
use serde::{Deserialize, Serialize};

/// What a model can do, by the words of Ollama's `capabilities`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Continues text.
    pub completion: bool,
    /// Its template shows tools and its calls can be read.
    pub tools: bool,
    /// It reasons before it answers.
    pub thinking: bool,
    /// It has fill-in-the-middle tokens.
    pub insert: bool,
    /// It gives embeddings.
    pub embedding: bool,
}

impl Capabilities {
    /// The words.
    pub fn names(&self) -> Vec<&'static str> {
        let all = [
            ("completion", self.completion),
            ("tools", self.tools),
            ("insert", self.insert),
            ("thinking", self.thinking),
            ("embedding", self.embedding),
        ];
        all.into_iter().filter(|(_, can)| *can).map(|(name, _)| name).collect()
    }

    /// What the model of a file can do; its template compiled, and `id_of` a token by its text.
    pub fn of_model(meta: &Meta, template: Option<&ChatTemplate>, id_of: &dyn Fn(&str) -> Option<u32>) -> Capabilities {
        let format = || ToolFormat::of(template, &|text| id_of(text).is_some());
        // As Ollama has it: a file that says how to pool is of a model made to embed.
        let pooling = Pooling::from_meta(meta).unwrap_or_default();
        let key = |name: &str| meta.arch().ok().map(|arch| format!("{arch}.{name}"));
        let said = |name: &str| key(name).and_then(|key| meta.get(&key));
        let both_ways = said("attention.causal").and_then(|v| v.as_bool()) == Some(false);
        let ranks = pooling == Pooling::Rank || both_ways && said("classifier.output_labels").is_some();
        Capabilities {
            completion: pooling == Pooling::None && !both_ways,
            tools: template.is_some_and(ChatTemplate::supports_tools) && format().is_some(),
            thinking: template.is_some_and(ChatTemplate::thinks),
            insert: fill_tokens(meta, id_of).is_some(),
            embedding: !ranks && (pooling != Pooling::None || both_ways),
        }
    }

    /// The same without a model: from its file's metadata alone.
    pub fn of_file(meta: &Meta) -> Capabilities {
        let tokens = meta.opt_array("tokenizer.ggml.tokens").ok().flatten();
        let texts = tokens.iter().flat_map(Array::iter).map(|t| t.as_str().unwrap_or(""));
        let ids: HashMap<&str, u32> = texts.zip(0..).collect();
        let id_of = |text: &str| ids.get(text).copied();
        let template = ChatTemplate::from_meta(meta, &|text| id_of(text).is_some()).ok().flatten();
        Capabilities::of_model(meta, template.as_ref(), &id_of)
    }
}

/// Whether a model has tokens for filling in, and which: prefix, suffix, middle.
pub fn fill_tokens(meta: &Meta, id_of: &dyn Fn(&str) -> Option<u32>) -> Option<[u32; 3]> {
    let id = |key: &str, texts: &[&str]| {
        let named = meta.get(&format!("tokenizer.ggml.{key}_token_id")).and_then(|v| v.as_u64());
        named.map(|id| id as u32).or_else(|| texts.iter().find_map(|t| id_of(t)))
    };
    let prefix = id("fim_pre", &["<|fim_prefix|>", "<fim_prefix>", "<PRE>"])?;
    let suffix = id("fim_suf", &["<|fim_suffix|>", "<fim_suffix>", "<SUF>"])?;
    let middle = id("fim_mid", &["<|fim_middle|>", "<fim_middle>", "<MID>"])?;
    Some([prefix, suffix, middle])
}
