//! Tools, the choice among them, and schemas of answers: from OpenAI's forms (of chats and of responses) to a job's.

use ir_engine::text::constrain::relaxed;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use utoipa::ToSchema;

use crate::engine::error::{ApiError, cut};
use crate::generate::job::{Grammar, ToolChoice};

/// A function that the model may call: chats write it as `function`, responses its fields beside `type`. Either is taken.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Tool {
    /// May be left out beside `function`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<FunctionWord>,
    /// The function.
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<Function>,
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

/// What a tool is called and takes.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Function {
    name: String,
    /// What it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// The JSON schema of its arguments, an object.
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Map<String, Json>>,
}

/// The only kind of tool that a client brings along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FunctionWord {
    Function,
}

/// How `tool_choice` may be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "give \"auto\", \"none\", \"required\" or the name of a function")]
pub(crate) enum ToolChoiceForm {
    /// Whether tools are called.
    Word(ToolChoiceWord),
    /// Which.
    Chosen(ChosenTools),
}

/// Whether tools are called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToolChoiceWord {
    #[default]
    Auto,
    None,
    #[serde(alias = "any")]
    Required,
}

/// One tool, or those that are allowed: in the fields of chats (`function`, `allowed_tools`) or of responses, beside `type`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ChosenTools {
    #[serde(rename = "type")]
    kind: ChosenWord,
    /// The tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<FunctionName>,
    /// Or its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The tools that are allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_tools: Option<AllowedTools>,
    /// Or whether one of them is called,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<ToolChoiceWord>,
    /// and which they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<Vec<AllowedTool>>,
}

/// What is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ChosenWord {
    Function,
    AllowedTools,
}

/// A tool by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct FunctionName {
    name: String,
}

/// Tools that are allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct AllowedTools {
    /// Whether one of them is called.
    mode: Option<ToolChoiceWord>,
    tools: Vec<AllowedTool>,
}

/// A tool that is allowed, in either form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct AllowedTool {
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<FunctionName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

impl Default for ToolChoiceForm {
    fn default() -> Self {
        ToolChoiceForm::Word(ToolChoiceWord::Auto)
    }
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

/// Tools in the form that templates know (`{"type": "function", "function": {...}}`).
///
/// # Errors
/// A tool without a name, with its place.
pub(crate) fn check_tools(tools: Vec<Tool>) -> Result<Vec<Json>, ApiError> {
    tools.into_iter().enumerate().map(|(i, tool)| tool.checked(i)).collect()
}

impl Tool {
    fn checked(self, i: usize) -> Result<Json, ApiError> {
        let wrong = |field: &str, what: &str| {
            let field = format!("tools[{i}].{field}");
            ApiError::param(&field, format!("{field} {what}"))
        };
        if self.kind.is_none() && self.function.is_none() {
            return Err(wrong("type", "is missing: give \"function\""));
        }
        let Tool { name, description, parameters, .. } = self;
        let flat = || Function { name: name.unwrap_or_default(), description, parameters };
        let function = self.function.unwrap_or_else(flat);
        if function.name.is_empty() {
            return Err(wrong("function.name", "must be a string that is not empty"));
        }
        Ok(json!({"type": "function", "function": function}))
    }
}

/// A tool's name, of tools in a chat's form.
pub(crate) fn tool_name(tool: &Json) -> &str {
    tool.pointer("/function/name").and_then(Json::as_str).unwrap_or("")
}

/// A request's tools in a chat's form, and the choice among them, which a list of allowed ones cuts down.
///
/// # Errors
/// A tool without a name, a choice that no tool fits.
pub(crate) fn tools_and_choice(
    tools: Option<Vec<Tool>>,
    choice: Option<ToolChoiceForm>,
) -> Result<(Vec<Json>, ToolChoice), ApiError> {
    let mut tools = check_tools(tools.unwrap_or_default())?;
    let wrong = |what: &str| ApiError::param("tool_choice", what);
    let choice = match choice.unwrap_or_default() {
        ToolChoiceForm::Word(word) => word.choice(),
        ToolChoiceForm::Chosen(chosen) if chosen.kind == ChosenWord::Function => {
            let name = chosen.function.map(|f| f.name).or(chosen.name);
            ToolChoice::Named(name.ok_or_else(|| wrong("tool_choice names no function: give its name"))?)
        }
        ToolChoiceForm::Chosen(chosen) => {
            let flat = chosen.tools.map(|tools| AllowedTools { mode: chosen.mode, tools });
            let allowed = chosen.allowed_tools.or(flat);
            let AllowedTools { mode, tools: allowed } =
                allowed.ok_or_else(|| wrong("tool_choice lists no allowed tools"))?;
            let name = |t: AllowedTool| t.function.map(|f| f.name).or(t.name);
            let names: Vec<String> = allowed.into_iter().filter_map(name).collect();
            tools.retain(|tool| names.iter().any(|name| name == tool_name(tool)));
            mode.unwrap_or_default().choice()
        }
    };
    check_choice(&choice, &tools)?;
    Ok((tools, choice))
}

impl ToolChoiceWord {
    fn choice(self) -> ToolChoice {
        match self {
            ToolChoiceWord::Auto => ToolChoice::Auto,
            ToolChoiceWord::None => ToolChoice::None,
            ToolChoiceWord::Required => ToolChoice::Required,
        }
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Choice {
        tools: Option<Vec<Tool>>,
        tool_choice: Option<ToolChoiceForm>,
    }

    fn tools() -> Vec<Json> {
        let parameters = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
        let chat = json!({"type": "function", "function": {"strict": true, "name": "add", "parameters": parameters}});
        let flat = json!({"type": "function", "name": "now", "description": "d", "parameters": null, "strict": true});
        check_tools(vec![read(&chat).unwrap(), read(&flat).unwrap()]).unwrap()
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
    fn wrong_tools_are_named() {
        for (tool, param) in [
            (json!(5), "[0]"),
            (json!({"type": "web_search"}), "[0].type"),
            (json!({}), "tools[0].type"),
            (json!({"type": "function", "function": "add"}), "[0].function"),
            (json!({"type": "function", "function": {"name": ""}}), "tools[0].function.name"),
            (json!({"type": "function", "function": {"name": "a", "parameters": []}}), "[0].function.parameters"),
            (json!({"type": "function", "name": "a", "parameters": []}), "[0].parameters"),
        ] {
            let error = read(&json!([tool])).and_then(check_tools).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{tool}");
            assert!(error.message.starts_with(param), "{error}");
        }
    }

    #[test]
    fn every_form_of_a_choice() {
        let choose = |choice: Json| {
            let field: Choice = read(&json!({"tool_choice": choice, "tools": [{"type": "function", "name": "add"},
                {"type": "function", "name": "now"}]}))?;
            tools_and_choice(field.tools, field.tool_choice).map(|(tools, choice)| (choice, tools.len()))
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
        let required = Some(ToolChoiceForm::Word(ToolChoiceWord::Required));
        assert!(tools_and_choice(None, required).is_err());
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
