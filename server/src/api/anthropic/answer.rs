//! A message as Anthropic's clients read it. How it comes about is `builder`'s.

use serde::Serialize;
use serde_json::Value as Json;
use utoipa::ToSchema;

use crate::api::common::util::new_id;
use crate::generate::job;

/// A message, whole or under way.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct AnthropicMessage {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    role: &'static str,
    model: String,
    pub(super) content: Vec<AnswerBlock>,
    /// `end_turn`, `max_tokens`, `stop_sequence` or `tool_use`.
    #[schema(required = true)]
    pub(super) stop_reason: Option<&'static str>,
    /// The one that ended it.
    #[schema(required = true)]
    pub(super) stop_sequence: Option<String>,
    pub(super) usage: MessageUsage,
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum AnswerBlock {
    /// What the model thought.
    Thinking {
        /// The text.
        thinking: String,
        /// Empty: thinking is not signed here.
        signature: String,
    },
    /// What the model says.
    Text {
        /// The text.
        text: String,
    },
    /// The model calls a tool.
    ToolUse {
        /// What the tool's result must name.
        id: String,
        /// The tool.
        name: String,
        /// The arguments.
        #[schema(value_type = Object)]
        input: Json,
    },
}

/// Tokens of a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct MessageUsage {
    /// Those of the prompt that were computed.
    input_tokens: usize,
    /// None: the cache is filled by itself.
    cache_creation_input_tokens: usize,
    /// Those of the prompt that had been computed before.
    cache_read_input_tokens: usize,
    output_tokens: usize,
}

impl MessageUsage {
    /// At the beginning: what was computed before is not known yet.
    fn of_prompt(tokens: usize) -> MessageUsage {
        MessageUsage { input_tokens: tokens, ..MessageUsage::default() }
    }
}

impl From<&job::Usage> for MessageUsage {
    fn from(usage: &job::Usage) -> MessageUsage {
        MessageUsage {
            input_tokens: usage.prompt_tokens - usage.cached_tokens.min(usage.prompt_tokens),
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: usage.cached_tokens,
            output_tokens: usage.completion_tokens,
        }
    }
}

impl AnthropicMessage {
    /// A message that has not begun.
    pub(super) fn new(model: String, prompt_tokens: usize) -> AnthropicMessage {
        AnthropicMessage {
            id: new_id("msg_"),
            kind: "message",
            role: "assistant",
            model,
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            usage: MessageUsage::of_prompt(prompt_tokens),
        }
    }
}
