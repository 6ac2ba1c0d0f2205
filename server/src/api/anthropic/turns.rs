//! The turns of a chat in Anthropic's form, and how they become the engine's messages.

use ir_engine::text::chat::{Message, ToolCall};
use serde::Deserialize;
use serde_json::{Map, Value as Json};
use utoipa::ToSchema;

use crate::api::common::util::{TextOr, cannot};
use crate::engine::error::ApiError;

/// One turn.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Turn {
    role: Speaker,
    content: TextOr<Block>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Speaker {
    /// Whoever asks.
    User,
    /// The model.
    Assistant,
    /// Directions in the middle of a chat.
    System,
}

/// A part of a turn.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Block {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// The assistant's thinking.
    Thinking {
        /// The text.
        thinking: String,
    },
    /// Thinking that only its author can read; passed over.
    RedactedThinking {},
    /// The assistant calls a tool.
    ToolUse {
        /// The call's name.
        id: String,
        /// The tool.
        name: String,
        /// The arguments.
        #[schema(value_type = Object)]
        input: Map<String, Json>,
    },
    /// What a tool gave.
    ToolResult {
        /// The call.
        tool_use_id: String,
        /// Text, or blocks of text.
        content: Option<TextOr<ResultBlock>>,
    },
    /// An image, which no model here reads.
    Image {},
    /// A document, which no model here reads.
    Document {},
}

/// A part of what a tool gave.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ResultBlock {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// An image, which no model here reads.
    Image {},
    /// A document, which no model here reads.
    Document {},
}

/// What is read of a turn of blocks.
#[derive(Default)]
struct Read {
    texts: Vec<String>,
    thinking: Vec<String>,
    calls: Vec<ToolCall>,
    results: Vec<Message>,
}

/// A turn as messages: a user's results of tools are turns of their own, in front of what else is said.
pub(super) fn add_turn(model: &str, i: usize, turn: Turn, out: &mut Vec<Message>) -> Result<(), ApiError> {
    let role = match turn.role {
        Speaker::User => "user",
        Speaker::Assistant => "assistant",
        Speaker::System => "system",
    };
    let blocks = match turn.content {
        TextOr::Text(text) => {
            out.push(Message::new(role, text));
            return Ok(());
        }
        TextOr::List(blocks) => blocks,
    };
    let mut read = Read::default();
    for (j, block) in blocks.into_iter().enumerate() {
        read.block(model, &format!("messages[{i}].content[{j}]"), block)?;
    }
    let only_results = read.texts.is_empty() && !read.results.is_empty();
    out.append(&mut read.results);
    if !only_results {
        let content = (!read.texts.is_empty() || read.calls.is_empty()).then(|| read.texts.join("\n"));
        let reasoning = read.thinking.join("\n");
        out.push(Message {
            content,
            reasoning_content: Some(reasoning).filter(|r| !r.is_empty()),
            tool_calls: read.calls,
            ..Message::new(role, "")
        });
    }
    Ok(())
}

impl Read {
    fn block(&mut self, model: &str, place: &str, block: Block) -> Result<(), ApiError> {
        match block {
            Block::Text { text } => self.texts.push(text),
            Block::Thinking { thinking } => self.thinking.push(thinking),
            Block::RedactedThinking {} => {}
            Block::ToolUse { id, name, input } => {
                self.calls.push(ToolCall { id: Some(id), name, arguments: Json::Object(input) });
            }
            Block::ToolResult { tool_use_id, content } => {
                let text = match content {
                    None => String::new(),
                    Some(TextOr::Text(text)) => text,
                    Some(TextOr::List(blocks)) => {
                        let text = |block: ResultBlock| match block {
                            ResultBlock::Text { text } => Ok(text),
                            ResultBlock::Image {} => Err(unread(model, place, "vision")),
                            ResultBlock::Document {} => Err(unread(model, place, "documents")),
                        };
                        blocks.into_iter().map(text).collect::<Result<Vec<_>, _>>()?.join("\n")
                    }
                };
                self.results.push(Message { tool_call_id: Some(tool_use_id), ..Message::new("tool", text) });
            }
            Block::Image {} => return Err(unread(model, place, "vision")),
            Block::Document {} => return Err(unread(model, place, "documents")),
        }
        Ok(())
    }
}

fn unread(model: &str, place: &str, what: &str) -> ApiError {
    ApiError::param(place, format!("{place}: {}", cannot(model, what).message))
}

/// What blocks say, such as a system's directions.
pub(super) fn plain_text(model: &str, field: &str, content: TextOr<Block>) -> Result<String, ApiError> {
    let blocks = match content {
        TextOr::Text(text) => return Ok(text),
        TextOr::List(blocks) => blocks,
    };
    let mut read = Read::default();
    for (i, block) in blocks.into_iter().enumerate() {
        read.block(model, &format!("{field}[{i}]"), block)?;
    }
    Ok(read.texts.join("\n"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn turns_of_blocks() {
        let cached = json!({"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}});
        let body = json!({
            "system": [cached, {"type": "text", "text": "Be kind."}],
            "messages": [
                {"role": "user", "content": "1+2?"},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"b": 2, "a": 1}},
                ]},
                {"role": "user", "content": [
                    {"type": "text", "text": "Go on."},
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "3"}]},
                ]},
                {"role": "assistant", "content": "It is"},
            ],
        });
        let mut messages = Vec::new();
        let read = |value: &Json| crate::api::common::body::parse(value.to_string().as_bytes()).unwrap();
        messages.push(Message::new("system", plain_text("m", "system", read(&body["system"])).unwrap()));
        for (i, turn) in body["messages"].as_array().unwrap().iter().enumerate() {
            let turn = crate::api::common::body::parse(turn.to_string().as_bytes()).unwrap();
            add_turn("m", i, turn, &mut messages).unwrap();
        }
        let chat = crate::api::common::util::chat_of(messages);
        let said: Vec<_> = chat.messages.iter().map(|m| (m.role.as_str(), m.content.as_deref())).collect();
        let want = [
            ("system", Some("Be brief.\nBe kind.")),
            ("user", Some("1+2?")),
            ("assistant", None),
            ("tool", Some("3")),
            ("user", Some("Go on.")),
            ("assistant", Some("It is")),
        ];
        assert_eq!(said, want);
        assert_eq!(chat.messages[2].tool_calls[0].arguments.to_string(), r#"{"b":2,"a":1}"#);
        assert_eq!(chat.messages[2].reasoning_content.as_deref(), Some("hm"));
    }
}
