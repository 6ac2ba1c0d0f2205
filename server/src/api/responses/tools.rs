//! The tools of a response: what clients offer in every form, as the functions that the model is shown, and which of them a
//! call means. Functions of a namespace and tools that take a text are functions to the model; tools that only the hosts of
//! other models run are left out.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use utoipa::ToSchema;

use crate::api::common::ignored::Ignored;
use crate::api::common::known::{Known, Tagged, type_of};
use crate::api::common::tools::{CustomFormat, Function, text_tool};
use crate::engine::error::ApiError;

/// A tool, or a namespace of tools.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ResponseTool {
    /// `function`, `custom` (takes a text), `namespace` (holds others) or `tool_search`; others are left out.
    #[serde(rename = "type")]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// What it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// The JSON schema of its arguments, an object.
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Map<String, Json>>,
    /// Name, description and parameters as chats write them.
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<Function>,
    /// Said to the server, which holds arguments to their schema anyway.
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
    /// Of a tool that takes a text: what the text must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<CustomFormat>,
    /// Of a namespace: its tools.
    #[schema(no_recursion)]
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<Vec<Known<ResponseTool>>>,
    /// Of `tool_search`: `client` where the client runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    execution: Option<String>,
    /// Shown to the model only once a search has found it.
    #[serde(skip_serializing_if = "Option::is_none")]
    defer_loading: Option<bool>,
}

impl Tagged for ResponseTool {
    const TYPES: &'static [&'static str] = &["function", "custom", "namespace", "tool_search"];
    const ABSENT: Option<&'static str> = Some("function");
}

/// What a call of a tool is to its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallKind {
    /// A `function_call`.
    Function,
    /// A `custom_tool_call`, whose argument is a text.
    Custom,
    /// A `tool_search_call`.
    Search,
}

/// A tool that the model is shown.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OfferedTool {
    /// The name that the model knows.
    pub(super) shown: String,
    /// The name that the client knows.
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    pub(super) kind: CallKind,
    description: Option<String>,
    parameters: Option<Map<String, Json>>,
    deferred: bool,
}

/// All tools that the model is shown.
#[derive(Debug, Clone, Default)]
pub(super) struct Offered(Vec<OfferedTool>);

impl Offered {
    /// Takes tools in; `found`: a search found them, or they were loaded later, so that none is deferred any more.
    ///
    /// # Errors
    /// A function without a name, with its place.
    pub(super) fn add(
        &mut self,
        place: &str,
        tools: &[Known<ResponseTool>],
        found: bool,
        ignored: &Ignored,
    ) -> Result<(), ApiError> {
        self.within(place, None, tools, found, ignored)
    }

    fn within(
        &mut self,
        place: &str,
        namespace: Option<&str>,
        tools: &[Known<ResponseTool>],
        found: bool,
        ignored: &Ignored,
    ) -> Result<(), ApiError> {
        for (i, tool) in tools.iter().enumerate() {
            let place = format!("{place}[{i}]");
            let tool = match tool {
                Known::Read(tool) => tool,
                Known::Unknown(map) => {
                    ignored.note(&format!("tools.{}", type_of(map)));
                    continue;
                }
            };
            if tool.kind == "namespace" {
                let inner = tool.tools.as_deref().unwrap_or_default();
                self.within(&format!("{place}.tools"), tool.name.as_deref().or(namespace), inner, found, ignored)?;
            } else if tool.kind == "tool_search" && tool.parameters.is_none() {
                // The hosts of other models run it.
                ignored.note("tools.tool_search");
            } else {
                self.put(tool.offered(&place, namespace, found)?);
            }
        }
        Ok(())
    }

    /// The same tool may come again, from a search: the last counts. One that was not shown before stands behind the rest, so
    /// that the prompt so far stays the beginning.
    fn put(&mut self, tool: OfferedTool) {
        let same = |t: &OfferedTool| t.name == tool.name && t.namespace == tool.namespace;
        match self.0.iter().position(same) {
            Some(at) if tool.deferred || !(self.0[at].deferred && self.searched()) => self.0[at] = tool,
            known => {
                if let Some(at) = known {
                    self.0.remove(at);
                }
                self.0.push(tool);
            }
        }
    }

    /// Whether the client searches for tools: deferred ones are shown when they were found.
    fn searched(&self) -> bool {
        self.0.iter().any(|t| t.kind == CallKind::Search)
    }

    /// Leaves out what only a search may show, and gives each tool a name of its own.
    pub(super) fn finish(mut self) -> Offered {
        if self.searched() {
            self.0.retain(|t| !t.deferred);
        }
        let names: Vec<String> = self.0.iter().map(|t| t.name.clone()).collect();
        for tool in &mut self.0 {
            let alone = names.iter().filter(|name| **name == tool.name).count() == 1;
            tool.shown = match &tool.namespace {
                Some(namespace) if !alone => format!("{namespace}__{}", tool.name),
                _ => tool.name.clone(),
            };
        }
        self
    }

    /// As templates know tools.
    pub(super) fn for_template(&self) -> Vec<Json> {
        let one = |tool: &OfferedTool| {
            let mut function = Map::from_iter([("name".to_owned(), Json::from(tool.shown.as_str()))]);
            if let Some(text) = &tool.description {
                function.insert("description".into(), text.as_str().into());
            }
            if let Some(schema) = &tool.parameters {
                function.insert("parameters".into(), schema.clone().into());
            }
            json!({"type": "function", "function": function})
        };
        self.0.iter().map(one).collect()
    }

    /// The tool that a model's call means: by the name that it is shown, or by one that models make of a namespace.
    pub(super) fn called(&self, shown: &str) -> Option<&OfferedTool> {
        let spelled = |tool: &OfferedTool| {
            let rest = shown.strip_prefix(tool.namespace.as_deref().unwrap_or("functions"))?;
            let name = ["__", ".", "/", ":"].iter().find_map(|between| rest.strip_prefix(between))?;
            Some(name == tool.name)
        };
        let exact = self.0.iter().find(|t| t.shown == shown);
        exact.or_else(|| self.0.iter().find(|t| spelled(t) == Some(true)))
    }

    /// The name by which the model knows a tool of the client's; of one that is no longer offered as it would have been.
    pub(super) fn shown(&self, namespace: Option<&str>, name: &str) -> String {
        let known =
            self.0.iter().find(|t| t.name == name && (namespace.is_none() || t.namespace.as_deref() == namespace));
        known.map_or_else(|| name.to_owned(), |t| t.shown.clone())
    }
}

impl ResponseTool {
    fn offered(&self, place: &str, namespace: Option<&str>, found: bool) -> Result<OfferedTool, ApiError> {
        let nested = self.function.as_ref();
        let name = nested.map(|f| f.name.clone()).or_else(|| self.name.clone());
        let name = name.or_else(|| (self.kind == "tool_search").then(|| self.kind.clone())).unwrap_or_default();
        if name.is_empty() {
            let field = format!("{place}.name");
            return Err(ApiError::param(&field, format!("{field} must be a string that is not empty")));
        }
        let mut description = nested.and_then(|f| f.description.clone()).or_else(|| self.description.clone());
        let mut parameters = nested.and_then(|f| f.parameters.clone()).or_else(|| self.parameters.clone());
        let kind = match self.kind.as_str() {
            "custom" => CallKind::Custom,
            "tool_search" => CallKind::Search,
            _ => CallKind::Function,
        };
        if kind == CallKind::Custom {
            let (text, schema) = text_tool(description, self.format.as_ref());
            (description, parameters) = (text, Some(schema));
        }
        let namespace = namespace.map(str::to_owned);
        let deferred = self.defer_loading == Some(true) && !found;
        Ok(OfferedTool { shown: name.clone(), name, namespace, kind, description, parameters, deferred })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    fn offered(tools: Json) -> Result<Offered, ApiError> {
        let tools: Vec<Known<ResponseTool>> = crate::api::common::body::parse(tools.to_string().as_bytes())?;
        let mut all = Offered::default();
        all.add("tools", &tools, false, &Ignored::default())?;
        Ok(all.finish())
    }

    fn names(offered: &Offered) -> Vec<String> {
        let name = |t: &Json| t["function"]["name"].as_str().unwrap().to_owned();
        offered.for_template().iter().map(name).collect()
    }

    #[test]
    fn every_kind_of_tool_is_offered_or_left_out() {
        let function = |name: &str| json!({"type": "function", "name": name, "parameters": {"type": "object"}});
        let all = offered(json!([
            function("run"),
            {"type": "namespace", "name": "a", "tools": [function("wait"), function("stop"), {"type": "custom", "name": "exec"}]},
            {"type": "namespace", "name": "b", "tools": [function("wait")]},
            {"type": "custom", "name": "patch", "description": "d", "format": {"type": "text"}},
            {"type": "tool_search", "execution": "client", "parameters": {"type": "object"}},
            {"type": "web_search"}, {"type": "brand_new", "name": 5, "tools": {}},
            {"type": "function", "function": {"name": "nested"}},
            {"name": "bare"},
        ]))
        .unwrap();
        assert_eq!(
            names(&all),
            ["run", "a__wait", "stop", "exec", "b__wait", "patch", "tool_search", "nested", "bare"]
        );
        let found = |shown: &str| all.called(shown).map(|t| (t.namespace.as_deref(), t.name.as_str(), t.kind));
        assert_eq!(found("stop"), Some((Some("a"), "stop", CallKind::Function)));
        assert_eq!(found("b__wait"), found("b.wait"));
        assert_eq!(found("a.exec"), Some((Some("a"), "exec", CallKind::Custom)));
        assert_eq!(found("functions.run"), Some((None, "run", CallKind::Function)));
        assert_eq!((found("wait"), found("nope")), (None, None));
        assert_eq!(all.shown(Some("b"), "wait"), "b__wait");
        assert_eq!((all.shown(None, "gone"), all.shown(Some("c"), "gone")), ("gone".into(), "gone".into()));
    }

    #[test]
    fn a_text_is_the_one_argument() {
        let grammar = json!({"type": "grammar", "syntax": "lark", "definition": "start: \"x\""});
        let all = offered(json!([{"type": "custom", "name": "patch", "description": "d", "format": grammar}])).unwrap();
        let function = &all.for_template()[0]["function"];
        assert!(function["description"].as_str().unwrap().contains("start: \"x\""), "{function}");
        assert_eq!(function["parameters"]["required"], json!(["input"]));
    }

    #[test]
    fn deferred_tools_wait_for_their_search() {
        let deferred = json!({"type": "function", "name": "late", "defer_loading": true});
        let search = json!({"type": "tool_search", "execution": "client", "parameters": {"type": "object"}});
        assert_eq!(names(&offered(json!([deferred, search])).unwrap()), ["tool_search"]);
        assert_eq!(names(&offered(json!([deferred])).unwrap()), ["late"]);
        let tools: Vec<Known<ResponseTool>> = serde_json::from_value(json!([deferred])).unwrap();
        let mut all = Offered::default();
        let other = json!({"type": "function", "name": "other"});
        let search: Vec<Known<ResponseTool>> = serde_json::from_value(json!([search, deferred, other])).unwrap();
        all.add("tools", &search, false, &Ignored::default()).unwrap();
        all.add("input[0].tools", &tools, true, &Ignored::default()).unwrap();
        assert_eq!(names(&all.finish()), ["tool_search", "other", "late"]);
    }

    #[test]
    fn wrong_tools_are_named() {
        for (tool, param) in [
            (json!(5), "[0]"),
            (json!({"type": "function"}), "tools[0].name"),
            (json!({"type": "function", "name": "a", "parameters": []}), "[0].parameters"),
            (json!({"type": "namespace", "name": "n", "tools": [{"name": ""}]}), "tools[0].tools[0].name"),
        ] {
            let error = offered(json!([tool])).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{tool}: {error}");
        }
    }
}
