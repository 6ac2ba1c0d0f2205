//! What Ollama's clients get back: chunks, the last record with its counts, whole answers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::response::Response;
use futures_util::stream::unfold;
use ir_engine::text::chat::ToolCall;
use serde_json::{Map, Value as Json, json};

use crate::error::{ApiError, Flavour};
use crate::http;
use crate::job::{Answer, Delta, Done, Event, Part, Reason};
use crate::running::Running;
use crate::shape::token_logprobs;

/// Whose form an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `/api/generate`: the text is `response`; `raw` leaves out `context`.
    Generate { raw: bool },
    /// `/api/chat`: the text is in a `message`.
    Chat,
}

/// A running job as a response.
pub(super) async fn respond(running: Running, model: String, shape: Shape, stream: bool) -> Result<Response, ApiError> {
    if !stream {
        let answer = running.collect().await?.into_iter().next();
        let answer = answer.ok_or_else(|| ApiError::new(crate::Kind::Internal, "the answer was lost"))?;
        return Ok(http::json(&whole(&answer, &model, shape)));
    }
    let lines = unfold(Some(running), move |state| {
        let model = model.clone();
        async move {
            let mut running = state?;
            loop {
                let (line, go_on) = match running.next().await?.event {
                    Event::Delta(delta) => match chunk(delta, &model, shape) {
                        Some(line) => (line, true),
                        None => continue,
                    },
                    Event::Done(done) => (last(Content::default(), &done, &model, shape), false),
                    Event::Failed(error) => (error.body(Flavour::Ollama), false),
                };
                return Some((line, go_on.then_some(running)));
            }
        }
    });
    Ok(http::ndjson(lines))
}

/// The answer to an empty prompt.
pub(super) fn loaded(model: &str, shape: Shape, reason: &str) -> Response {
    let mut record = record(Content::default(), model, shape, true);
    record.insert("done_reason".into(), reason.into());
    http::json(&Json::Object(record))
}

#[derive(Debug, Default)]
struct Content {
    text: String,
    thinking: String,
    calls: Vec<Json>,
}

fn whole(answer: &Answer, model: &str, shape: Shape) -> Json {
    let calls = answer.calls.iter().enumerate().map(|(i, c)| call(i, c)).collect();
    let content = Content { text: answer.text.clone(), thinking: answer.thinking.clone(), calls };
    let mut line = last(content, &answer.done, model, shape);
    if !answer.logprobs.is_empty() {
        line["logprobs"] = json!(token_logprobs(&answer.logprobs));
    }
    line
}

/// A delta as a line; `None` where it shows nothing, such as a call that is under way.
fn chunk(delta: Delta, model: &str, shape: Shape) -> Option<Json> {
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
    let mut record = record(content, model, shape, false);
    if !delta.logprobs.is_empty() {
        record.insert("logprobs".into(), json!(token_logprobs(&delta.logprobs)));
    }
    Some(Json::Object(record))
}

fn last(content: Content, done: &Done, model: &str, shape: Shape) -> Json {
    let mut record = record(content, model, shape, true);
    let reason = if done.reason == Reason::Length { "length" } else { "stop" };
    record.insert("done_reason".into(), reason.into());
    if shape == (Shape::Generate { raw: false }) {
        record.insert("context".into(), done.tokens.clone().into());
    }
    let usage = &done.usage;
    let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    let counts = [
        ("total_duration", nanos(usage.total)),
        ("load_duration", nanos(usage.load)),
        ("prompt_eval_count", usage.prompt_tokens as u64),
        ("prompt_eval_duration", nanos(usage.prompt)),
        ("eval_count", usage.completion_tokens as u64),
        ("eval_duration", nanos(usage.generation)),
        // Not Ollama's: what it would have done without a word.
        ("dropped_messages", usage.dropped_messages as u64),
    ];
    for (name, value) in counts.into_iter().filter(|(_, value)| *value > 0) {
        record.insert(name.into(), value.into());
    }
    Json::Object(record)
}

fn record(content: Content, model: &str, shape: Shape, done: bool) -> Map<String, Json> {
    let mut map = Map::new();
    map.insert("model".into(), model.into());
    map.insert("created_at".into(), timestamp(SystemTime::now()).into());
    let text_key = if shape == Shape::Chat { "content" } else { "response" };
    let mut inner = Map::new();
    if shape == Shape::Chat {
        inner.insert("role".into(), "assistant".into());
    }
    inner.insert(text_key.into(), content.text.into());
    if !content.thinking.is_empty() {
        inner.insert("thinking".into(), content.thinking.into());
    }
    if !content.calls.is_empty() {
        inner.insert("tool_calls".into(), content.calls.into());
    }
    match shape {
        Shape::Chat => {
            map.insert("message".into(), inner.into());
        }
        Shape::Generate { .. } => map.extend(inner),
    }
    map.insert("done".into(), done.into());
    map
}

fn call(index: usize, call: &ToolCall) -> Json {
    json!({"id": call.id, "function": {"index": index, "name": call.name, "arguments": call.arguments}})
}

/// RFC 3339 in UTC with nanoseconds.
pub(super) fn timestamp(time: SystemTime) -> String {
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
}
