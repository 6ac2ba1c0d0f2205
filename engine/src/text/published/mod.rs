//! Tokenizers as they are published beside safetensors: `tokenizer.json`, `tokenizer.model` and what goes with them become
//! the metadata that [`super::Tokenizer`] reads, so that there is one tokenizer and not two.

mod json;
mod pieces;
mod pre;
mod read;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::meta::{MetaBuilder, shown};

/// The files of a tokenizer, each as far as there is one.
#[derive(Debug, Default)]
pub struct Published {
    /// `tokenizer.json`.
    pub json: Option<Vec<u8>>,
    /// `tokenizer.model`: SentencePiece's own.
    pub model: Option<Vec<u8>>,
    /// `vocab.txt`: WordPiece's tokens, one a line.
    pub words: Option<Vec<u8>>,
    /// `tokenizer_config.json`.
    pub config: Value,
    /// `special_tokens_map.json`.
    pub special: Value,
    /// `added_tokens.json`: texts to ids.
    pub added: Value,
    /// Ids by role in `config.json` and `generation_config.json`: `bos_token_id` and the like. The first that has one counts.
    pub ids: Vec<Value>,
    /// Rows of the token table: ids without a token are filled up to it. 0 if it is not known.
    pub n_vocab: usize,
}

/// Token types of GGUF.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// A vocabulary in GGUF's terms.
#[derive(Debug, Default)]
struct Vocabulary {
    /// `tokenizer.ggml.model`.
    model: &'static str,
    /// The pre-tokenizer's name.
    pre: Option<&'static str>,
    tokens: Vec<Vec<u8>>,
    types: Vec<i32>,
    /// If the model goes by them.
    scores: Option<Vec<f32>>,
    merges: Option<Vec<String>>,
    /// What the post-processor puts in front of a text and behind it.
    around: Option<Around>,
    space_prefix: Option<bool>,
    lowercase: Option<bool>,
    strip_accents: Option<bool>,
    /// Of Unigram.
    charsmap: Vec<u8>,
    squeeze_spaces: bool,
    unknown: Option<u32>,
}

/// Ids around a text.
#[derive(Debug, Default, Clone, PartialEq)]
struct Around {
    before: Vec<u32>,
    after: Vec<u32>,
    /// Whether more stands between the texts of a pair than what ends the first.
    apart: bool,
}

/// Ids that are beyond this are no tokens of a vocabulary.
const MAX_TOKENS: usize = 1 << 22;

impl Vocabulary {
    /// Sets the token of an id. Ids may leave gaps, but not larger ones than there are tokens.
    fn set(&mut self, id: u64, text: &[u8], kind: i32, n_known: usize) -> Result<()> {
        let most = (2 * n_known + 4096).min(MAX_TOKENS);
        let id = usize::try_from(id).ok().filter(|id| *id < most);
        let id = id.ok_or_else(|| Error::format("the tokenizer has an id beyond its vocabulary"))?;
        if id >= self.tokens.len() {
            self.tokens.resize(id + 1, Vec::new());
            self.types.resize(id + 1, UNUSED);
            if let Some(scores) = &mut self.scores {
                scores.resize(id + 1, -10_000.0);
            }
        }
        self.tokens[id] = text.to_vec();
        self.types[id] = kind;
        Ok(())
    }

    fn id(&self, text: &str) -> Option<u32> {
        self.tokens.iter().position(|t| t == text.as_bytes()).map(|i| i as u32)
    }

    /// Gives ids without a token names, up to `n`.
    fn pad(&mut self, n: usize) {
        let n = n.min(MAX_TOKENS).max(self.tokens.len());
        self.tokens.resize(n, Vec::new());
        self.types.resize(n, UNUSED);
        if let Some(scores) = &mut self.scores {
            scores.resize(n, -10_000.0);
        }
        for (i, token) in self.tokens.iter_mut().enumerate().filter(|(_, t)| t.is_empty()) {
            if self.types[i] == UNUSED {
                *token = format!("[PAD{i}]").into_bytes();
            }
        }
    }
}

/// Writes what the files say into metadata, under GGUF's keys.
///
/// # Errors
/// [`Error::Format`] for damaged files, [`Error::Unsupported`] for rules that no tokenizer here has.
pub fn write(files: &Published, meta: MetaBuilder) -> Result<MetaBuilder> {
    let Some(mut vocabulary) = read::vocabulary(files)? else { return Ok(meta) };
    let added = read::added(files)?;
    let n_known = vocabulary.tokens.len() + added.len();
    for token in &added {
        let kind = if token.special { CONTROL } else { USER };
        vocabulary.set(token.id, token.content.as_bytes(), kind, n_known)?;
    }
    let roles = Roles::of(files, &vocabulary);
    // Of SentencePiece and WordPiece it is a token like others by name only.
    if let Some(unknown) = roles.unknown.filter(|_| vocabulary.model != "gpt2") {
        vocabulary.types[unknown as usize] = UNKNOWN;
    }
    vocabulary.pad(files.n_vocab);
    let mut meta = meta.str("tokenizer.ggml.model", vocabulary.model);
    if let Some(pre) = vocabulary.pre {
        meta = meta.str("tokenizer.ggml.pre", pre);
    }
    meta = meta.strs("tokenizer.ggml.tokens", &vocabulary.tokens);
    meta = meta.i32s("tokenizer.ggml.token_type", &vocabulary.types);
    if let Some(scores) = &vocabulary.scores {
        meta = meta.f32s("tokenizer.ggml.scores", scores);
    }
    if let Some(merges) = &vocabulary.merges {
        meta = meta.strs("tokenizer.ggml.merges", merges);
    }
    if !vocabulary.charsmap.is_empty() {
        meta = meta.u8s("tokenizer.ggml.precompiled_charsmap", &vocabulary.charsmap);
    }
    if vocabulary.model == "t5" {
        meta = meta.bool("tokenizer.ggml.remove_extra_whitespaces", vocabulary.squeeze_spaces);
    }
    let flags = [
        ("add_space_prefix", vocabulary.space_prefix),
        ("normalizer.lowercase", vocabulary.lowercase),
        ("normalizer.strip_accents", vocabulary.strip_accents),
    ];
    for (name, value) in flags {
        if let Some(value) = value {
            meta = meta.bool(&format!("tokenizer.ggml.{name}"), value);
        }
    }
    Ok(roles.write(files, &vocabulary, meta))
}

/// Ids by role.
#[derive(Debug, Default)]
struct Roles {
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
    separator: Option<u32>,
    padding: Option<u32>,
    mask: Option<u32>,
    /// Further ids that end a generation.
    ends: Vec<u32>,
}

impl Roles {
    fn of(files: &Published, vocabulary: &Vocabulary) -> Roles {
        let n = vocabulary.tokens.len() as u64;
        let text = |name: &str| {
            let of = |value: &Value| {
                let token = value.get(name)?;
                let content = token.as_str().or_else(|| token.get("content")?.as_str())?;
                vocabulary.id(content)
            };
            of(&files.config).or_else(|| of(&files.special))
        };
        let number = |name: &str| {
            let first = files.ids.iter().find_map(|v| v.get(name).filter(|v| !v.is_null()))?;
            let id = first.as_u64().or_else(|| first.get(0)?.as_u64())?;
            (id < n).then_some(id as u32)
        };
        let role = |name: &str| text(&format!("{name}_token")).or_else(|| number(&format!("{name}_token_id")));
        let all_ends = files.ids.iter().filter_map(|v| v.get("eos_token_id")?.as_array()).flatten();
        let ends = all_ends.filter_map(|v| v.as_u64().filter(|id| *id < n)).map(|id| id as u32).collect();
        let mut roles = Roles {
            bos: role("bos"),
            eos: role("eos"),
            unknown: vocabulary.unknown.or_else(|| role("unk")),
            separator: role("sep"),
            padding: role("pad"),
            mask: role("mask"),
            ends,
        };
        if let Some(around) = &vocabulary.around {
            roles.bos = around.before.first().copied().or(roles.bos);
            roles.eos = roles.eos.or(around.after.first().copied());
        }
        roles
    }

    fn write(&self, files: &Published, vocabulary: &Vocabulary, mut meta: MetaBuilder) -> MetaBuilder {
        let ids = [
            ("bos", self.bos),
            ("eos", self.eos),
            ("unknown", self.unknown),
            // The misspelling is the format's.
            ("seperator", self.separator),
            ("padding", self.padding),
            ("mask", self.mask),
        ];
        for (name, id) in ids {
            if let Some(id) = id {
                meta = meta.u32(&format!("tokenizer.ggml.{name}_token_id"), id);
            }
        }
        if self.ends.len() > 1 {
            meta = meta.u32s("tokenizer.ggml.eog_token_ids", &self.ends);
        }
        let asked = |name: &str| files.config.get(name).and_then(Value::as_bool);
        let adds = match &vocabulary.around {
            Some(around) => {
                let eos = around.after.first().is_some_and(|id| Some(*id) == self.eos);
                let separator = !around.after.is_empty() && !eos || eos && around.apart;
                [Some(!around.before.is_empty()), Some(eos), Some(separator)]
            }
            // Nothing is added unless it is asked for; SentencePiece's own files have their usual BOS.
            None if vocabulary.model == "gpt2" => {
                [Some(asked("add_bos_token").unwrap_or(false)), Some(asked("add_eos_token").unwrap_or(false)), None]
            }
            None => [asked("add_bos_token"), asked("add_eos_token"), None],
        };
        for (name, value) in ["bos", "eos", "sep"].into_iter().zip(adds) {
            if let Some(value) = value {
                meta = meta.bool(&format!("tokenizer.ggml.add_{name}_token"), value);
            }
        }
        meta
    }
}

/// A rule of `tokenizer.json` that is not known, as an error.
fn unknown_rule(what: &str, name: &str) -> Error {
    Error::unsupported(format!(
        "this tokenizer.json has a {what} that is not known ({}): convert the model to GGUF, or download its GGUF",
        shown(name.as_bytes())
    ))
}
