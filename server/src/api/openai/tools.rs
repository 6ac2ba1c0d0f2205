//! Tools, the choice among them, and schemas of answers: from OpenAI's forms (of chats and of responses) to a job's.

use ir_engine::text::constrain::relaxed;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use utoipa::ToSchema;

use crate::error::{ApiError, cut};
use crate::generate::job::{Grammar, ToolChoice};

/// A tool of a chat.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "describes what check_tools reads")]
pub(crate) struct FunctionTool {
    #[serde(rename = "type")]
    kind: FunctionWord,
    function: FunctionDefinition,
}

/// What a tool is called and takes.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "describes what check_tools reads")]
pub(crate) struct FunctionDefinition {
    name: String,
    description: Option<String>,
    /// The JSON schema of its arguments, an object.
    #[schema(value_type = Option<Object>)]
    parameters: Option<Json>,
}

/// The only kind of tool that a client brings along.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FunctionWord {
    Function,
}

/// How `tool_choice` may be written.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what tool_choice reads")]
pub(crate) enum ToolChoiceForm {
    Word(ToolChoiceWord),
    Named(NamedFunction),
}

/// Whether tools are called.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToolChoiceWord {
    Auto,
    None,
    Required,
}

/// A choice of one tool.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "describes what tool_choice reads")]
pub(crate) struct NamedFunction {
    #[serde(rename = "type")]
    kind: FunctionWord,
    function: FunctionName,
}

/// A tool by its name.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "describes what tool_choice reads")]
pub(crate) struct FunctionName {
    name: String,
}

/// What the answer must be.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ResponseFormat {
    /// Any text.
    Text,
    /// A JSON object.
    JsonObject {
        /// Its schema. (llama-server's.)
        #[schema(value_type = Option<Object>)]
        schema: Option<Json>,
    },
    /// JSON of a schema.
    JsonSchema {
        /// The schema and its name.
        json_schema: NamedSchema,
    },
}

/// A schema with a name.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct NamedSchema {
    /// The JSON schema.
    #[schema(value_type = Object)]
    pub(crate) schema: Json,
    /// Refuses what the answer cannot be held to, instead of passing over it.
    pub(crate) strict: Option<bool>,
}

impl ResponseFormat {
    /// The grammar of it; `None` where any text will do.
    pub(crate) fn grammar(&self) -> Result<Option<Grammar>, ApiError> {
        Ok(match self {
            ResponseFormat::Text => None,
            ResponseFormat::JsonObject { schema: None } => Some(Grammar::Json),
            ResponseFormat::JsonObject { schema: Some(schema) } => {
                Some(schema_grammar("response_format.schema", schema, false)?)
            }
            ResponseFormat::JsonSchema { json_schema: NamedSchema { schema, strict } } => {
                Some(schema_grammar("response_format.json_schema.schema", schema, *strict == Some(true))?)
            }
        })
    }
}

/// A schema as a grammar. A strict one is taken as it is, so that what cannot be held to is an error; of another one that
/// is left out.
pub(crate) fn schema_grammar(field: &str, schema: &Json, strict: bool) -> Result<Grammar, ApiError> {
    if !schema.is_object() {
        return Err(ApiError::param(field, format!("{field} must be a JSON schema, an object")));
    }
    Ok(Grammar::JsonSchema(if strict { schema.clone() } else { relaxed(schema) }))
}

/// Tools in a chat's form (`{"type": "function", "function": {...}}`) from that or from the flat form of responses
/// (`{"type": "function", "name": ...}`). `strict` speaks to the server, so no template sees it.
pub(crate) fn check_tools(tools: Vec<Json>) -> Result<Vec<Json>, ApiError> {
    tools.into_iter().enumerate().map(|(i, tool)| check_tool(i, tool)).collect()
}

fn check_tool(i: usize, tool: Json) -> Result<Json, ApiError> {
    let wrong = |field: &str, what: &str| {
        let field = format!("tools[{i}]{field}");
        Err(ApiError::param(&field, format!("{field} {what}")))
    };
    let Json::Object(mut tool) = tool else { return wrong("", "must be an object") };
    match tool.get("type").and_then(Json::as_str) {
        Some("function") => {}
        // Ollama's clients leave it out.
        None if tool.contains_key("function") => {}
        Some(other) => {
            return wrong(".type", &format!("is {:?}: only tools of type \"function\" exist here", cut(other, 80)));
        }
        None => return wrong(".type", "is missing: give \"function\""),
    }
    let mut function = match tool.shift_remove("function") {
        Some(Json::Object(function)) => function,
        Some(_) => return wrong(".function", "must be an object"),
        None => {
            tool.shift_remove("type");
            tool
        }
    };
    function.shift_remove("strict");
    if function.get("name").and_then(Json::as_str).is_none_or(str::is_empty) {
        return wrong(".function.name", "must be a string that is not empty");
    }
    if function.get("parameters").is_some_and(|p| !p.is_object() && !p.is_null()) {
        return wrong(".function.parameters", "must be a JSON schema, an object");
    }
    if function.get("parameters").is_some_and(Json::is_null) {
        function.shift_remove("parameters");
    }
    Ok(json!({"type": "function", "function": function}))
}

/// A tool's name, of tools in a chat's form.
pub(crate) fn tool_name(tool: &Json) -> &str {
    tool.pointer("/function/name").and_then(Json::as_str).unwrap_or("")
}

/// A request's tools in a chat's form, and the choice among them.
pub(crate) fn tools_and_choice(
    tools: Option<Vec<Json>>,
    choice: Option<&Json>,
) -> Result<(Vec<Json>, ToolChoice), ApiError> {
    let mut tools = check_tools(tools.unwrap_or_default())?;
    let choice = tool_choice(choice, &mut tools)?;
    Ok((tools, choice))
}

/// The choice among tools, which a list of allowed ones cuts down.
fn tool_choice(choice: Option<&Json>, tools: &mut Vec<Json>) -> Result<ToolChoice, ApiError> {
    let wrong = |what: String| ApiError::param("tool_choice", what);
    let chosen = match choice {
        None | Some(Json::Null) => ToolChoice::Auto,
        Some(Json::String(word)) => word_choice(word).ok_or_else(|| wrong(expected(word)))?,
        Some(Json::Object(map)) => match map.get("type").and_then(Json::as_str).unwrap_or("") {
            "function" => {
                let name = named(map).ok_or_else(|| wrong("tool_choice names no function: give its name".into()))?;
                ToolChoice::Named(name.to_owned())
            }
            "allowed_tools" => {
                let inner = map.get("allowed_tools").and_then(Json::as_object).unwrap_or(map);
                let allowed = inner.get("tools").and_then(Json::as_array);
                let allowed = allowed.ok_or_else(|| wrong("tool_choice lists no allowed tools".into()))?;
                let names: Vec<&str> = allowed.iter().filter_map(|t| named(t.as_object()?)).collect();
                tools.retain(|tool| names.contains(&tool_name(tool)));
                let mode = inner.get("mode").and_then(Json::as_str).unwrap_or("auto");
                word_choice(mode).ok_or_else(|| wrong(expected(mode)))?
            }
            other => return Err(wrong(expected(other))),
        },
        Some(_) => return Err(wrong("tool_choice must be a string or an object".into())),
    };
    check_choice(&chosen, tools).map(|()| chosen)
}

/// Refuses a choice that no tool fits.
pub(crate) fn check_choice(choice: &ToolChoice, tools: &[Json]) -> Result<(), ApiError> {
    let wrong = |what: String| Err(ApiError::param("tool_choice", what));
    match choice {
        ToolChoice::Required if tools.is_empty() => wrong("tool_choice demands a call, but there are no tools".into()),
        ToolChoice::Named(name) if !tools.iter().any(|t| tool_name(t) == name) => {
            wrong(format!("tool_choice names {:?}, which is not among the tools", cut(name, 80)))
        }
        _ => Ok(()),
    }
}

fn word_choice(word: &str) -> Option<ToolChoice> {
    Some(match word {
        "auto" => ToolChoice::Auto,
        "none" => ToolChoice::None,
        "required" | "any" => ToolChoice::Required,
        _ => return None,
    })
}

fn expected(found: &str) -> String {
    let found = cut(found, 80);
    format!("tool_choice is {found:?}: give \"auto\", \"none\", \"required\" or the name of a function")
}

fn named(map: &Map<String, Json>) -> Option<&str> {
    let name = map.get("function").and_then(|f| f.get("name")).or_else(|| map.get("name"));
    name.and_then(Json::as_str)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    fn tools() -> Vec<Json> {
        let parameters = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
        let chat = json!({"type": "function", "function": {"strict": true, "name": "add", "parameters": parameters}});
        let flat = json!({"type": "function", "name": "now", "description": "d", "parameters": null, "strict": true});
        check_tools(vec![chat, flat]).unwrap()
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
    fn wrong_tools_are_named() {
        for (tool, param) in [
            (json!(5), "tools[0]"),
            (json!({"type": "web_search"}), "tools[0].type"),
            (json!({}), "tools[0].type"),
            (json!({"type": "function", "function": "add"}), "tools[0].function"),
            (json!({"type": "function", "function": {"name": ""}}), "tools[0].function.name"),
            (json!({"type": "function", "name": "a", "parameters": []}), "tools[0].function.parameters"),
        ] {
            let error = check_tools(vec![tool.clone()]).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{tool}");
            assert!(error.message.starts_with(param), "{error}");
        }
    }

    #[test]
    fn every_form_of_a_choice() {
        let choose = |choice: Json| {
            let mut tools = tools();
            tool_choice(Some(&choice), &mut tools).map(|c| (c, tools.len()))
        };
        let named = ToolChoice::Named("add".into());
        let allowed = json!([{"type": "function", "function": {"name": "now"}}]);
        for (form, want) in [
            (json!(null), (ToolChoice::Auto, 2)),
            (json!("none"), (ToolChoice::None, 2)),
            (json!("required"), (ToolChoice::Required, 2)),
            (json!({"type": "function", "function": {"name": "add"}}), (named.clone(), 2)),
            (json!({"type": "function", "name": "add"}), (named, 2)),
            (
                json!({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": allowed}}),
                (ToolChoice::Required, 1),
            ),
            (
                json!({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "now"}]}),
                (ToolChoice::Auto, 1),
            ),
        ] {
            assert_eq!(choose(form.clone()).unwrap(), want, "{form}");
        }
        for wrong in [
            json!("maybe"),
            json!(5),
            json!({"type": "custom"}),
            json!({"type": "function"}),
            json!({"type": "function", "function": {"name": "sub"}}),
            json!({"type": "allowed_tools", "mode": "required", "tools": []}),
        ] {
            assert_eq!(choose(wrong.clone()).unwrap_err().param.as_deref(), Some("tool_choice"), "{wrong}");
        }
        assert!(tool_choice(Some(&json!("required")), &mut Vec::new()).is_err());
    }

    #[test]
    fn formats_become_grammars() {
        let read = |value: Json| serde_json::from_value::<ResponseFormat>(value).unwrap().grammar();
        assert_eq!(read(json!({"type": "text"})), Ok(None));
        assert_eq!(read(json!({"type": "json_object"})), Ok(Some(Grammar::Json)));
        let schema = json!({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true}}});
        let format = |strict: bool| json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": strict}});
        assert_eq!(read(format(true)), Ok(Some(Grammar::JsonSchema(schema.clone()))));
        let Ok(Some(Grammar::JsonSchema(loose))) = read(format(false)) else { panic!("no schema") };
        assert!(!loose.to_string().contains("uniqueItems"), "{loose}");
        let wrong = read(json!({"type": "json_schema", "json_schema": {"schema": "x"}})).unwrap_err();
        assert_eq!(wrong.param.as_deref(), Some("response_format.json_schema.schema"));
    }
}
