//! What the APIs' handlers share in shaping requests and answers: identifiers, seconds, log-probabilities, who may be
//! asked what. The JSON of a single API is that API's own.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ir_engine::run::{Logprob, Logprobs};
use ir_engine::text::chat::Message;
use serde::Serialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use utoipa::ToSchema;

use super::ignored::Ignored;
use crate::engine::error::{ApiError, cut};
use crate::generate::job::{Chat, Job, Prompt, Think};
use crate::models::loaded::Loaded;

/// A name that no other answer has: the prefix and 24 letters and digits.
pub(crate) fn new_id(prefix: &str) -> String {
    const DIGITS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut id = prefix.to_owned();
    for word in 0..2u64 {
        // The standard library keys its hash tables with the system's randomness, each anew.
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u64(word);
        let mut bits = hasher.finish();
        for _ in 0..12 {
            id.push(DIGITS[(bits % 36) as usize] as char);
            bits /= 36;
        }
    }
    id
}

/// Seconds since 1970.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// RFC 3339 in UTC with nanoseconds.
pub(crate) fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = ((since.as_secs() / 86_400) as i64, since.as_secs() % 86_400);
    // Days to a date, by Howard Hinnant's `civil_from_days`, for dates after 1970.
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", since.subsec_nanos())
}

/// Milliseconds.
pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// One token's log-probability and the most likely tokens', as Ollama and OpenAI's chats write them.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct TokenLogprob {
    /// The token's text; broken characters are replaced.
    token: String,
    /// Natural logarithm of its probability; -9999 where it cannot happen.
    logprob: f32,
    /// The token's bytes.
    bytes: Vec<u8>,
    /// The most likely tokens, most likely first.
    top_logprobs: Vec<TopLogprob>,
}

/// One of the most likely tokens.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct TopLogprob {
    /// The token's text; broken characters are replaced.
    token: String,
    /// Natural logarithm of its probability; -9999 where it cannot happen.
    logprob: f32,
    /// The token's bytes.
    bytes: Vec<u8>,
}

/// A token's text, broken characters replaced.
pub(crate) fn token_text(logprob: &Logprob) -> String {
    String::from_utf8_lossy(&logprob.bytes).into_owned()
}

/// JSON has no infinities: what cannot happen gets the least number that clients expect.
pub(crate) fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { -9999.0 }
}

/// Log-probabilities as clients get them.
pub(crate) fn token_logprobs(all: &[Logprobs]) -> Vec<TokenLogprob> {
    let top = |l: &Logprob| TopLogprob { token: token_text(l), logprob: finite(l.logprob), bytes: l.bytes.clone() };
    let one = |l: &Logprobs| TokenLogprob {
        token: token_text(&l.chosen),
        logprob: finite(l.chosen.logprob),
        bytes: l.chosen.bytes.clone(),
        top_logprobs: l.top.iter().map(top).collect(),
    };
    all.iter().map(one).collect()
}

/// What a model does not do, as Ollama says it.
pub(crate) fn cannot(name: &str, what: &str) -> ApiError {
    ApiError::invalid(format!("{:?} does not support {what}", cut(name, 200)))
}

/// Refuses a chat that the model cannot have. A wish for reasoning is dropped where the model does not reason, unless that
/// is to be refused (`think_or_refuse`).
///
/// # Errors
/// A model without a template, or tools where they are asked for.
pub(crate) fn check_chat(
    model: &Loaded,
    job: &mut Job,
    think_or_refuse: bool,
    ignored: &Ignored,
) -> Result<(), ApiError> {
    let name = &job.model.name;
    if let Prompt::Chat(chat) | Prompt::Continue { chat, .. } = &job.prompt {
        let template = model.model().template().is_some() || chat.template.is_some();
        if !template || !model.capabilities.completion {
            return Err(cannot(name, "chat"));
        }
        if !chat.tools.is_empty() && !model.capabilities.tools {
            return Err(cannot(name, "tools"));
        }
    }
    let asked = matches!(job.think, Think::On | Think::Effort(_));
    if asked && !model.capabilities.thinking {
        if think_or_refuse {
            return Err(cannot(name, "thinking"));
        }
        ignored.note("reasoning of a model that does not reason");
        job.think = Think::Default;
    }
    Ok(())
}

/// A chat of these turns.
pub(crate) fn chat_of(messages: Vec<Message>) -> Chat {
    Chat { messages, parallel_calls: true, ..Chat::default() }
}

/// A whole number, also where it is written as `10.0`, as some languages do; absent where it is null.
pub(crate) fn whole<'de, D: Deserializer<'de>, T: TryFrom<i128>>(from: D) -> Result<Option<T>, D::Error> {
    Option::<Number>::deserialize(from)?.map(to_whole).transpose()
}

/// A whole number, also where it is written as `10.0`.
pub(crate) fn whole_number<'de, D: Deserializer<'de>, T: TryFrom<i128>>(from: D) -> Result<T, D::Error> {
    to_whole(Number::deserialize(from)?)
}

fn to_whole<T: TryFrom<i128>, E: serde::de::Error>(number: Number) -> Result<T, E> {
    // Beyond 2^53 a float no longer says which whole number it means.
    let float = || number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() <= 9_007_199_254_740_992.0);
    let exact = number.as_i128().or_else(|| float().map(|f| f as i128)).and_then(|n| T::try_from(n).ok());
    exact.ok_or_else(|| E::custom(format!("invalid value: {number} is no whole number of this field's range")))
}

/// A text, or a list of something: how several fields may be written. Errors within the list keep their place.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum TextOr<T> {
    /// A text by itself.
    Text(String),
    /// A list.
    List(Vec<T>),
}

impl<T> Default for TextOr<T> {
    fn default() -> Self {
        TextOr::Text(String::new())
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for TextOr<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader<T>(std::marker::PhantomData<T>);
        impl<'de, T: DeserializeOwned> Visitor<'de> for Reader<T> {
            type Value = TextOr<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or a list")
            }

            fn visit_str<E>(self, text: &str) -> Result<TextOr<T>, E> {
                Ok(TextOr::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<TextOr<T>, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(TextOr::List)
            }

            // One by itself, as some clients write a list of one.
            fn visit_map<A: MapAccess<'de>>(self, one: A) -> Result<TextOr<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(one)).map(|one| TextOr::List(vec![one]))
            }
        }
        from.deserialize_any(Reader(std::marker::PhantomData))
    }
}

impl TextOr<String> {
    /// All of them.
    pub(crate) fn into_texts(self) -> Vec<String> {
        match self {
            TextOr::Text(text) => vec![text],
            TextOr::List(list) => list,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_dates() {
        let at = |seconds| timestamp(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(951_827_696), "2000-02-29T12:34:56.000000000Z");
        assert_eq!(at(1_798_761_599), "2026-12-31T23:59:59.000000000Z");
    }

    #[test]
    fn identifiers_differ_and_are_plain() {
        let ids: std::collections::HashSet<String> = (0..1000).map(|_| new_id("x-")).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 26 && id[2..].bytes().all(|b| b.is_ascii_alphanumeric())));
    }

    #[test]
    fn texts_and_lists_read_and_name_what_is_wrong() {
        let read = |text: &str| crate::api::common::body::parse::<TextOr<u32>>(text.as_bytes());
        assert_eq!(read("\"a\""), Ok(TextOr::Text("a".into())));
        assert_eq!(read("[1, 2]"), Ok(TextOr::List(vec![1, 2])));
        let wrong = read("[1, \"x\"]").err().map(|e| (e.param, e.message));
        let (param, message) = wrong.unwrap_or_default();
        assert!(param.as_deref() == Some("[1]") && message.contains("invalid type: string"), "{message}");
        assert!(read("true").is_err_and(|e| e.message.contains("a string or a list")));
        assert!(read("{}").is_err_and(|e| e.message.contains("expected u32")));
        let one = crate::api::common::body::parse::<TextOr<serde_json::Map<String, serde_json::Value>>>(b"{\"a\": 1}");
        assert!(matches!(one, Ok(TextOr::List(list)) if list.len() == 1));
    }
}
