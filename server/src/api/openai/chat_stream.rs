//! The chunks of a streamed `/v1/chat/completions`. The whole answer, and what both share, is `chat_answer`'s.

use serde::Serialize;
use utoipa::ToSchema;

use super::FINGERPRINT;
use super::chat_answer::{CallForms, ChatCall, ChatCompletion, ChatFunction, ChatLogprobs, ChatText, Head, logprobs};
use super::usage::{Timings, Usage};
use crate::api::common::openai_error::openai_error;
use crate::api::common::stream::{EventEncoder, Frames, answers};
use crate::api::common::tools::text_argument;
use crate::engine::error::ApiError;
use crate::generate::job::{Delta, Done, Part};
use crate::generate::running::Running;

/// A part of a streamed answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatChunk {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    system_fingerprint: &'static str,
    choices: Vec<ChunkChoice>,
    /// Only where `include_usage` is set: null but in the last chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
    /// In the last chunk of a choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
}

/// What was added to one of the completions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChunkChoice {
    index: usize,
    delta: ChunkDelta,
    #[schema(required = true)]
    finish_reason: Option<&'static str>,
    #[schema(required = true)]
    logprobs: Option<ChatLogprobs>,
}

/// What was added.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct ChunkDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ChatCall>,
    /// The call, where the request gave `functions` instead of tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    function_call: Option<ChatFunction>,
}

/// Writes a chat's chunks.
#[derive(Debug)]
pub(super) struct ChatEncoder {
    head: Head,
    n: usize,
    counts: bool,
    usage: Usage,
    calls: CallForms,
    /// Calls that take a text, by completion and number: what comes of them till they are whole is not sent.
    texts: Vec<(usize, usize)>,
}

impl ChatEncoder {
    /// For `n` completions; `counts` ends the stream with the usage.
    pub(super) fn new(head: Head, n: usize, counts: bool, calls: CallForms) -> ChatEncoder {
        ChatEncoder { head, n, counts, usage: Usage::default(), calls, texts: Vec::new() }
    }

    fn chunk(&self, choices: Vec<ChunkChoice>) -> ChatChunk {
        ChatChunk {
            id: self.head.id.clone(),
            object: "chat.completion.chunk",
            created: self.head.created,
            model: self.head.model.clone(),
            system_fingerprint: FINGERPRINT,
            choices,
            usage: self.counts.then_some(None),
            timings: None,
        }
    }
}

impl EventEncoder for ChatEncoder {
    type Whole = ChatCompletion;

    async fn whole(self, running: Vec<Running>) -> Result<ChatCompletion, ApiError> {
        Ok(ChatCompletion::new(self.head, answers(running).await?, &self.calls))
    }

    fn begin(&mut self, out: &mut Frames) {
        for index in 0..self.n {
            let delta = ChunkDelta { role: Some("assistant"), content: Some(String::new()), ..ChunkDelta::default() };
            out.data(&self.chunk(vec![ChunkChoice { index, delta, finish_reason: None, logprobs: None }]));
        }
    }

    fn delta(&mut self, choice: usize, mut delta: Delta, out: &mut Frames) {
        let logprobs = logprobs(&delta.logprobs);
        delta.parts.retain(|part| match part {
            Part::CallStart { index, name, .. } => {
                if self.calls.is_text(name) {
                    self.texts.push((choice, *index));
                }
                true
            }
            Part::CallArguments { index, .. } => !self.texts.contains(&(choice, *index)),
            _ => true,
        });
        let delta = ChunkDelta::new(delta.parts, &self.calls);
        if logprobs.is_some() || !delta.is_empty() {
            out.data(&self.chunk(vec![ChunkChoice { index: choice, delta, finish_reason: None, logprobs }]));
        }
    }

    fn done(&mut self, choice: usize, done: Done, out: &mut Frames) {
        self.usage.add(&done.usage, choice == 0);
        let finish_reason = Some(self.calls.finish_reason(done.reason));
        let last = ChunkChoice { index: choice, delta: ChunkDelta::default(), finish_reason, logprobs: None };
        out.data(&ChatChunk { timings: Some(Timings::new(&done.usage)), ..self.chunk(vec![last]) });
    }

    fn end(&mut self, out: &mut Frames) {
        if self.counts {
            out.data(&ChatChunk { usage: Some(Some(self.usage)), ..self.chunk(Vec::new()) });
        }
        out.done();
    }

    fn failed(&mut self, error: &ApiError, out: &mut Frames) {
        out.data(&openai_error(error));
        out.done();
    }
}

impl ChunkDelta {
    fn new(parts: Vec<Part>, forms: &CallForms) -> ChunkDelta {
        let mut delta = ChunkDelta::default();
        for part in parts {
            match part {
                Part::Text(text) => delta.content.get_or_insert_default().push_str(&text),
                Part::Thinking(text) => {
                    delta.reasoning.get_or_insert_default().push_str(&text);
                    delta.reasoning_content.get_or_insert_default().push_str(&text);
                }
                Part::CallStart { index, id, name } => delta.start(index, id, name, forms),
                Part::CallArguments { index, fragment } => delta.arguments(index, &fragment, forms),
                // A text stands in JSON until it is whole.
                Part::CallEnd { index, call } if forms.is_text(&call.name) => {
                    let custom = Some(ChatText { name: None, input: text_argument(&call.arguments) });
                    delta.tool_calls.push(ChatCall { index, custom, ..ChatCall::default() });
                }
                // All of a call has been sent. What begins as a call and is none cannot be taken back: its text follows.
                Part::CallEnd { .. } | Part::CallBroken { .. } => {}
            }
        }
        delta
    }

    fn start(&mut self, index: usize, id: String, name: String, forms: &CallForms) {
        if forms.older {
            // There is one, and no more.
            if index == 0 {
                self.function_call = Some(ChatFunction { name: Some(name), arguments: String::new() });
            }
            return;
        }
        let mut call = ChatCall { index, id: Some(id), ..ChatCall::default() };
        if forms.is_text(&name) {
            call.kind = Some("custom");
            call.custom = Some(ChatText { name: Some(name), input: String::new() });
        } else {
            call.kind = Some("function");
            call.function = Some(ChatFunction { name: Some(name), arguments: String::new() });
        }
        self.tool_calls.push(call);
    }

    fn arguments(&mut self, index: usize, fragment: &str, forms: &CallForms) {
        if forms.older {
            if index == 0 {
                self.function_call.get_or_insert_default().arguments.push_str(fragment);
            }
            return;
        }
        match self.tool_calls.last_mut() {
            Some(ChatCall { index: last, function: Some(function), .. }) if *last == index => {
                function.arguments.push_str(fragment);
            }
            _ => {
                let function = Some(ChatFunction { name: None, arguments: fragment.to_owned() });
                self.tool_calls.push(ChatCall { index, function, ..ChatCall::default() });
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.content.is_none() && self.reasoning.is_none() && self.tool_calls.is_empty() && self.function_call.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::common::stream::testing::{delta, done, encoded};
    use crate::generate::job::{Collector, Event, Reason};
    use ir_engine::text::chat::ToolCall;
    use serde_json::{Value as Json, json};

    fn head() -> Head {
        Head { id: "chatcmpl-x".into(), created: 5, model: "m".into() }
    }

    fn encoder(n: usize, counts: bool) -> ChatEncoder {
        ChatEncoder::new(head(), n, counts, CallForms::default())
    }

    fn call() -> Vec<Part> {
        let whole = ToolCall { id: Some("call_1".into()), name: "add".into(), arguments: json!({"a": 1}) };
        vec![
            Part::CallStart { index: 0, id: "call_1".into(), name: "add".into() },
            Part::CallArguments { index: 0, fragment: "{\"a\":".into() },
            Part::CallArguments { index: 0, fragment: "1}".into() },
            Part::CallEnd { index: 0, call: whole },
        ]
    }

    #[test]
    fn a_stream_of_text_has_role_text_reason_and_usage() {
        let events = vec![
            (0, delta(vec![Part::Thinking("hm".into())])),
            (0, delta(vec![Part::Text("Hel".into()), Part::Text("lo".into())])),
            (0, delta(Vec::new())),
            (0, done(Reason::Stop, 4)),
        ];
        let chunks = encoded(encoder(1, true), events);
        let chunks: Vec<Json> = chunks.into_iter().map(|(_, json)| json).collect();
        assert_eq!(chunks.len(), 6, "{chunks:#?}");
        assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
        assert_eq!(chunks[1]["choices"][0]["delta"], json!({"reasoning": "hm", "reasoning_content": "hm"}));
        assert_eq!(chunks[2]["choices"][0]["delta"], json!({"content": "Hello"}));
        assert_eq!(chunks[3]["choices"][0]["delta"], json!({}));
        assert_eq!(chunks[3]["choices"][0]["finish_reason"], "stop");
        assert_eq!(chunks[3]["timings"]["prompt_n"], 4);
        assert_eq!((&chunks[3]["usage"], &chunks[4]["choices"]), (&Json::Null, &json!([])));
        let details = (json!({"cached_tokens": 3}), json!({"reasoning_tokens": 2}));
        let usage = &chunks[4]["usage"];
        assert_eq!((&usage["prompt_tokens_details"], &usage["completion_tokens_details"]), (&details.0, &details.1));
        assert_eq!((&usage["prompt_tokens"], &usage["total_tokens"]), (&json!(7), &json!(11)));
        assert_eq!(chunks[5], "[DONE]");
        assert!(chunks[..5].iter().all(|c| c["id"] == "chatcmpl-x" && c["created"] == 5 && c["model"] == "m"));
    }

    #[test]
    fn without_include_usage_no_chunk_speaks_of_it() {
        let chunks = encoded(encoder(2, false), vec![(1, done(Reason::Length, 1)), (0, done(Reason::Stop, 1))]);
        assert_eq!(chunks.len(), 5);
        assert!(chunks.iter().all(|(_, c)| c.get("usage").is_none()), "{chunks:?}");
        let indexes: Vec<_> = chunks[..4].iter().map(|(_, c)| c["choices"][0]["index"].as_u64()).collect();
        assert_eq!(indexes, [Some(0), Some(1), Some(1), Some(0)]);
    }

    #[test]
    fn calls_come_in_parts_and_whole() {
        let parts = call();
        let events: Vec<_> =
            parts.iter().map(|p| (0, delta(vec![p.clone()]))).chain([(0, done(Reason::ToolCalls, 9))]).collect();
        let chunks = encoded(encoder(1, false), events);
        let calls: Vec<&Json> =
            chunks.iter().map(|(_, c)| &c["choices"][0]["delta"]["tool_calls"][0]).filter(|c| !c.is_null()).collect();
        assert_eq!(calls.len(), 3);
        let function = json!({"name": "add", "arguments": ""});
        assert_eq!(calls[0], &json!({"index": 0, "id": "call_1", "type": "function", "function": function}));
        assert_eq!(calls[1], &json!({"index": 0, "function": {"arguments": "{\"a\":"}}));
        assert_eq!(chunks[chunks.len() - 2].1["choices"][0]["finish_reason"], "tool_calls");

        let mut collector = Collector::default();
        collector.push(Delta { parts, ..Delta::default() });
        let Event::Done(end) = done(Reason::ToolCalls, 9) else { unreachable!() };
        let whole = whole(collector.finish(end), &CallForms::default());
        let message = &whole["choices"][0]["message"];
        let function = json!({"name": "add", "arguments": "{\"a\":1}"});
        assert_eq!(
            message["tool_calls"],
            json!([{"index": 0, "id": "call_1", "type": "function", "function": function}])
        );
        assert_eq!((&message["content"], &whole["choices"][0]["finish_reason"]), (&Json::Null, &json!("tool_calls")));
    }

    fn whole(answer: crate::generate::job::Answer, forms: &CallForms) -> Json {
        serde_json::to_value(ChatCompletion::new(head(), vec![answer], forms)).unwrap_or_default()
    }

    #[test]
    fn older_calls_and_texts_have_their_own_form() {
        let older = CallForms { older: true, texts: Vec::new() };
        let texts = CallForms { older: false, texts: vec!["patch".into()] };
        let given = ToolCall { id: Some("call_1".into()), name: "patch".into(), arguments: json!({"input": "a\nb"}) };
        let text_call = vec![
            Part::CallStart { index: 0, id: "call_1".into(), name: "patch".into() },
            Part::CallArguments { index: 0, fragment: "{\"input\": ".into() },
            Part::CallArguments { index: 0, fragment: "\"a\\nb\"}".into() },
            Part::CallEnd { index: 0, call: given },
        ];
        for (forms, parts) in [(older, call()), (texts, text_call)] {
            let mut collector = Collector::default();
            collector.push(Delta { parts: parts.clone(), ..Delta::default() });
            let Event::Done(end) = done(Reason::ToolCalls, 9) else { unreachable!() };
            let message = whole(collector.finish(end), &forms)["choices"][0].clone();
            let events: Vec<_> =
                parts.into_iter().map(|p| (0, delta(vec![p]))).chain([(0, done(Reason::ToolCalls, 9))]).collect();
            let chunks = encoded(ChatEncoder::new(head(), 1, false, forms.clone()), events);
            let deltas: Vec<&Json> = chunks.iter().map(|(_, c)| &c["choices"][0]["delta"]).collect();
            let told = |path: &str| deltas.iter().filter_map(|d| d.pointer(path)?.as_str()).collect::<String>();
            let ends = (&message["finish_reason"], &chunks[chunks.len() - 2].1["choices"][0]["finish_reason"]);
            let message = &message["message"];
            if forms.older {
                assert_eq!(message["function_call"], json!({"name": "add", "arguments": "{\"a\":1}"}));
                assert_eq!(
                    (told("/function_call/name"), told("/function_call/arguments")),
                    ("add".into(), "{\"a\":1}".into())
                );
                assert_eq!(ends, (&json!("function_call"), &json!("function_call")));
                assert!(message.get("tool_calls").is_none());
            } else {
                let custom = json!({"name": "patch", "input": "a\nb"});
                assert_eq!(
                    message["tool_calls"],
                    json!([{"index": 0, "id": "call_1", "type": "custom", "custom": custom}])
                );
                let (name, input) = ("/tool_calls/0/custom/name", "/tool_calls/0/custom/input");
                assert_eq!((told(name), told(input)), ("patch".into(), "a\nb".into()));
                assert_eq!(told("/tool_calls/0/function/arguments"), "");
            }
        }
    }

    #[test]
    fn a_failure_is_the_last_event() {
        let failed = Event::Failed(ApiError::new(crate::engine::error::Kind::Deadline, "late"));
        let chunks = encoded(encoder(1, true), vec![(0, failed)]);
        assert_eq!(chunks[1].1["error"]["message"], "late");
        assert_eq!((chunks.len(), &chunks[2].1), (3, &json!("[DONE]")));
    }

    #[test]
    fn log_probabilities_come_with_their_token() {
        let one = |id| ir_engine::run::Logprob { id, logprob: -0.5, bytes: vec![0xc3] };
        let logprobs = vec![ir_engine::run::Logprobs {
            chosen: one(1),
            top: vec![ir_engine::run::Logprob { logprob: f32::NEG_INFINITY, ..one(2) }],
        }];
        let chunks = encoded(encoder(1, false), vec![(0, Event::Delta(Delta { parts: Vec::new(), logprobs }))]);
        let token = &chunks[1].1["choices"][0]["logprobs"]["content"][0];
        assert_eq!(
            (&token["token"], &token["bytes"], &token["logprob"]),
            (&json!("\u{fffd}"), &json!([195]), &json!(-0.5))
        );
        assert_eq!(token["top_logprobs"][0]["logprob"], -9999.0);
    }
}
