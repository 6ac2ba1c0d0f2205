//! What crosses between JavaScript and the engine, as JSON: how to load, what to generate, and events. The engine's own
//! `Request` and `Event` in the words of JavaScript; unknown fields are refused, not ignored.

use std::collections::HashMap;

use ir_engine::model::Model;
use ir_engine::run::{
    AnswerReader, ChatInput, ChatTurn, Event, FinishReason, Logprob, Logprobs, Part, Request, Sampling, SeqId, Usage,
    prompt_ids,
};
use ir_engine::text::chat::{Message, Now};
use ir_engine::text::constrain::Constraint;
use ir_engine::{Error, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::error;

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
    /// Steps that follow one another on a GPU without the host, at most; as measured times say where absent.
    pub chain: Option<usize>,
    /// The model's file, or the parts of a split one.
    pub files: Vec<FileOptions>,
}

/// A file that is to be fed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FileOptions {
    /// For sentences about it.
    pub name: String,
    /// Its bytes.
    pub size: f64,
    /// Its SHA-256 in hexadecimal, to be checked.
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
    /// Markup that is spelled in a message (`<|im_end|>`) is markup; otherwise it is text.
    pub parse_special: bool,
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
    /// The turn that it is, and the engine's request for it. `constraint`: what the answer must conform to.
    ///
    /// # Errors
    /// None or several of messages, prompt and tokens; a template that refuses the messages.
    pub fn into_request(self, model: &Model, constraint: Option<Constraint>) -> Result<(ChatTurn, Request)> {
        let turn = match &self {
            Generate { messages: Some(messages), prompt: None, tokens: None, tools, think, seed, .. } => {
                let now = Now { unix_seconds: self.unix_seconds, utc_offset: self.utc_offset };
                let (think, seed, parse_special) = (*think, *seed, self.parse_special);
                let more = ChatInput { parse_special, ..ChatInput::default() };
                ChatTurn::new(model, &ChatInput { messages, tools, think, now, seed, ..more })?
            }
            Generate { messages: None, prompt: Some(text), tokens: None, .. } => {
                ChatTurn::plain(prompt_ids(model.tokenizer(), text))
            }
            Generate { messages: None, prompt: None, tokens: Some(ids), .. } => ChatTurn::plain(ids.clone()),
            _ => return Err(Error::request("give either messages, or a prompt, or tokens")),
        };
        let request = Request {
            max_tokens: self.max_tokens,
            sampling: self.sampling(Sampling::from_meta(model.meta())),
            stop: self.stop,
            ignore_eos: self.ignore_eos,
            show_special: self.show_special,
            logprobs: self.logprobs,
            ..turn.request(model.tokenizer(), constraint)
        };
        Ok((turn, request))
    }

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

/// The answers under way: what reads each of them.
#[derive(Debug, Default)]
pub struct Answers(HashMap<SeqId, AnswerReader>);

impl Answers {
    /// Has a sequence's answer read.
    pub fn insert(&mut self, seq: SeqId, reader: AnswerReader) {
        self.0.insert(seq, reader);
    }

    /// An event in the words of JavaScript, its text parted into thinking, answer and calls.
    pub fn event(&mut self, event: &Event) -> Value {
        let (seq, mut parts) = (event.seq(), Vec::new());
        let told = match event {
            Event::Token { id, text, logprobs, .. } => {
                if let Some(reader) = self.0.get_mut(&seq) {
                    reader.push(text, &mut parts);
                }
                let mut token = json!({ "type": "token", "token": id });
                if let Some(logprobs) = logprobs {
                    token["logprobs"] = self::logprobs(logprobs);
                }
                token
            }
            Event::Embedding { values, usage, .. } => {
                json!({ "type": "embedding", "values": values, "usage": self::usage(usage) })
            }
            Event::Done { reason, usage, .. } => {
                let mut reader = self.0.remove(&seq).unwrap_or_default();
                match reason {
                    FinishReason::Length => reader.cut(&mut parts),
                    _ => reader.finish(&mut parts),
                }
                let calls = matches!(reason, FinishReason::Stop(_)) && reader.n_calls() > 0;
                let stop = if let FinishReason::Stop(stop) = reason { *stop } else { None };
                let reason = if calls { "tool_calls" } else { reason.name() };
                json!({ "type": "done", "reason": reason, "stop": stop, "usage": self::usage(usage) })
            }
            Event::Error { error, .. } => {
                self.0.remove(&seq);
                json!({ "type": "error", "code": error::code(error), "message": error.to_string() })
            }
        };
        with_parts(told, seq, parts)
    }
}

/// An event with its sequence, and with the new text of each kind where it may have some.
fn with_parts(mut event: Value, seq: SeqId, parts: Vec<Part>) -> Value {
    event["seq"] = seq.0.into();
    if event["type"] != "token" && event["type"] != "done" {
        return event;
    }
    let (mut text, mut thinking, mut calls) = (String::new(), String::new(), Vec::new());
    for part in parts {
        match part {
            Part::Text(more) => text.push_str(&more),
            Part::Thinking(more) => thinking.push_str(&more),
            Part::CallStart { index, id, name } => {
                calls.push(json!({ "type": "start", "index": index, "id": id, "name": name }));
            }
            Part::CallArguments { index, fragment } => {
                calls.push(json!({ "type": "arguments", "index": index, "fragment": fragment }));
            }
            Part::CallEnd { index, call } => calls.push(json!({ "type": "end", "index": index, "call": call })),
            Part::CallBroken { index } => calls.push(json!({ "type": "broken", "index": index })),
        }
    }
    (event["text"], event["thinking"]) = (text.into(), thinking.into());
    if !calls.is_empty() {
        event["calls"] = calls.into();
    }
    event
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
