//! The turns of a chat as OpenAI's clients write them, and how they become the engine's messages.

use ir_engine::text::chat::{Message, ToolCall};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use utoipa::ToSchema;

use super::ignored::Ignored;
use super::known::{Known, Tagged, said, type_of};
use super::unread::{Part, Reading};
use crate::api::common::util::TextOr;
use crate::engine::error::ApiError;

/// One turn.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct OpenAiMessage {
    role: Role,
    /// What is said; may be absent where an assistant calls tools.
    content: Option<TextOr<Known<ContentPart>>>,
    /// Of an assistant: its calls.
    tool_calls: Option<Vec<GivenCall>>,
    /// Of an assistant: its call, in the form that `tool_calls` replaced.
    function_call: Option<GivenFunction>,
    /// Of a tool: the call that it answers.
    tool_call_id: Option<String>,
    /// Of a tool: its name.
    name: Option<String>,
    /// Of an assistant: what it said instead of an answer.
    refusal: Option<String>,
    /// Of an assistant: its reasoning; what is no text is passed over.
    #[schema(value_type = Option<String>)]
    reasoning: Option<Json>,
    /// The same, by llama-server's name.
    #[schema(value_type = Option<String>)]
    reasoning_content: Option<Json>,
    /// The same, by Ollama's.
    #[schema(value_type = Option<String>)]
    thinking: Option<Json>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Directions.
    System,
    /// The same, by its newer name.
    Developer,
    /// Whoever asks.
    User,
    /// The model.
    Assistant,
    /// What a tool gave.
    Tool,
    /// The same, by its older name.
    Function,
}

impl Role {
    /// The word that templates know.
    pub(crate) fn for_template(self) -> &'static str {
        match self {
            Role::System | Role::Developer => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool | Role::Function => "tool",
        }
    }
}

/// A part of what is said.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct ContentPart {
    /// `text`, `refusal`, or what no model here reads: `image_url`, `input_audio`, `file`.
    #[serde(rename = "type")]
    kind: String,
    /// Text.
    text: Option<String>,
    /// What an assistant said instead of an answer.
    refusal: Option<String>,
    /// An image, which no model here reads.
    #[schema(value_type = Option<Object>)]
    #[serde(rename = "image_url")]
    _image_url: Option<Json>,
}

impl Tagged for ContentPart {
    const TYPES: &'static [&'static str] = &[
        "text",
        "input_text",
        "output_text",
        "refusal",
        "image_url",
        "input_image",
        "input_audio",
        "file",
        "input_file",
    ];
}

/// A call in an assistant's earlier turn: with `function` or `custom`, or with its fields beside the `id`.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct GivenCall {
    id: Option<String>,
    /// `function` or `custom`, as the field of that name shows too.
    #[serde(rename = "type")]
    #[schema(value_type = Option<String>)]
    _kind: Option<Json>,
    function: Option<GivenFunction>,
    /// Of a tool that takes a text.
    custom: Option<GivenText>,
    name: Option<String>,
    /// An object, or its JSON text.
    #[schema(value_type = Option<Value>)]
    arguments: Option<Json>,
}

/// What was called.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct GivenFunction {
    name: Option<String>,
    /// The JSON text of an object, or the object.
    #[schema(value_type = Option<Value>)]
    arguments: Option<Json>,
}

/// What was called with a text.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct GivenText {
    name: Option<String>,
    /// The text.
    input: Option<String>,
}

impl GivenCall {
    fn into_call(self) -> ToolCall {
        let GivenCall { id, function, custom, name, arguments, .. } = self;
        let custom = custom
            .map(|c| GivenFunction { name: c.name, arguments: Some(json!({"input": c.input.unwrap_or_default()})) });
        function.or(custom).unwrap_or(GivenFunction { name, arguments }).into_call(id)
    }
}

impl GivenFunction {
    fn into_call(self, id: Option<String>) -> ToolCall {
        ToolCall::given(id, self.name.unwrap_or_default(), self.arguments.unwrap_or_default())
    }
}

/// Turns as the engine's messages.
///
/// # Errors
/// Parts asked about now that the model does not read, with their place.
pub(crate) fn messages(model: &str, all: Vec<OpenAiMessage>, ignored: &Ignored) -> Result<Vec<Message>, ApiError> {
    if all.is_empty() {
        return Err(ApiError::param("messages", "[] is too short - 'messages'"));
    }
    let answered = all.iter().rposition(|m| m.role == Role::Assistant).map_or(0, |at| at + 1);
    let reading =
        |i: usize, role: Role| Reading { asked: i >= answered && role == Role::User, ..Reading::new(model, ignored) };
    let message = |(i, m): (usize, OpenAiMessage)| {
        let reading = reading(i, m.role);
        m.into_message(reading, i)
    };
    all.into_iter().enumerate().map(message).collect()
}

impl OpenAiMessage {
    fn into_message(self, reading: Reading<'_>, place: usize) -> Result<Message, ApiError> {
        let content = match self.content {
            None => self.refusal,
            Some(TextOr::Text(text)) => Some(text),
            Some(TextOr::List(parts)) => {
                let mut texts = Vec::with_capacity(parts.len());
                for (i, part) in parts.into_iter().enumerate() {
                    texts.extend(part_text(part, reading, &format!("messages[{place}].content[{i}]"))?);
                }
                Some(texts.join("\n"))
            }
        };
        // Ollama's clients write a switch by the name of the last.
        let thoughts = [self.reasoning_content, self.reasoning, self.thinking].into_iter().flatten();
        let reasoning_content = thoughts.filter_map(|t| t.as_str().map(str::to_owned)).next();
        let mut tool_calls: Vec<ToolCall> = self.tool_calls.into_iter().flatten().map(GivenCall::into_call).collect();
        tool_calls.extend(self.function_call.map(|f| f.into_call(None)));
        Ok(Message {
            role: self.role.for_template().into(),
            content,
            reasoning_content,
            tool_calls,
            tool_name: self.name,
            tool_call_id: self.tool_call_id,
        })
    }
}

/// What a part says, if anything.
fn part_text(part: Known<ContentPart>, reading: Reading<'_>, place: &str) -> Result<Option<String>, ApiError> {
    let part = match part {
        Known::Read(part) => part,
        Known::Unknown(map) => {
            reading.ignored.note(&format!("content.{}", type_of(&map)));
            return Ok(said(&map));
        }
    };
    Ok(match part.kind.as_str() {
        "image_url" | "input_image" => Some(reading.line(place, Part::Image)?),
        "input_audio" => Some(reading.line(place, Part::Audio)?),
        "file" | "input_file" => Some(reading.line(place, Part::File)?),
        _ => part.text.or(part.refusal),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    fn read(all: Json) -> Result<Vec<Message>, ApiError> {
        messages("m", crate::api::common::body::parse(all.to_string().as_bytes())?, &Ignored::default())
    }

    #[test]
    fn roles_and_parts_become_what_templates_know() {
        let call = json!({"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{\"a\":1}"}});
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        let all = read(json!([
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": parts, "name": "Ann"},
            {"role": "assistant", "content": null, "tool_calls": [call], "reasoning_content": "hm"},
            {"role": "tool", "tool_call_id": "c1", "content": "2"},
        ]))
        .unwrap();
        let said: Vec<_> = all.iter().map(|m| (m.role.as_str(), m.content.as_deref())).collect();
        assert_eq!(
            said,
            [("system", Some("Be brief.")), ("user", Some("a\nb")), ("assistant", None), ("tool", Some("2"))]
        );
        assert_eq!(all[2].tool_calls[0].arguments, json!({"a": 1}));
        assert_eq!((all[2].reasoning_content.as_deref(), all[3].tool_call_id.as_deref()), (Some("hm"), Some("c1")));
    }

    #[test]
    fn what_comes_back_and_what_is_older_is_read() {
        let image = json!({"type": "image_url", "image_url": {"url": "x"}});
        let older = json!({"name": "add", "arguments": "{\"a\":1}"});
        let text_call = json!({"id": "c2", "type": "custom", "custom": {"name": "patch", "input": "x"}});
        let all = read(json!([
            {"role": "user", "content": [image, {"type": "smell", "text": "sour"}, {"type": "smell"}]},
            {"role": "assistant", "content": "a", "reasoning": "hm", "reasoning_content": "hm", "refusal": null,
             "function_call": older, "tool_calls": [text_call], "annotations": [], "audio": null},
            {"role": "function", "name": "add", "content": "2"},
            {"role": "tool", "tool_call_id": "c2", "content": [image]},
            {"role": "tool", "tool_call_id": "c2", "content": {"a": 1}},
            {"role": "assistant", "content": {"type": "text", "text": "b"}, "reasoning": {"text": "x"}, "thinking": "y"},
        ]))
        .unwrap();
        assert_eq!(all[0].content.as_deref(), Some("[image left out: this model reads text only]\nsour"));
        assert_eq!(all[1].reasoning_content.as_deref(), Some("hm"));
        let calls: Vec<_> = all[1].tool_calls.iter().map(|c| (c.name.as_str(), c.arguments.clone())).collect();
        assert_eq!(calls, [("patch", json!({"input": "x"})), ("add", json!({"a": 1}))]);
        assert_eq!((all[2].role.as_str(), all[2].tool_name.as_deref()), ("tool", Some("add")));
        assert!(all[3].content.as_deref().unwrap().starts_with("[image"));
        assert_eq!((all[4].content.as_deref(), all[5].content.as_deref()), (Some("{\"a\":1}"), Some("b")));
        assert_eq!(all[5].reasoning_content.as_deref(), Some("y"));
    }

    #[test]
    fn what_is_wrong_has_its_place() {
        let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}});
        for (all, param, part) in [
            (json!([]), "messages", "too short"),
            (json!([{"role": "user", "content": [image]}]), "messages[0].content[0]", "does not support vision"),
            (json!([{"role": "poet", "content": "x"}]), "[0].role", "unknown variant `poet`"),
            (json!([{"role": "user", "content": 5}]), "[0].content", "a string or a list"),
            (
                json!([{"role": "user", "content": [{"type": "text", "text": 5}]}]),
                "[0].content[0].text",
                "expected a string",
            ),
        ] {
            let error = read(all.clone()).unwrap_err();
            assert!(error.message.contains(part), "{all}: {error}");
            assert_eq!(error.param.as_deref(), Some(param), "{all}: {error}");
        }
    }
}
