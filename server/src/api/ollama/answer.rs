//! What Ollama's clients get back: chunks, the last record with its counts, whole answers.

use std::time::{Duration, SystemTime};

use axum::response::Response;
use ir_engine::text::chat::ToolCall;
use serde::Serialize;
use serde_json::Value as Json;
use utoipa::ToSchema;

use crate::api::common::body as http;
use crate::api::common::stream::{EventEncoder, Frames, answers};
use crate::api::common::util::{TokenLogprob, timestamp, token_logprobs};
use crate::engine::error::{ApiError, Kind};
use crate::generate::job::{Answer, Delta, Done, Part, Reason};
use crate::generate::running::Running;

/// Whose form an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `/api/generate`: the text is `response`; `raw` leaves out `context`.
    Generate { raw: bool },
    /// `/api/chat`: the text is in a `message`.
    Chat,
}

/// An answer, or a piece of one.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Record<T> {
    /// The model's name as it was asked for.
    model: String,
    /// RFC 3339, in UTC.
    created_at: String,
    /// What was generated.
    #[serde(flatten)]
    content: T,
    /// Whether nothing follows.
    done: bool,
    /// `stop`, `length`, `load` or `unload`; in the last record.
    #[serde(skip_serializing_if = "Option::is_none")]
    done_reason: Option<&'static str>,
    /// What `/api/generate` can go on from; in the last record.
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<Vec<u32>>,
    /// In the last record.
    #[serde(flatten)]
    counts: Counts,
    /// Where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<TokenLogprob>>,
}

/// What an answer took; zeros are left out.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct Counts {
    /// Nanoseconds from the request to its end.
    #[serde(skip_serializing_if = "is_zero")]
    total_duration: u64,
    /// Nanoseconds of loading the model.
    #[serde(skip_serializing_if = "is_zero")]
    load_duration: u64,
    /// Tokens of the prompt.
    #[serde(skip_serializing_if = "is_zero")]
    prompt_eval_count: u64,
    /// Nanoseconds of computing the prompt.
    #[serde(skip_serializing_if = "is_zero")]
    prompt_eval_duration: u64,
    /// Tokens generated.
    #[serde(skip_serializing_if = "is_zero")]
    eval_count: u64,
    /// Nanoseconds of generating.
    #[serde(skip_serializing_if = "is_zero")]
    eval_duration: u64,
    /// Turns that did not fit and were dropped. (Not Ollama's: what it would have done without a word.)
    #[serde(skip_serializing_if = "is_zero")]
    dropped_messages: u64,
}

/// What `/api/generate` generates.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct Generated {
    /// Text of the answer.
    response: String,
    /// Text of the reasoning.
    #[serde(skip_serializing_if = "String::is_empty")]
    thinking: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<OllamaCall>,
}

/// What `/api/chat` generates.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Chatted {
    message: OllamaMessage,
}

/// The assistant's turn.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OllamaMessage {
    role: &'static str,
    /// Text of the answer.
    content: String,
    /// Text of the reasoning.
    #[serde(skip_serializing_if = "String::is_empty")]
    thinking: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<OllamaCall>,
}

/// A call of a tool.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OllamaCall {
    #[schema(required = true)]
    id: Option<String>,
    function: OllamaFunction,
}

/// What is called.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OllamaFunction {
    /// Its number among the answer's calls.
    index: usize,
    name: String,
    #[schema(value_type = Object)]
    arguments: Json,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Nanoseconds.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Writes a job's records, one to a line.
#[derive(Debug)]
pub(super) struct RecordEncoder {
    model: String,
    endpoint: Endpoint,
}

impl RecordEncoder {
    /// For the model as it was asked for.
    pub(super) fn new(model: String, endpoint: Endpoint) -> RecordEncoder {
        RecordEncoder { model, endpoint }
    }
}

impl EventEncoder for RecordEncoder {
    const CONTENT_TYPE: &'static str = "application/x-ndjson";
    type Whole = Json;

    async fn whole(self, running: Vec<Running>) -> Result<Json, ApiError> {
        let answer = answers(running).await?.into_iter().next();
        let answer = answer.ok_or_else(|| ApiError::new(Kind::Internal, "the answer was lost"))?;
        let (model, endpoint) = (self.model.as_str(), self.endpoint);
        let part = RecordParts { model, endpoint, content: Content::of(&answer), logprobs: &answer.logprobs };
        Ok(part.last(&answer.done))
    }

    fn begin(&mut self, _: &mut Frames) {}

    fn delta(&mut self, _: usize, delta: Delta, out: &mut Frames) {
        if let Some(record) = chunk(delta, &self.model, self.endpoint) {
            out.line(&record);
        }
    }

    fn done(&mut self, _: usize, done: Done, out: &mut Frames) {
        out.line(&RecordParts::nothing(&self.model, self.endpoint).last(&done));
    }

    fn end(&mut self, _: &mut Frames) {}

    fn failed(&mut self, error: &ApiError, out: &mut Frames) {
        out.line(&super::error_json(error));
    }

    /// Lines have no comments.
    fn idle(&mut self, _: &mut Frames) {}
}

/// The answer to an empty prompt.
pub(super) fn loaded(model: &str, endpoint: Endpoint, reason: &'static str) -> Response {
    http::json(&RecordParts::nothing(model, endpoint).record(Some(reason), None, Counts::default()))
}

#[derive(Debug, Default)]
struct Content {
    text: String,
    thinking: String,
    calls: Vec<OllamaCall>,
}

impl Content {
    fn of(answer: &Answer) -> Content {
        let calls = answer.calls.iter().enumerate().map(|(i, c)| call(i, c)).collect();
        Content { text: answer.text.clone(), thinking: answer.thinking.clone(), calls }
    }
}

/// A delta as a line; `None` where it shows nothing, such as a call that is under way.
fn chunk(delta: Delta, model: &str, endpoint: Endpoint) -> Option<Json> {
    let mut content = Content::default();
    for part in delta.parts {
        match part {
            Part::Text(text) => content.text.push_str(&text),
            Part::Thinking(text) => content.thinking.push_str(&text),
            Part::CallEnd { index, call: done } => content.calls.push(call(index, &done)),
            Part::CallStart { .. } | Part::CallArguments { .. } | Part::CallBroken { .. } => {}
        }
    }
    let empty = content.text.is_empty() && content.thinking.is_empty() && content.calls.is_empty();
    if empty && delta.logprobs.is_empty() {
        return None;
    }
    let part = RecordParts { model, endpoint, content, logprobs: &delta.logprobs };
    Some(part.record(None, None, Counts::default()))
}

/// A part of an answer about to be written down.
struct RecordParts<'a> {
    model: &'a str,
    endpoint: Endpoint,
    content: Content,
    logprobs: &'a [ir_engine::run::Logprobs],
}

impl<'a> RecordParts<'a> {
    fn nothing(model: &'a str, endpoint: Endpoint) -> RecordParts<'a> {
        RecordParts { model, endpoint, content: Content::default(), logprobs: &[] }
    }

    /// The last record.
    fn last(self, done: &Done) -> Json {
        let usage = &done.usage;
        let counts = Counts {
            total_duration: nanos(usage.total),
            load_duration: nanos(usage.load),
            prompt_eval_count: usage.prompt_tokens as u64,
            prompt_eval_duration: nanos(usage.prompt),
            eval_count: usage.completion_tokens as u64,
            eval_duration: nanos(usage.generation),
            dropped_messages: usage.dropped_messages as u64,
        };
        let reason = if done.reason == Reason::Length { "length" } else { "stop" };
        let context = (self.endpoint == Endpoint::Generate { raw: false }).then(|| done.tokens.clone());
        self.record(Some(reason), context, counts)
    }

    /// A record; it is the last where there is a reason to end.
    fn record(self, done_reason: Option<&'static str>, context: Option<Vec<u32>>, counts: Counts) -> Json {
        let Content { text, thinking, calls: tool_calls } = self.content;
        let logprobs = (!self.logprobs.is_empty()).then(|| token_logprobs(self.logprobs));
        let (model, created_at, done) = (self.model.into(), timestamp(SystemTime::now()), done_reason.is_some());
        match self.endpoint {
            Endpoint::Chat => {
                let content =
                    Chatted { message: OllamaMessage { role: "assistant", content: text, thinking, tool_calls } };
                http::to_json(&Record { model, created_at, content, done, done_reason, context, counts, logprobs })
            }
            Endpoint::Generate { .. } => {
                let content = Generated { response: text, thinking, tool_calls };
                http::to_json(&Record { model, created_at, content, done, done_reason, context, counts, logprobs })
            }
        }
    }
}

fn call(index: usize, call: &ToolCall) -> OllamaCall {
    let function = OllamaFunction { index, name: call.name.clone(), arguments: call.arguments.clone() };
    OllamaCall { id: call.id.clone(), function }
}
