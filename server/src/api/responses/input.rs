//! The input of a response: items, and how they become the turns of a chat. Items of types that are not known here are what
//! their form says (a call, what a call gave, a text), or are passed over: a history must never lock its chat.

use ir_engine::text::chat::{Message, ToolCall};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use utoipa::ToSchema;

use super::tools::{Offered, ResponseTool};
use crate::api::common::known::{Known, Tagged, said, text_of, type_of};
use crate::api::common::message::Role;
use crate::api::common::unread::{Part, Reading};
use crate::api::common::util::TextOr;
use crate::engine::error::{ApiError, cut};

/// Items in their order.
pub(super) type Items = Vec<Known<InputItem>>;

/// Characters of a foreign call that the model is shown, at most.
const MAX_SHOWN: usize = 4000;

/// A turn, a call, a call's result, reasoning, tools that come later. Which fields count depends on its type.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct InputItem {
    /// `message` where it is absent; `function_call`, `custom_tool_call`, `tool_search_call`, their outputs (`..._output`),
    /// `reasoning`, `item_reference`, `additional_tools`. Others are passed over, or a line of text.
    #[serde(rename = "type", default = "message")]
    kind: String,
    /// By which it can be referred to.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Of a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
    /// Of a message; of reasoning, where it is not summed up.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<TextOr<Known<InputPart>>>,
    /// Of a call and its result.
    #[serde(skip_serializing_if = "Option::is_none")]
    call_id: Option<String>,
    /// Of a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Of a call: that of its tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    /// Of a call: an object, or its JSON text.
    #[schema(value_type = Option<Value>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<Json>,
    /// Of a call of a tool that takes a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<String>,
    /// Of a call's result: a text, parts of one, or any JSON.
    #[schema(value_type = Option<Value>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Json>,
    /// Of reasoning.
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<TextOr<Known<InputPart>>>,
    /// Of tools that come later: what a search found, or more than the request's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<Vec<Known<ResponseTool>>>,
}

fn message() -> String {
    "message".into()
}

impl InputItem {
    /// A text of whoever asks.
    pub(super) fn said(text: String) -> InputItem {
        let content = Some(TextOr::Text(text));
        InputItem { kind: message(), role: Some(Role::User), content, ..InputItem::default() }
    }
}

impl Tagged for InputItem {
    const TYPES: &'static [&'static str] = &[
        "message",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "tool_search_call",
        "tool_search_output",
        "additional_tools",
        "reasoning",
        "item_reference",
    ];
    const ABSENT: Option<&'static str> = Some("message");
}

/// A part of what is said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct InputPart {
    /// `input_text`, `output_text`, `summary_text`, `reasoning_text`, `refusal`, or what no model here reads.
    #[serde(rename = "type")]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
}

impl Tagged for InputPart {
    const TYPES: &'static [&'static str] = &[
        "text",
        "input_text",
        "output_text",
        "summary_text",
        "reasoning_text",
        "refusal",
        "input_image",
        "image_url",
        "computer_screenshot",
        "input_file",
        "input_audio",
    ];
}

/// By which an item can be referred to.
pub(super) fn id_of(item: &Known<InputItem>) -> Option<&str> {
    match item {
        Known::Read(item) => item.id.as_deref(),
        Known::Unknown(map) => map.get("id").and_then(Json::as_str),
    }
}

/// Items with those that are referred to in their places; `find` knows what was answered.
///
/// # Errors
/// A reference to what is not known.
pub(super) fn resolved(items: Items, find: impl Fn(&str) -> Result<Items, ApiError>) -> Result<Items, ApiError> {
    let mut all = Vec::with_capacity(items.len());
    for item in items {
        match &item {
            Known::Read(InputItem { kind, id, .. }) if kind == "item_reference" => {
                all.extend(find(id.as_deref().unwrap_or_default())?);
            }
            _ => all.push(item),
        }
    }
    Ok(all)
}

/// Takes in the tools that stand among the items.
///
/// # Errors
/// A function without a name, with its place.
pub(super) fn later_tools(items: &Items, offered: &mut Offered, reading: Reading<'_>) -> Result<(), ApiError> {
    for (i, item) in items.iter().enumerate() {
        let Known::Read(InputItem { kind, tools: Some(tools), .. }) = item else { continue };
        if ["tool_search_output", "additional_tools"].contains(&kind.as_str()) {
            offered.add(&format!("input[{i}].tools"), tools, true, reading.ignored)?;
        }
    }
    Ok(())
}

/// The turns of a chat from its items; `earlier` of them came with earlier requests.
///
/// # Errors
/// An item that is incomplete, or one asked now that no model here reads, with its place.
pub(super) fn messages(
    items: Items,
    earlier: usize,
    offered: &Offered,
    reading: Reading<'_>,
) -> Result<Vec<Message>, ApiError> {
    let answered = items.iter().rposition(is_answer).map_or(0, |at| at + 1).max(earlier);
    let mut turns = Turns { reading, offered, all: Vec::new(), thought: None };
    for (i, item) in items.into_iter().enumerate() {
        // Places are those of the request's own input.
        let place = if i >= earlier { format!("input[{}]", i - earlier) } else { "input".to_owned() };
        turns.reading.asked = i >= answered;
        turns.item(&place, item)?;
    }
    Ok(turns.finish())
}

/// Whether an item is the model's.
fn is_answer(item: &Known<InputItem>) -> bool {
    match item {
        Known::Read(item) => item.role == Some(Role::Assistant) || item.kind.ends_with("_call"),
        Known::Unknown(map) => type_of(map).ends_with("_call"),
    }
}

/// Puts items together into turns: an assistant's reasoning, words and calls are one turn.
struct Turns<'a> {
    reading: Reading<'a>,
    offered: &'a Offered,
    all: Vec<Message>,
    /// Reasoning whose turn has not come yet.
    thought: Option<String>,
}

impl Turns<'_> {
    fn item(&mut self, place: &str, item: Known<InputItem>) -> Result<(), ApiError> {
        let item = match item {
            Known::Read(item) => item,
            Known::Unknown(map) => return self.unknown(place, &map),
        };
        let missing = |field: &str| {
            let field = format!("{place}.{field}");
            ApiError::param(&field, format!("{field} is missing"))
        };
        match item.kind.as_str() {
            "function_call" | "custom_tool_call" | "tool_search_call" => {
                let name = match item.name {
                    None if item.kind == "tool_search_call" => "tool_search".to_owned(),
                    name => name.ok_or_else(|| missing("name"))?,
                };
                let arguments = match item.input {
                    Some(text) => json!({"input": text}),
                    None => item.arguments.unwrap_or_default(),
                };
                // A call that its host answers has none.
                let id = item.call_id.or(item.id).unwrap_or_default();
                self.call(id, self.offered.shown(item.namespace.as_deref(), &name), arguments);
            }
            "function_call_output" | "custom_tool_call_output" => {
                let id = item.call_id.unwrap_or_default();
                self.result(place, id, item.output)?;
            }
            "tool_search_output" => {
                let id = item.call_id.or(item.id).unwrap_or_default();
                let found = item.tools.unwrap_or_default();
                self.result(place, id, Some(json!({"tools": found})))?;
            }
            "reasoning" => {
                let text = match item.content {
                    Some(content) => self.text(&format!("{place}.content"), content)?,
                    None => String::new(),
                };
                let summary = item.summary.unwrap_or_default();
                let text = if text.is_empty() { self.text(&format!("{place}.summary"), summary)? } else { text };
                self.thought = Some(text).filter(|t| !t.is_empty());
            }
            // Its tools are offered already.
            "additional_tools" => {}
            _ => {
                let role = item.role.ok_or_else(|| missing("role"))?;
                self.reading.asked &= role == Role::User;
                let text = self.text(&format!("{place}.content"), item.content.unwrap_or_default())?;
                if role == Role::Assistant {
                    self.assistant().content = Some(text);
                } else {
                    self.all.push(Message::new(role.for_template(), text));
                }
            }
        }
        Ok(())
    }

    /// An item of a type that is not known: what its form says.
    fn unknown(&mut self, place: &str, map: &Map<String, Json>) -> Result<(), ApiError> {
        let kind = type_of(map);
        self.reading.ignored.note(&format!("input.{kind}"));
        let id = map.get("call_id").and_then(Json::as_str);
        if let (Some(tool), Some(id)) = (kind.strip_suffix("_call"), id) {
            let given = ["arguments", "action", "operation", "input"].into_iter().find_map(|field| map.get(field));
            self.call(id.to_owned(), tool.to_owned(), given.cloned().unwrap_or_default());
        } else if let (true, Some(id)) = (kind.ends_with("_output"), id) {
            let output = map.get("output").or_else(|| map.get("stdout"));
            self.result(place, id.to_owned(), output.cloned())?;
        } else if kind.ends_with("_call") {
            // The host of another model ran it.
            let told =
                |(key, value): &(&String, &Json)| !["type", "id", "status"].contains(&key.as_str()) && !value.is_null();
            let rest: Map<String, Json> = map.iter().filter(told).map(|(k, v)| (k.clone(), v.clone())).collect();
            let line = format!("[{kind} {}]", cut(&Json::Object(rest).to_string(), MAX_SHOWN));
            let said = self.caller().content.get_or_insert_default();
            if !said.is_empty() {
                said.push('\n');
            }
            said.push_str(&line);
        } else if let Some(text) = text_of(map) {
            self.all.push(Message::new("user", text));
        }
        Ok(())
    }

    fn call(&mut self, id: String, name: String, arguments: Json) {
        let empty = arguments.as_str().is_some_and(|text| text.trim().is_empty());
        let arguments = if empty { Json::Null } else { arguments };
        self.caller().tool_calls.push(ToolCall::given(Some(id), name, arguments));
    }

    fn result(&mut self, place: &str, id: String, output: Option<Json>) -> Result<(), ApiError> {
        self.reading.asked = false;
        let text = match output {
            None | Some(Json::Null) => String::new(),
            Some(Json::String(text)) => text,
            Some(Json::Array(parts)) => match serde_json::from_value(Json::Array(parts.clone())) {
                Ok(parts) => self.text(&format!("{place}.output"), TextOr::List(parts))?,
                Err(_) => Json::Array(parts).to_string(),
            },
            Some(other) => other.to_string(),
        };
        self.all.push(Message { tool_call_id: Some(id), ..Message::new("tool", text) });
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

    fn text(&self, place: &str, content: TextOr<Known<InputPart>>) -> Result<String, ApiError> {
        let parts = match content {
            TextOr::Text(text) => return Ok(text),
            TextOr::List(parts) => parts,
        };
        let mut texts = Vec::with_capacity(parts.len());
        for (j, part) in parts.into_iter().enumerate() {
            let place = format!("{place}[{j}]");
            let part = match part {
                Known::Read(part) => part,
                Known::Unknown(map) => {
                    self.reading.ignored.note(&format!("content.{}", type_of(&map)));
                    texts.extend(said(&map));
                    continue;
                }
            };
            texts.push(match part.kind.as_str() {
                "input_image" | "image_url" | "computer_screenshot" => self.reading.line(&place, Part::Image)?,
                "input_file" => self.reading.line(&place, Part::File)?,
                "input_audio" => self.reading.line(&place, Part::Audio)?,
                _ => part.text.or(part.refusal).unwrap_or_default(),
            });
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
mod tests;
