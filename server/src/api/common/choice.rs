//! The choice among tools, as OpenAI's clients write it in chats and responses.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use utoipa::ToSchema;

use super::tools::tool_name;
use crate::engine::error::{ApiError, cut};
use crate::generate::job::ToolChoice;

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

/// One tool, or those that are allowed: in the fields of chats (`function`, `custom`, `allowed_tools`) or of responses,
/// beside `type`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ChosenTools {
    /// `function`, `custom` or `allowed_tools`.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// The tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<ToolName>,
    /// The tool, where it takes a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    custom: Option<ToolName>,
    /// Or its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// And its namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
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

/// A tool by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ToolName {
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
    function: Option<ToolName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    custom: Option<ToolName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
}

impl ToolChoiceForm {
    /// No call.
    pub(crate) fn none() -> ToolChoiceForm {
        ToolChoiceForm::Word(ToolChoiceWord::None)
    }

    /// A call of this function.
    pub(crate) fn named(name: String) -> ToolChoiceForm {
        ToolChoiceForm::Chosen(ChosenTools { name: Some(name), ..ChosenTools::default() })
    }
}

impl Default for ToolChoiceForm {
    fn default() -> Self {
        ToolChoiceForm::Word(ToolChoiceWord::Auto)
    }
}

/// What is to be called of the tools in the form that templates know; those that are not allowed go. `shown` gives the name
/// by which the model knows a tool, from its namespace and its name.
///
/// # Errors
/// A choice that no tool fits.
pub(crate) fn choose(
    choice: Option<ToolChoiceForm>,
    tools: &mut Vec<Json>,
    shown: impl Fn(Option<&str>, &str) -> String,
) -> Result<ToolChoice, ApiError> {
    let wrong = |what: &str| ApiError::param("tool_choice", what);
    let choice = match choice.unwrap_or_default() {
        ToolChoiceForm::Word(word) => word.choice(),
        ToolChoiceForm::Chosen(chosen) => {
            let kind = chosen.kind.as_deref().unwrap_or("function");
            let flat = chosen.tools.map(|tools| AllowedTools { mode: chosen.mode, tools });
            match (kind, chosen.allowed_tools.or(flat)) {
                ("allowed_tools", None) => return Err(wrong("tool_choice lists no allowed tools")),
                ("allowed_tools", Some(AllowedTools { mode, tools: allowed })) => {
                    let named = |t: AllowedTool| {
                        let name = t.function.or(t.custom).map(|f| f.name).or(t.name)?;
                        Some(shown(t.namespace.as_deref(), &name))
                    };
                    let names: Vec<String> = allowed.into_iter().filter_map(named).collect();
                    tools.retain(|tool| names.iter().any(|name| name == tool_name(tool)));
                    mode.unwrap_or_default().choice()
                }
                ("auto", _) => ToolChoice::Auto,
                ("none", _) => ToolChoice::None,
                ("any" | "required", _) => ToolChoice::Required,
                (kind, _) => {
                    let name = chosen.function.or(chosen.custom).map(|f| f.name).or(chosen.name);
                    let none = || match kind {
                        "function" | "custom" | "tool" => wrong("tool_choice names no function: give its name"),
                        other => wrong(&format!("tool_choice demands {:?}, which does not exist here", cut(other, 80))),
                    };
                    ToolChoice::Named(shown(chosen.namespace.as_deref(), &name.ok_or_else(none)?))
                }
            }
        }
    };
    check_choice(&choice, tools)?;
    Ok(choice)
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
    use crate::api::common::ignored::Ignored;
    use crate::api::common::tools::{Tools, check_tools};
    use serde_json::json;

    #[derive(Deserialize)]
    struct Choice {
        tools: Option<Tools>,
        tool_choice: Option<ToolChoiceForm>,
    }

    fn read<T: serde::de::DeserializeOwned>(value: &Json) -> Result<T, ApiError> {
        crate::api::common::body::parse(value.to_string().as_bytes())
    }

    #[test]
    fn every_form_of_a_choice() {
        let choose = |choice: Json| {
            let field: Choice = read(&json!({"tool_choice": choice, "tools": [{"type": "function", "name": "add"},
                {"type": "function", "name": "now"}]}))?;
            let mut tools = check_tools(field.tools.unwrap_or_default(), &Ignored::default())?;
            let choice = choose(field.tool_choice, &mut tools, |_, name| name.to_owned())?;
            Ok::<_, ApiError>((choice, tools.len()))
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
            json!({"type": "web_search"}),
            json!({"type": "function"}),
            json!({"type": "function", "function": {"name": "sub"}}),
            json!({"type": "allowed_tools", "mode": "required", "tools": []}),
        ] {
            assert_eq!(choose(wrong.clone()).unwrap_err().param.as_deref(), Some("tool_choice"), "{wrong}");
        }
        let required = Some(ToolChoiceForm::Word(ToolChoiceWord::Required));
        assert!(super::choose(required, &mut Vec::new(), |_, name| name.to_owned()).is_err());
    }
}
