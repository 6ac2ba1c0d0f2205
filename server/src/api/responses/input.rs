//! The input of a response: items, and how they become the turns of a chat.

use ir_engine::text::chat::{Message, ToolCall};
use serde::Deserialize;
use serde_json::Value as Json;
use utoipa::ToSchema;

use crate::api::common::message::Role;
use crate::api::common::util::{TextOr, cannot};
use crate::engine::error::{ApiError, cut};

/// A turn, a call, a call's result or reasoning. Which fields count depends on its type.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub(crate) struct InputItem {
    /// `message` where it is absent.
    #[serde(rename = "type")]
    kind: Option<ItemKind>,
    /// Of a message.
    role: Option<Role>,
    /// Of a message; of reasoning, where it is not summed up.
    content: Option<TextOr<InputPart>>,
    /// Of a call and its result.
    call_id: Option<String>,
    /// Of a call.
    name: Option<String>,
    /// Of a call: the JSON text of an object.
    arguments: Option<String>,
    /// Of a call's result.
    output: Option<TextOr<InputPart>>,
    /// Of reasoning.
    summary: Option<Vec<InputPart>>,
}

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ItemKind {
    /// A turn.
    Message,
    /// The assistant called a function.
    FunctionCall,
    /// What the function gave.
    FunctionCallOutput,
    /// What the assistant thought.
    Reasoning,
}

/// A part of what is said.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct InputPart {
    #[serde(rename = "type")]
    kind: PartKind,
    text: Option<String>,
    refusal: Option<String>,
}

/// What a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PartKind {
    /// Text.
    Text,
    /// Text of whoever asks.
    InputText,
    /// Text of the assistant.
    OutputText,
    /// Reasoning, summed up.
    SummaryText,
    /// Reasoning.
    ReasoningText,
    /// What the assistant said instead of an answer.
    Refusal,
    /// An image, which no model here reads.
    InputImage,
    /// A file, which no model here reads.
    InputFile,
    /// Sound, which no model here hears.
    InputAudio,
}

/// The turns of a chat from instructions and input.
///
/// # Errors
/// An item that is incomplete or that no model here reads, with its place.
pub(crate) fn messages(
    model: &str,
    instructions: Option<String>,
    input: TextOr<InputItem>,
) -> Result<Vec<Message>, ApiError> {
    let mut turns = Turns { model, all: Vec::new(), thought: None };
    match input {
        TextOr::Text(text) => turns.all.push(Message::new("user", text)),
        TextOr::List(items) if items.is_empty() => {
            return Err(ApiError::param("input", "input is empty: give text or items"));
        }
        TextOr::List(items) => {
            for (i, item) in items.into_iter().enumerate() {
                turns.item(i, item)?;
            }
        }
    }
    let mut all = turns.finish();
    if let Some(text) = instructions.filter(|t| !t.is_empty()) {
        all.insert(0, Message::new("system", text));
    }
    Ok(all)
}

/// Puts items together into turns: an assistant's reasoning, words and calls are one turn.
struct Turns<'a> {
    model: &'a str,
    all: Vec<Message>,
    /// Reasoning whose turn has not come yet.
    thought: Option<String>,
}

impl Turns<'_> {
    fn item(&mut self, i: usize, item: InputItem) -> Result<(), ApiError> {
        let missing = |field: &str| {
            let field = format!("input[{i}].{field}");
            ApiError::param(&field, format!("{field} is missing"))
        };
        match item.kind.unwrap_or(ItemKind::Message) {
            ItemKind::Message => {
                let role = item.role.ok_or_else(|| missing("role"))?;
                let content = item.content.ok_or_else(|| missing("content"))?;
                let text = self.text(i, "content", content)?;
                if role == Role::Assistant {
                    self.assistant().content = Some(text);
                } else {
                    self.all.push(Message::new(role.for_template(), text));
                }
            }
            ItemKind::FunctionCall => {
                let name = item.name.ok_or_else(|| missing("name"))?;
                let text = item.arguments.unwrap_or_default();
                let arguments = match text.as_str() {
                    "" => Json::Object(serde_json::Map::new()),
                    text => serde_json::from_str(text).map_err(|_| {
                        let field = format!("input[{i}].arguments");
                        ApiError::param(&field, format!("{field} is no JSON: {:?}", cut(text, 80)))
                    })?,
                };
                let id = Some(item.call_id.ok_or_else(|| missing("call_id"))?);
                self.caller().tool_calls.push(ToolCall { id, name, arguments });
            }
            ItemKind::FunctionCallOutput => {
                let id = item.call_id.ok_or_else(|| missing("call_id"))?;
                let output = item.output.ok_or_else(|| missing("output"))?;
                let text = self.text(i, "output", output)?;
                self.all.push(Message { tool_call_id: Some(id), ..Message::new("tool", text) });
            }
            ItemKind::Reasoning => {
                let summary = TextOr::List(item.summary.unwrap_or_default());
                let mut text = self.text(i, "summary", summary)?;
                if let Some(content) = item.content {
                    text = self.text(i, "content", content)?;
                }
                self.thought = Some(text).filter(|t| !t.is_empty());
            }
        }
        Ok(())
    }

    /// A new turn of the assistant.
    fn assistant(&mut self) -> &mut Message {
        let turn = Message { role: "assistant".into(), reasoning_content: self.thought.take(), ..Message::default() };
        self.all.push(turn);
        let last = self.all.len() - 1;
        &mut self.all[last]
    }

    /// The turn that a call belongs to.
    fn caller(&mut self) -> &mut Message {
        match self.all.last().map(|m| m.role.as_str()) {
            Some("assistant") if self.thought.is_none() => {
                let last = self.all.len() - 1;
                &mut self.all[last]
            }
            _ => self.assistant(),
        }
    }

    fn text(&self, i: usize, field: &str, content: TextOr<InputPart>) -> Result<String, ApiError> {
        let parts = match content {
            TextOr::Text(text) => return Ok(text),
            TextOr::List(parts) => parts,
        };
        let mut texts = Vec::with_capacity(parts.len());
        for (j, part) in parts.into_iter().enumerate() {
            let place = format!("input[{i}].{field}[{j}]");
            let what = match part.kind {
                PartKind::InputImage => "vision",
                PartKind::InputFile => "files",
                PartKind::InputAudio => "audio",
                _ => {
                    let text = part.text.or(part.refusal);
                    texts.push(text.ok_or_else(|| ApiError::param(&place, format!("{place} has no text")))?);
                    continue;
                }
            };
            return Err(ApiError::param(&place, cannot(self.model, what).message));
        }
        Ok(texts.join("\n"))
    }

    fn finish(mut self) -> Vec<Message> {
        if self.thought.is_some() {
            self.assistant();
        }
        self.all
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(input: Json) -> Result<Vec<Message>, ApiError> {
        messages("m", None, crate::api::common::body::parse(input.to_string().as_bytes())?)
    }

    #[test]
    fn an_assistants_items_are_one_turn() {
        let all = read(json!([
            {"role": "user", "content": [{"type": "input_text", "text": "1+2?"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
             "content": [{"type": "output_text", "text": "Let me see.", "annotations": []}]},
            {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{\"a\":1}"},
            {"type": "function_call", "call_id": "c2", "name": "now", "arguments": ""},
            {"type": "function_call_output", "call_id": "c1", "output": "3"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "noon"}]},
        ]))
        .unwrap();
        let roles: Vec<_> = all.iter().map(|m| m.role.as_str()).collect();
        assert_eq!(roles, ["user", "assistant", "tool", "tool"]);
        let turn = &all[1];
        assert_eq!((turn.content.as_deref(), turn.reasoning_content.as_deref()), (Some("Let me see."), Some("hm")));
        let calls: Vec<_> = turn.tool_calls.iter().map(|c| (c.name.as_str(), c.arguments.to_string())).collect();
        assert_eq!(calls, [("add", "{\"a\":1}".to_owned()), ("now", "{}".to_owned())]);
        assert_eq!(all[3].content.as_deref(), Some("noon"));
    }

    #[test]
    fn what_is_missing_has_its_place() {
        for (item, param) in [
            (json!({"content": "x"}), "input[0].role"),
            (json!({"role": "user"}), "input[0].content"),
            (json!({"type": "function_call", "call_id": "c"}), "input[0].name"),
            (json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{"}), "input[0].arguments"),
            (json!({"type": "function_call_output", "output": "x"}), "input[0].call_id"),
            (json!({"role": "user", "content": [{"type": "input_file"}]}), "input[0].content[0]"),
            (json!({"role": "user", "content": [{"type": "input_text"}]}), "input[0].content[0]"),
        ] {
            assert_eq!(read(json!([item])).unwrap_err().param.as_deref(), Some(param), "{item}");
        }
        assert!(read(json!([{"type": "item_reference", "id": "x"}])).unwrap_err().message.contains("unknown variant"));
    }
}
