//! The whole answer of `/v1/chat/completions`, and what its streamed form has in common with it (`chat_stream`).

use std::time::SystemTime;

use ir_engine::text::chat::ToolCall;
use serde::Serialize;
use utoipa::ToSchema;

use super::FINGERPRINT;
use super::usage::{Timings, Usage, finish_reason};
use crate::api::common::tools::text_argument;
use crate::api::common::util::{TokenLogprob, new_id, token_logprobs, unix_seconds};
use crate::generate::job::{Answer, Reason};

/// What every chunk of an answer repeats.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: String,
}

impl Head {
    /// Of a new answer.
    pub(super) fn new(model: &str, created: SystemTime) -> Head {
        Head { id: new_id("chatcmpl-"), created: unix_seconds(created), model: model.to_owned() }
    }
}

/// A whole answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatCompletion {
    id: String,
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    model: String,
    system_fingerprint: &'static str,
    choices: Vec<ChatChoice>,
    usage: Usage,
    /// Of the first choice.
    timings: Timings,
}

/// One of the completions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatChoice {
    index: usize,
    message: ChatAnswer,
    /// `stop`, `length` or `tool_calls`; `function_call` where the request gave `functions`.
    finish_reason: &'static str,
    #[schema(required = true)]
    logprobs: Option<ChatLogprobs>,
}

/// The assistant's turn.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatAnswer {
    role: &'static str,
    /// Absent where the answer is nothing but calls.
    #[schema(required = true)]
    content: Option<String>,
    #[schema(required = true)]
    refusal: Option<String>,
    /// What the model thought before.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
    /// The same, by llama-server's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ChatCall>,
    /// The call, where the request gave `functions` instead of tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    function_call: Option<ChatFunction>,
}

/// The forms that a request's calls have.
#[derive(Debug, Clone, Default)]
pub(super) struct CallForms {
    /// The form that `tool_calls` replaced.
    pub(super) older: bool,
    /// The tools that take a text.
    pub(super) texts: Vec<String>,
}

impl CallForms {
    /// Whether a tool takes a text.
    pub(super) fn is_text(&self, name: &str) -> bool {
        self.texts.iter().any(|text| text == name)
    }

    /// The word for why a completion ended.
    pub(super) fn finish_reason(&self, reason: Reason) -> &'static str {
        match reason {
            Reason::ToolCalls if self.older => "function_call",
            other => finish_reason(other),
        }
    }
}

/// A call of a tool.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct ChatCall {
    /// Its number among the answer's calls.
    pub(super) index: usize,
    /// Absent in later chunks of a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) function: Option<ChatFunction>,
    /// Of a tool that takes a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) custom: Option<ChatText>,
}

/// What is called with a text.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct ChatText {
    /// Absent in later chunks of a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    /// The text; in a stream, its next part.
    pub(super) input: String,
}

/// What is called.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct ChatFunction {
    /// Absent in later chunks of a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    /// The JSON text of an object; in a stream, its next part.
    pub(super) arguments: String,
}

/// The log-probabilities of an answer's tokens.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct ChatLogprobs {
    content: Vec<TokenLogprob>,
}

impl ChatCompletion {
    /// Answers to one prompt.
    pub(super) fn new(head: Head, answers: Vec<Answer>, calls: &CallForms) -> ChatCompletion {
        let mut usage = Usage::default();
        let timings = answers.first().map(|a| Timings::new(&a.done.usage)).unwrap_or_default();
        let choice = |(index, answer): (usize, Answer)| {
            usage.add(&answer.done.usage, index == 0);
            ChatChoice {
                index,
                finish_reason: calls.finish_reason(answer.done.reason),
                logprobs: logprobs(&answer.logprobs),
                message: ChatAnswer::new(answer, calls),
            }
        };
        let choices = answers.into_iter().enumerate().map(choice).collect();
        let Head { id, created, model } = head;
        let object = "chat.completion";
        ChatCompletion { id, object, created, model, system_fingerprint: FINGERPRINT, choices, usage, timings }
    }
}

impl ChatAnswer {
    fn new(answer: Answer, forms: &CallForms) -> ChatAnswer {
        let reasoning = Some(answer.thinking).filter(|t| !t.is_empty());
        let only_calls = answer.text.is_empty() && !answer.calls.is_empty();
        let mut tool_calls: Vec<ChatCall> =
            answer.calls.into_iter().enumerate().map(|(index, call)| ChatCall::new(index, call, forms)).collect();
        let older = forms.older && !tool_calls.is_empty();
        let function_call = older.then(|| tool_calls.swap_remove(0).function).flatten();
        if older {
            tool_calls.clear();
        }
        ChatAnswer {
            role: "assistant",
            content: (!only_calls).then_some(answer.text),
            refusal: None,
            reasoning_content: reasoning.clone(),
            reasoning,
            tool_calls,
            function_call,
        }
    }
}

impl ChatCall {
    fn new(index: usize, call: ToolCall, forms: &CallForms) -> ChatCall {
        let id = Some(call.id.unwrap_or_else(|| new_id("call_")));
        if forms.is_text(&call.name) {
            let custom = Some(ChatText { input: text_argument(&call.arguments), name: Some(call.name) });
            return ChatCall { index, id, kind: Some("custom"), function: None, custom };
        }
        let function = Some(ChatFunction { name: Some(call.name), arguments: call.arguments.to_string() });
        ChatCall { index, id, kind: Some("function"), function, custom: None }
    }
}

pub(super) fn logprobs(all: &[ir_engine::run::Logprobs]) -> Option<ChatLogprobs> {
    (!all.is_empty()).then(|| ChatLogprobs { content: token_logprobs(all) })
}
