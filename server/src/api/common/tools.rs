//! Tools in OpenAI's forms, of chats and of responses: as templates know them. The choice among them is in `choice`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use utoipa::ToSchema;

use super::ignored::Ignored;
use super::known::{Known, Tagged, type_of};
use super::lark;
use crate::engine::error::ApiError;

/// A function that the model may call: chats write it as `function`, responses its fields beside `type`. Either is taken.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Tool {
    /// `function`, which may be left out, or `custom` (takes a text); others are left out.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    /// The function.
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<Function>,
    /// A tool that takes a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    custom: Option<CustomTool>,
    /// Or its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// What it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// The JSON schema of its arguments, an object.
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Map<String, Json>>,
    /// Said to the server, which holds arguments to their schema anyway.
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

impl Tagged for Tool {
    const TYPES: &'static [&'static str] = &["function", "custom"];
    const ABSENT: Option<&'static str> = Some("function");
}

/// A tool whose argument is a text.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct CustomTool {
    name: String,
    /// What it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// What the text must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<CustomFormat>,
}

/// What the text that a tool takes must be: any, or of a grammar.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct CustomFormat {
    /// `text` or `grammar`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    /// `lark` or `regex`.
    #[serde(skip_serializing_if = "Option::is_none")]
    syntax: Option<String>,
    /// The grammar.
    #[serde(skip_serializing_if = "Option::is_none")]
    definition: Option<String>,
    /// Both, as chats write them.
    #[serde(skip_serializing_if = "Option::is_none")]
    grammar: Option<CustomGrammar>,
}

/// A grammar of a text.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct CustomGrammar {
    /// `lark` or `regex`.
    #[serde(skip_serializing_if = "Option::is_none")]
    syntax: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    definition: Option<String>,
}

/// A tool that takes a text as the function that the model is shown: its description, and the schema of its one argument,
/// `input`.
pub(crate) fn text_tool(
    description: Option<String>,
    format: Option<&CustomFormat>,
) -> (Option<String>, Map<String, Json>) {
    let nested = format.and_then(|f| f.grammar.as_ref());
    let definition = format.and_then(|f| f.definition.as_ref()).or(nested.and_then(|g| g.definition.as_ref()));
    let syntax = format.and_then(|f| f.syntax.as_deref()).or(nested.and_then(|g| g.syntax.as_deref()));
    let mut input = json!({"type": "string"});
    let regex = match (syntax, definition) {
        (Some("regex"), Some(regex)) => Some(regex.clone()),
        (Some("lark"), Some(grammar)) => lark::to_regex(grammar),
        _ => None,
    };
    // All of the text, where a schema's pattern means a part of it.
    if let Some(regex) = regex {
        input["pattern"] = format!("^(?:{regex})$").into();
    }
    let told = definition.map(|text| format!("input is held to this grammar ({}):\n{text}", syntax.unwrap_or("lark")));
    let description: Vec<String> = description.into_iter().chain(told).collect();
    let description = Some(description.join("\n\n")).filter(|text| !text.is_empty());
    let schema = json!({
        "type": "object", "properties": {"input": input}, "required": ["input"], "additionalProperties": false,
    });
    let Json::Object(schema) = schema else { return (description, Map::new()) };
    (description, schema)
}

/// The text that a model gives such a tool, out of its call's arguments.
pub(crate) fn text_argument(arguments: &Json) -> String {
    match arguments.get("input").unwrap_or(arguments) {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What a tool is called and takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// What it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    /// The JSON schema of its arguments, an object.
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parameters: Option<Map<String, Json>>,
}

/// Tools as a request gives them.
pub(crate) type Tools = Vec<Known<Tool>>;

/// Tools in the form that templates know (`{"type": "function", "function": {...}}`); of other types than are known none
/// is left.
///
/// # Errors
/// A tool without a name, with its place.
pub(crate) fn check_tools(tools: Tools, ignored: &Ignored) -> Result<Vec<Json>, ApiError> {
    let mut all = Vec::with_capacity(tools.len());
    for (i, tool) in tools.into_iter().enumerate() {
        match tool {
            Known::Read(tool) => all.push(tool.checked(i)?),
            Known::Unknown(map) => ignored.note(&format!("tools.{}", type_of(&map))),
        }
    }
    Ok(all)
}

/// The names of the tools that take a text.
pub(crate) fn text_tools(tools: &[Known<Tool>]) -> Vec<String> {
    let name = |tool: &Known<Tool>| match tool {
        Known::Read(Tool { kind: Some(kind), custom, name, .. }) if kind == "custom" => {
            custom.as_ref().map(|c| c.name.clone()).or_else(|| name.clone())
        }
        _ => None,
    };
    tools.iter().filter_map(name).collect()
}

impl From<Function> for Tool {
    fn from(function: Function) -> Tool {
        let (kind, function) = (Some("function".into()), Some(function));
        Tool { kind, function, custom: None, name: None, description: None, parameters: None, strict: None }
    }
}

impl Tool {
    fn checked(self, i: usize) -> Result<Json, ApiError> {
        let Tool { kind, name, description, parameters, custom, .. } = self;
        let mut function = match (self.function, custom) {
            (Some(function), _) => function,
            (None, Some(CustomTool { name, description, format })) => {
                let (description, schema) = text_tool(description, format.as_ref());
                Function { name, description, parameters: Some(schema) }
            }
            (None, None) => Function { name: name.unwrap_or_default(), description, parameters },
        };
        if kind.as_deref() == Some("custom") && function.parameters.is_none() {
            function.parameters = Some(text_tool(None, None).1);
        }
        if function.name.is_empty() {
            let field = format!("tools[{i}].function.name");
            return Err(ApiError::param(&field, format!("{field} must be a string that is not empty")));
        }
        Ok(json!({"type": "function", "function": function}))
    }
}

/// A tool's name.
pub(super) fn tool_name(tool: &Json) -> &str {
    tool.pointer("/function/name").and_then(Json::as_str).unwrap_or("")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    fn tools() -> Vec<Json> {
        let parameters = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
        let chat = json!({"type": "function", "function": {"strict": true, "name": "add", "parameters": parameters}});
        let flat = json!({"type": "function", "name": "now", "description": "d", "parameters": null, "strict": true});
        check_tools(read(&json!([chat, flat])).unwrap(), &Ignored::default()).unwrap()
    }

    fn read<T: serde::de::DeserializeOwned>(value: &Json) -> Result<T, ApiError> {
        crate::api::common::body::parse(value.to_string().as_bytes())
    }

    #[test]
    fn both_forms_of_tools_become_one_in_their_order() {
        let text: Vec<String> = tools().iter().map(Json::to_string).collect();
        assert_eq!(
            text[0],
            r#"{"type":"function","function":{"name":"add","parameters":{"type":"object","properties":{"a":{"type":"integer"}}}}}"#
        );
        assert_eq!(text[1], r#"{"type":"function","function":{"name":"now","description":"d"}}"#);
    }

    #[test]
    fn tools_that_only_others_run_are_left_out_and_texts_are_arguments() {
        let custom = json!({"type": "custom", "custom": {"name": "patch", "format": {"type": "grammar", "grammar":
            {"syntax": "regex", "definition": "a+"}}}});
        let given: Tools =
            read(&json!([{"type": "web_search", "function": 5}, custom, {"type": "custom", "name": "run"}])).unwrap();
        assert_eq!(text_tools(&given), ["patch", "run"]);
        let tools = check_tools(given, &Ignored::default()).unwrap();
        assert_eq!(tools.len(), 2);
        assert_eq!(
            tools[0]["function"]["parameters"]["properties"]["input"],
            json!({"type": "string", "pattern": "^(?:a+)$"})
        );
        assert_eq!(tools[1]["function"]["parameters"]["required"], json!(["input"]));
        assert_eq!(text_argument(&json!({"input": "x"})), "x");
        assert_eq!(text_argument(&json!({"b": 1})), "{\"b\":1}");
    }

    #[test]
    fn wrong_tools_are_named() {
        for (tool, param) in [
            (json!(5), "[0]"),
            (json!({}), "tools[0].function.name"),
            (json!({"type": "function", "function": "add"}), "[0].function"),
            (json!({"type": "function", "function": {"name": ""}}), "tools[0].function.name"),
            (json!({"type": "function", "function": {"name": "a", "parameters": []}}), "[0].function.parameters"),
            (json!({"type": "function", "name": "a", "parameters": []}), "[0].parameters"),
        ] {
            let error = read(&json!([tool])).and_then(|t| check_tools(t, &Ignored::default())).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{tool}");
            assert!(error.message.starts_with(param), "{error}");
        }
    }
}
