//! `tokenizer.json` as it is written: read into lists without a tree of values for the vocabulary, which may have a million
//! entries. What the rules mean is in `read.rs` and `pre.rs`.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::error::{Error, Result};

/// The file.
#[derive(Deserialize)]
pub(super) struct Json<'a> {
    #[serde(default)]
    pub(super) added_tokens: Vec<Added>,
    #[serde(default)]
    pub(super) normalizer: Value,
    #[serde(default)]
    pub(super) pre_tokenizer: Value,
    #[serde(default)]
    pub(super) post_processor: Value,
    #[serde(borrow)]
    pub(super) model: Model<'a>,
}

/// A token that is found in texts before anything else.
#[derive(Debug, Deserialize)]
pub(super) struct Added {
    pub(super) id: u64,
    pub(super) content: String,
    #[serde(default)]
    pub(super) special: bool,
}

#[derive(Deserialize)]
pub(super) struct Model<'a> {
    #[serde(rename = "type", default)]
    pub(super) kind: Option<String>,
    #[serde(borrow, default)]
    pub(super) vocab: Vocab<'a>,
    #[serde(borrow, default)]
    pub(super) merges: Vec<Merge<'a>>,
    #[serde(default)]
    pub(super) unk_token: Option<String>,
    #[serde(default)]
    pub(super) unk_id: Option<u64>,
    #[serde(default)]
    pub(super) byte_fallback: Option<bool>,
    #[serde(default)]
    pub(super) ignore_merges: Option<bool>,
    #[serde(default)]
    pub(super) continuing_subword_prefix: Option<String>,
    #[serde(default)]
    pub(super) end_of_word_suffix: Option<String>,
}

/// Texts with their ids (an object), or in order with their scores (a list).
#[derive(Default)]
pub(super) struct Vocab<'a> {
    pub(super) ids: Vec<(Cow<'a, str>, u64)>,
    pub(super) scored: Vec<(Cow<'a, str>, f64)>,
}

/// Reads the file.
///
/// # Errors
/// [`Error::Format`] where it is no `tokenizer.json`.
pub(super) fn parse(bytes: &[u8]) -> Result<Json<'_>> {
    serde_json::from_slice(bytes).map_err(|e| Error::format(format!("tokenizer.json cannot be read: {e}")))
}

impl<'de: 'a, 'a> Deserialize<'de> for Vocab<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Vocab<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("tokens with ids or scores")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocab<'de>, A::Error> {
                let mut ids = Vec::new();
                while let Some((Text(text), id)) = map.next_entry::<Text<'de>, u64>()? {
                    ids.push((text, id));
                }
                Ok(Vocab { ids, scored: Vec::new() })
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vocab<'de>, A::Error> {
                let mut scored = Vec::new();
                while let Some((Text(text), score)) = seq.next_element::<(Text<'de>, f64)>()? {
                    scored.push((text, score));
                }
                Ok(Vocab { ids: Vec::new(), scored })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A string, borrowed where it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Either)
    }
}

/// A merge: `"left right"` or `["left", "right"]`.
pub(super) enum Merge<'a> {
    One(Cow<'a, str>),
    Two(Cow<'a, str>, Cow<'a, str>),
}

impl Merge<'_> {
    /// Both sides.
    pub(super) fn sides(&self) -> Option<(&str, &str)> {
        match self {
            Merge::One(text) => text.split_once(' '),
            Merge::Two(left, right) => Some((left, right)),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Merge<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Merge<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("two tokens")
            }
            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Merge<'de>, E> {
                Ok(Merge::One(Cow::Borrowed(text)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Merge<'de>, E> {
                Ok(Merge::One(Cow::Owned(text.to_owned())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merge<'de>, A::Error> {
                let mut next =
                    || seq.next_element::<Text<'de>>()?.ok_or_else(|| de::Error::custom("a merge of two tokens"));
                let (Text(left), Text(right)) = (next()?, next()?);
                match seq.next_element::<Text<'de>>()? {
                    None => Ok(Merge::Two(left, right)),
                    Some(_) => Err(de::Error::custom("a merge of more than two tokens")),
                }
            }
        }
        deserializer.deserialize_any(Either)
    }
}
