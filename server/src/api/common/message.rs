//! The turns of a chat as OpenAI's clients write them, and how they become the engine's messages.

use ir_engine::text::chat::{Message, ToolCall};
use serde::Deserialize;
use serde_json::Value as Json;
use utoipa::ToSchema;

use crate::api::common::util::{TextOr, cannot};
use crate::engine::error::ApiError;

/// One turn.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct OpenAiMessage {
    role: Role,
    /// What is said; may be absent where an assistant calls tools.
    content: Option<TextOr<ContentPart>>,
    /// Of an assistant: its calls.
    tool_calls: Option<Vec<GivenCall>>,
    /// Of a tool: the call that it answers.
    tool_call_id: Option<String>,
    /// Of a tool: its name.
    name: Option<String>,
    /// Of an assistant: its reasoning.
    #[serde(alias = "reasoning_content", alias = "thinking")]
    reasoning: Option<String>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
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
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ContentPart {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// What an assistant said instead of an answer.
    Refusal {
        /// The text.
        refusal: String,
    },
    /// An image, which no model here reads.
    ImageUrl {
        /// Where it is.
        #[schema(value_type = Object)]
        #[serde(rename = "image_url")]
        _image_url: Json,
    },
    /// Sound, which no model here hears.
    InputAudio {
        /// The sound.
        #[schema(value_type = Object)]
        #[serde(rename = "input_audio")]
        _input_audio: Json,
    },
    /// A file, which no model here reads.
    File {
        /// The file.
        #[schema(value_type = Object)]
        #[serde(rename = "file")]
        _file: Json,
    },
}

/// A call in an assistant's earlier turn: with `function`, or with its fields beside the `id`.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct GivenCall {
    id: Option<String>,
    function: Option<GivenFunction>,
    name: Option<String>,
    /// An object, or its JSON text.
    #[schema(value_type = Option<Value>)]
    arguments: Option<Json>,
}

/// What was called.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct GivenFunction {
    #[serde(default)]
    name: String,
    /// The JSON text of an object, or the object.
    #[schema(value_type = Option<Value>)]
    arguments: Option<Json>,
}

impl GivenCall {
    fn into_call(self) -> ToolCall {
        let GivenCall { id, function, name, arguments } = self;
        let function = function.unwrap_or(GivenFunction { name: name.unwrap_or_default(), arguments });
        ToolCall::given(id, function.name, function.arguments.unwrap_or_default())
    }
}

/// Turns as the engine's messages.
///
/// # Errors
/// Parts that the model does not read, with their place.
pub(crate) fn messages(model: &str, all: Vec<OpenAiMessage>) -> Result<Vec<Message>, ApiError> {
    if all.is_empty() {
        return Err(ApiError::param("messages", "[] is too short - 'messages'"));
    }
    all.into_iter().enumerate().map(|(i, m)| m.into_message(model, i)).collect()
}

impl OpenAiMessage {
    fn into_message(self, model: &str, place: usize) -> Result<Message, ApiError> {
        let content = match self.content {
            None => None,
            Some(TextOr::Text(text)) => Some(text),
            Some(TextOr::List(parts)) => {
                let text = |(i, part): (usize, ContentPart)| {
                    let field = format!("messages[{place}].content[{i}]");
                    part.into_text().map_err(|what| ApiError::param(&field, cannot(model, what).message))
                };
                let texts = parts.into_iter().enumerate().map(text).collect::<Result<Vec<_>, _>>()?;
                Some(texts.join("\n"))
            }
        };
        Ok(Message {
            role: self.role.for_template().into(),
            content,
            reasoning_content: self.reasoning,
            tool_calls: self.tool_calls.into_iter().flatten().map(GivenCall::into_call).collect(),
            tool_name: self.name,
            tool_call_id: self.tool_call_id,
        })
    }
}

impl ContentPart {
    /// Its text, or what a model would have to support.
    fn into_text(self) -> Result<String, &'static str> {
        match self {
            ContentPart::Text { text } | ContentPart::Refusal { refusal: text } => Ok(text),
            ContentPart::ImageUrl { .. } => Err("vision"),
            ContentPart::InputAudio { .. } => Err("audio"),
            ContentPart::File { .. } => Err("files"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(all: Json) -> Result<Vec<Message>, ApiError> {
        messages("m", crate::api::common::body::parse(all.to_string().as_bytes())?)
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
    fn what_is_wrong_has_its_place() {
        let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}});
        for (all, param, part) in [
            (json!([]), "messages", "too short"),
            (json!([{"role": "user", "content": [image]}]), "messages[0].content[0]", "does not support vision"),
            (json!([{"role": "poet", "content": "x"}]), "[0].role", "unknown variant `poet`"),
            (json!([{"role": "user", "content": 5}]), "[0].content", "a string or a list"),
            (
                json!([{"role": "user", "content": [{"type": "smell"}]}]),
                "[0].content[0].type",
                "unknown variant `smell`",
            ),
        ] {
            let error = read(all.clone()).unwrap_err();
            assert!(error.message.contains(part), "{all}: {error}");
            assert_eq!(error.param.as_deref(), Some(param), "{all}: {error}");
        }
    }
}
