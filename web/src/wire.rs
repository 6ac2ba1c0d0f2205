//! What crosses between JavaScript and the engine, as JSON: how to load, what to generate, and events. The engine's own
//! `Request` and `Event` in the words of JavaScript; unknown fields are refused, not ignored.

use ir_engine::run::{Event, Logprob, Logprobs, Sampling, Usage};
use ir_engine::text::chat::Message;
use ir_engine::{Error, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::fault;

/// Where and how a model is to be run.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LoadOptions {
    /// On the GPU; on the CPU otherwise.
    pub gpu: bool,
    /// The page's host adds `subgroups` to what is asked of the browser, since wgpu does not.
    pub subgroups: bool,
    /// Takes a software adapter's f16 and subgroups too: for tests, since they are no faster there.
    pub all_forms: bool,
    /// Threads that compute; 1 where the module has none.
    pub threads: Option<usize>,
    /// Tokens of a conversation at most.
    pub context_length: Option<usize>,
    /// Bytes that keys and values may take.
    pub cache_bytes: Option<f64>,
    /// The file's SHA-256 in hexadecimal, to be checked.
    pub sha256: Option<String>,
}

/// What to generate: a chat's answer, or a text's continuation.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Generate {
    /// The chat so far.
    pub messages: Option<Vec<Message>>,
    /// Text to continue.
    pub prompt: Option<String>,
    /// Token ids to continue.
    pub tokens: Option<Vec<u32>>,
    /// Definitions of tools for the template.
    pub tools: Vec<Value>,
    /// Asks the template for reasoning, or for none.
    pub think: Option<bool>,
    /// Seconds since 1970, for templates that write a date.
    pub unix_seconds: i64,
    /// What local time is ahead of UTC, in seconds.
    pub utc_offset: i32,
    /// Tokens to generate at most.
    pub max_tokens: Option<usize>,
    /// The answer ends before the first of these.
    pub stop: Vec<String>,
    /// Goes on past the end-of-generation tokens.
    pub ignore_eos: bool,
    /// Control tokens appear in the text.
    pub show_special: bool,
    /// Reports log-probabilities: the token's own and those of this many others.
    pub logprobs: Option<usize>,
    /// See [`Sampling`]; each field where the request does not leave it to the file's own recommendation.
    pub temperature: Option<f32>,
    /// See [`Sampling`].
    pub top_k: Option<usize>,
    /// See [`Sampling`].
    pub top_p: Option<f32>,
    /// See [`Sampling`].
    pub min_p: Option<f32>,
    /// See [`Sampling`].
    pub typical_p: Option<f32>,
    /// See [`Sampling`].
    pub repeat_penalty: Option<f32>,
    /// See [`Sampling`].
    pub presence_penalty: Option<f32>,
    /// See [`Sampling`].
    pub frequency_penalty: Option<f32>,
    /// See [`Sampling`]; negative means all tokens.
    pub repeat_last_n: Option<i64>,
    /// See [`Sampling`].
    pub seed: u64,
    /// See [`Sampling`]: pairs of a token id and what is added, `null` for minus infinity.
    pub logit_bias: Vec<(u32, Option<f32>)>,
}

impl Generate {
    /// How tokens are to be chosen, on top of what the file recommends.
    pub fn sampling(&self, recommended: Sampling) -> Sampling {
        let r = recommended;
        let window = |n: i64| usize::try_from(n).unwrap_or(usize::MAX);
        Sampling {
            temperature: self.temperature.unwrap_or(r.temperature),
            top_k: self.top_k.unwrap_or(r.top_k),
            top_p: self.top_p.unwrap_or(r.top_p),
            min_p: self.min_p.unwrap_or(r.min_p),
            typical_p: self.typical_p.unwrap_or(r.typical_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(r.repeat_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(r.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(r.frequency_penalty),
            repeat_last_n: self.repeat_last_n.map_or(r.repeat_last_n, window),
            seed: self.seed,
            logit_bias: self.logit_bias.iter().map(|(id, b)| (*id, b.unwrap_or(f32::NEG_INFINITY))).collect(),
        }
    }
}

/// Reads a JSON object that JavaScript sent.
///
/// # Errors
/// [`Error::Request`] with what does not fit.
pub fn read<T: DeserializeOwned>(json: &str) -> Result<T> {
    // Else a list would be taken for the fields in their order.
    if !json.trim_start().starts_with('{') {
        return Err(Error::request("the options do not fit: they are no object"));
    }
    serde_json::from_str(json).map_err(|error| Error::request(format!("the options do not fit: {error}")))
}

/// Writes JSON for JavaScript.
///
/// # Errors
/// Never in practice: what is written is plain data.
pub fn write<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::request(format!("the answer cannot be written: {error}")))
}

/// An event, with its text already parted into thinking and answer.
pub fn event(event: &Event, thinking: &str, text: &str) -> Value {
    let seq = event.seq().0;
    match event {
        Event::Token { id, logprobs, .. } => {
            let mut token = json!({ "type": "token", "seq": seq, "token": id, "text": text, "thinking": thinking });
            if let Some(logprobs) = logprobs {
                token["logprobs"] = self::logprobs(logprobs);
            }
            token
        }
        Event::Embedding { values, usage, .. } => {
            json!({ "type": "embedding", "seq": seq, "values": values, "usage": self::usage(usage) })
        }
        Event::Done { reason, usage, .. } => json!({
            "type": "done", "seq": seq, "text": text, "thinking": thinking, "reason": reason.name(),
            "usage": self::usage(usage),
        }),
        Event::Error { error, .. } => {
            json!({ "type": "error", "seq": seq, "code": fault::code(error), "message": error.to_string() })
        }
    }
}

fn usage(of: &Usage) -> Value {
    json!({
        "promptTokens": of.prompt_tokens,
        "cachedTokens": of.cached_tokens,
        "completionTokens": of.completion_tokens,
        "queuedSeconds": of.queued,
        "promptSeconds": of.prompt,
        "generationSeconds": of.generation,
    })
}

fn logprobs(of: &Logprobs) -> Value {
    let one = |l: &Logprob| json!({ "id": l.id, "logprob": l.logprob, "text": String::from_utf8_lossy(&l.bytes), "bytes": l.bytes });
    json!({ "chosen": one(&of.chosen), "top": of.top.iter().map(one).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_changes_only_what_it_names() {
        let generate: Generate = read(r#"{"prompt":"a","topK":3,"repeatLastN":-1,"logitBias":[[5,null]]}"#).unwrap();
        let sampling = generate.sampling(Sampling::default());
        assert_eq!((sampling.top_k, sampling.repeat_last_n), (3, usize::MAX));
        assert_eq!(sampling.logit_bias, [(5, f32::NEG_INFINITY)]);
        assert_eq!(sampling.temperature, Sampling::default().temperature);
    }

    #[test]
    fn unknown_options_are_refused() {
        for json in [r#"{"prompt":"a","topk":3}"#, r#"{"maxTokens":-1}"#, "[]", ""] {
            let error = read::<Generate>(json).unwrap_err();
            assert!(error.to_string().starts_with("the options do not fit"), "{error}");
        }
    }
}
