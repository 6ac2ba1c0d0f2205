//! [`Message`] and [`ToolCall`]: one chat as the command, the server and the page exchange it, in OpenAI's JSON form.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::form::Form;

/// One turn of a chat.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, `tool`, or what else the template knows.
    pub role: String,
    /// What is said; absent where an assistant only calls tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The reasoning before an assistant's answer.
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "thinking", alias = "reasoning")]
    pub reasoning_content: Option<String>,
    /// The tools that an assistant calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "list_or_null")]
    pub tool_calls: Vec<ToolCall>,
    /// On a `tool` turn: the name of the tool that answers.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "name", alias = "tool_name")]
    pub tool_name: Option<String>,
    /// On a `tool` turn: the call that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

/// One call of a tool. Reads OpenAI's form (`{"id", "type", "function": {"name", "arguments"}}`) and the flat form
/// (`{"name", "arguments"}`), with the arguments as an object or as JSON text; writes OpenAI's form with an object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "AnyCall", into = "Json")]
pub struct ToolCall {
    /// The caller's identifier of this call, if it gave one.
    pub id: Option<String>,
    /// The tool's name.
    pub name: String,
    /// The arguments, an object as a rule.
    pub arguments: Json,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AnyCall {
    id: Option<String>,
    function: Option<Function>,
    name: Option<String>,
    arguments: Json,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Function {
    name: String,
    arguments: Json,
}

impl From<AnyCall> for ToolCall {
    fn from(call: AnyCall) -> ToolCall {
        let Function { name, arguments } =
            call.function.unwrap_or(Function { name: call.name.unwrap_or_default(), arguments: call.arguments });
        ToolCall::given(call.id, name, arguments)
    }
}

impl From<ToolCall> for Json {
    fn from(call: ToolCall) -> Json {
        call.to_json(false)
    }
}

fn list_or_null<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<ToolCall>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl ToolCall {
    /// A call as clients write it: arguments that are JSON text are read, and none are an empty object.
    pub fn given(id: Option<String>, name: String, arguments: Json) -> ToolCall {
        let arguments = match arguments {
            Json::String(text) => serde_json::from_str(&text).unwrap_or(Json::String(text)),
            Json::Null => Json::Object(Map::new()),
            other => other,
        };
        ToolCall { id, name, arguments }
    }

    /// OpenAI's form; `as_text` gives the arguments as JSON text, which some templates insist on.
    pub(super) fn to_json(&self, as_text: bool) -> Json {
        let arguments = match (&self.arguments, as_text) {
            (Json::String(_), _) | (_, false) => self.arguments.clone(),
            (other, true) => Json::String(super::json::compact(other)),
        };
        let function =
            Map::from_iter([("name".to_owned(), Json::from(self.name.as_str())), ("arguments".to_owned(), arguments)]);
        let mut map = Map::new();
        if let Some(id) = &self.id {
            map.insert("id".into(), id.as_str().into());
        }
        map.insert("type".into(), "function".into());
        map.insert("function".into(), function.into());
        Json::Object(map)
    }
}

impl Message {
    /// A turn that only says something.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: Some(content.into()), ..Message::default() }
    }

    /// The message as a template sees it; `form` serves templates that cannot take what Hugging Face would pass.
    pub(super) fn to_template(&self, form: Form) -> Json {
        let mut map = Map::new();
        map.insert("role".into(), self.role.as_str().into());
        let content = match &self.content {
            Some(text) => Json::from(text.as_str()),
            None if form.empty_content => Json::from(""),
            None => Json::Null,
        };
        map.insert("content".into(), content);
        if let Some(text) = &self.reasoning_content {
            // Qwen3 and DeepSeek read the first, gpt-oss and SmolLM the second.
            map.insert("reasoning_content".into(), text.as_str().into());
            map.insert("thinking".into(), text.as_str().into());
        }
        if !self.tool_calls.is_empty() {
            map.insert("tool_calls".into(), self.tool_calls.iter().map(|c| c.to_json(form.text_arguments)).collect());
        }
        for (key, value) in [("name", &self.tool_name), ("tool_call_id", &self.tool_call_id)] {
            if let Some(text) = value {
                map.insert(key.into(), text.as_str().into());
            }
        }
        Json::Object(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_call_reads_alike() {
        let forms = [
            r#"{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"add","arguments":"{\"a\": 1}"}}]}"#,
            r#"{"role":"assistant","tool_calls":[{"id":"c1","function":{"name":"add","arguments":{"a":1}}}]}"#,
            r#"{"role":"assistant","tool_calls":[{"id":"c1","name":"add","arguments":{"a":1}}]}"#,
        ];
        let read: Vec<Message> = forms.iter().map(|f| serde_json::from_str(f).unwrap()).collect();
        assert!(read.windows(2).all(|w| w[0] == w[1]), "{read:?}");
        let again: Message = serde_json::from_str(&serde_json::to_string(&read[0]).unwrap()).unwrap();
        assert_eq!(again, read[0]);
        let plain: Message =
            serde_json::from_str(r#"{"role":"user","content":"hi","thinking":"hm","tool_calls":null}"#).unwrap();
        assert_eq!(plain.reasoning_content.as_deref(), Some("hm"));
    }
}
