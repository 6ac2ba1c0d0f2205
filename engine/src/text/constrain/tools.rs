//! Grammars of tool calls: an answer that is nothing but calls, written as a model's [`ToolFormat`] has them, so that
//! [`ToolParser`](crate::text::tools::ToolParser) reads them back.

use std::fmt::Write;

use serde_json::{Map, Value as Json, json};

use super::schema;
use super::trie::Marks;
use super::{Grammar, relaxed};
use crate::error::{Error, Result};
use crate::text::tools::{ToolFormat, is_name};

/// What a message of Harmony ends with.
const END: &str = "<|end|>";
/// Tools of a request at most.
const MAX_TOOLS: usize = 512;

/// A tool that may be called.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tool<'a> {
    /// Its name.
    pub name: &'a str,
    /// The schema of its arguments, an object; `None` where it takes none. What no grammar can hold to is passed over.
    pub parameters: Option<&'a Json>,
}

/// Which calls an answer must make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolChoice<'a> {
    /// At least one, of any tool.
    Required,
    /// Of the tool of this name.
    Named(&'a str),
}

/// A grammar of calls whose tags become tokens where a vocabulary has them.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolGrammar {
    /// Lark, but for the tags: `tag0`, `tag1`, ...
    lark: String,
    tags: Vec<&'static str>,
}

impl ToolGrammar {
    /// The grammar for a vocabulary.
    pub(super) fn to_lark(&self, marks: &Marks) -> String {
        let mut out = self.lark.clone();
        for (i, tag) in self.tags.iter().enumerate() {
            let _ = match marks.get(*tag) {
                Some(id) => writeln!(out, "tag{i}: <[{id}]>"),
                None => writeln!(out, "tag{i}: {}", literal(tag)),
            };
        }
        if self.tags.contains(&END) {
            // Marks that are tokens are spelled like texts: none of them begins within a thought.
            let text = if marks.contains_key(END) { "([^<]|<[^|])*" } else { "[^<]*" };
            let _ = writeln!(out, "thinking: /{text}/");
        }
        out
    }
}

/// The grammar of an answer that calls tools and says nothing else; `parallel` allows several calls where the format has
/// them in one answer.
///
/// # Errors
/// No tools, a choice that is not among them, a name that the format cannot write, a schema of arguments that is no
/// object.
pub fn tool_grammar(format: ToolFormat, tools: &[Tool], choice: ToolChoice, parallel: bool) -> Result<Grammar> {
    let mut chosen: Vec<&Tool> = tools.iter().collect();
    if let ToolChoice::Named(name) = choice {
        chosen.retain(|tool| tool.name == name);
        if chosen.is_empty() {
            return Err(Error::request(format!("tool_choice names {name:?}, which is not among the tools")));
        }
    }
    if chosen.is_empty() || chosen.len() > MAX_TOOLS {
        return Err(Error::request(format!("a call is required: give 1 to {MAX_TOOLS} tools")));
    }
    let mut writer = Writer::default();
    let calls = chosen.iter().map(|tool| writer.call(format, tool)).collect::<Result<Vec<_>>>()?;
    writer.rule("call", &calls.join(" | "));
    let start = writer.start(format, parallel);
    writer.rule("start", &start);
    let Writer { lark, tags, .. } = writer;
    Ok(Grammar::Tools(ToolGrammar { lark, tags }))
}

#[derive(Default)]
struct Writer {
    lark: String,
    tags: Vec<&'static str>,
    n_rules: usize,
}

impl Writer {
    fn rule(&mut self, name: &str, body: &str) {
        let _ = writeln!(self.lark, "{name}: {body}");
    }

    /// A rule of its own for this body; gives its name.
    fn part(&mut self, body: &str) -> String {
        let name = format!("p{}", self.n_rules);
        self.n_rules += 1;
        self.rule(&name, body);
        name
    }

    /// The name of a tag's rule.
    fn tag(&mut self, tag: &'static str) -> String {
        let at = self.tags.iter().position(|t| *t == tag).unwrap_or_else(|| {
            self.tags.push(tag);
            self.tags.len() - 1
        });
        format!("tag{at}")
    }

    /// What comes before, between and behind calls.
    fn start(&mut self, format: ToolFormat, parallel: bool) -> String {
        let more = |between: &str| match parallel {
            true if between.is_empty() => "call+".to_owned(),
            true => format!("call ({between} call)*"),
            false => "call".to_owned(),
        };
        match format {
            ToolFormat::Hermes => more(r#""\n""#),
            ToolFormat::Llama3 => more(r#""; ""#),
            ToolFormat::Pythonic => format!(r#""[" {} "]""#, more(r#"", ""#)),
            ToolFormat::Mistral => more(""),
            ToolFormat::MistralList => {
                format!(r#"{} /[ ]?\[/ {} "]""#, self.tag("[TOOL_CALLS]"), more(r#"", ""#))
            }
            ToolFormat::DeepSeek => {
                let (begin, end) = (self.tag("<｜tool▁calls▁begin｜>"), self.tag("<｜tool▁calls▁end｜>"));
                format!("{begin} {} {end}", more(""))
            }
            ToolFormat::DeepSeekFenced => {
                let (begin, end) = (self.tag("<｜tool▁calls▁begin｜>"), self.tag("<｜tool▁calls▁end｜>"));
                format!(r#"{begin} {} {end}"#, more(r#""\n""#))
            }
            // A message with a call ends the answer. Reasoning may come before it.
            ToolFormat::Harmony => {
                let [channel, message, end, start] =
                    ["<|channel|>", "<|message|>", END, "<|start|>"].map(|tag| self.tag(tag));
                self.rule("thought", &format!(r#"{channel} "analysis" {message} thinking {end} {start} "assistant""#));
                "thought? call".into()
            }
            ToolFormat::Gemma => format!(r#""```tool_code\n" {} "\n```""#, more(r#""\n""#)),
        }
    }

    /// A call of a tool; gives the name of its rule.
    fn call(&mut self, format: ToolFormat, tool: &Tool) -> Result<String> {
        let name = tool.name;
        let parameters = arguments(tool)?;
        let bare = !matches!(format, ToolFormat::Hermes | ToolFormat::Llama3 | ToolFormat::MistralList);
        if name.is_empty() || name.len() > 256 || (bare && !is_name(name)) {
            return Err(Error::request(format!(
                "the tool's name {name:?} cannot be written in this model's calls: use letters, digits, _ and -"
            )));
        }
        let object = |before: &str, key: &str, json: &str| {
            let head = format!("{before}{{\"name\": {}, \"{key}\": ", Json::from(name));
            format!("{} {json} \"}}\"", literal(&head))
        };
        let json = format!("%json {parameters}");
        let body = match format {
            ToolFormat::Hermes => {
                let (open, close) = (self.tag("<tool_call>"), self.tag("</tool_call>"));
                format!(r#"{open} {} "\n" {close}"#, object("\n", "arguments", &json))
            }
            ToolFormat::Llama3 => object("", "parameters", &json),
            ToolFormat::MistralList => object("", "arguments", &json),
            ToolFormat::Pythonic | ToolFormat::Gemma => {
                let list = self.keywords(name, &parameters)?;
                format!("{} {list} \")\"", literal(&format!("{name}(")))
            }
            ToolFormat::Mistral => {
                let (calls, args) = (self.tag("[TOOL_CALLS]"), self.tag("[ARGS]"));
                format!("{calls} {} {args} {json}", literal(name))
            }
            ToolFormat::DeepSeek | ToolFormat::DeepSeekFenced => {
                let [begin, sep, end] =
                    ["<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"].map(|t| self.tag(t));
                match format {
                    ToolFormat::DeepSeek => format!("{begin} {} {sep} {json} {end}", literal(name)),
                    _ => {
                        let head = literal(&format!("{name}\n```json\n"));
                        format!(r#"{begin} "function" {sep} {head} {json} "\n```" {end}"#)
                    }
                }
            }
            ToolFormat::Harmony => {
                let [channel, constrain, message] =
                    ["<|channel|>", "<|constrain|>", "<|message|>"].map(|tag| self.tag(tag));
                let head = literal(&format!("commentary to=functions.{name} "));
                format!(r#"{channel} {head} {constrain} "json" {message} {json}"#)
            }
        };
        Ok(self.part(&body))
    }

    /// Arguments as keywords of a Python call, in the schema's order; values are written as JSON, whose literals Python's
    /// reader takes too.
    fn keywords(&mut self, tool: &str, parameters: &Json) -> Result<String> {
        let plain = ["$ref", "anyOf", "oneOf", "allOf", "patternProperties"];
        let empty = Map::new();
        let properties = parameters["properties"].as_object().unwrap_or(&empty);
        if let Some(key) = plain.iter().find(|key| parameters.get(**key).is_some()) {
            return Err(Error::unsupported(format!(
                "the parameters of {tool:?} use {key:?}, which a call in this model's form cannot have: give plain properties"
            )));
        }
        let required = |key: &str| parameters["required"].as_array().is_some_and(|r| r.iter().any(|k| k == key));
        let named: Vec<&str> =
            parameters["required"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
        let known = |key: &&&str| !properties.contains_key(**key) || !is_name(key);
        if let Some(key) = named.iter().find(known) {
            return Err(Error::unsupported(format!(
                "the parameter {key:?} of {tool:?} cannot be written in a call of this model's form: rename it"
            )));
        }
        let mut items = Vec::new();
        for (key, value) in properties.iter().filter(|(key, _)| is_name(key)) {
            let value = inner(parameters, value);
            items.push((self.part(&format!("{} %json {value}", literal(&format!("{key}=")))), required(key)));
        }
        Ok(self.list(&items))
    }

    /// Items in order with commas between them, of which some may be left out.
    fn list(&mut self, items: &[(String, bool)]) -> String {
        // For each place from the last on: what may follow behind an item, and at the start.
        let (mut behind, mut first) = (r#""""#.to_owned(), r#""""#.to_owned());
        for (item, required) in items.iter().rev() {
            let with = format!("{item} {behind}");
            let next = if *required { self.part(&with) } else { self.part(&format!("{with} | {first}")) };
            let with = format!("\", \" {item} {behind}");
            behind = if *required { self.part(&with) } else { self.part(&format!("{with} | {behind}")) };
            first = next;
        }
        first
    }
}

/// A tool's schema of arguments, ready for llguidance.
fn arguments(tool: &Tool) -> Result<Json> {
    let schema = match tool.parameters {
        None | Some(Json::Null) => json!({"type": "object", "properties": {}}),
        Some(schema) => relaxed(schema),
    };
    let wrong =
        || Error::request(format!("the parameters of the tool {:?} are no JSON schema of an object", tool.name));
    let mut map = match schema {
        Json::Object(map) => map,
        _ => return Err(wrong()),
    };
    match map.get("type") {
        None => _ = map.insert("type".into(), "object".into()),
        Some(kind) if kind == "object" => {}
        Some(_) => return Err(wrong()),
    }
    let named = |e: Error| Error::request(format!("the parameters of the tool {:?}: {e}", tool.name));
    schema::prepare(&Json::Object(map)).map_err(named)
}

/// A property's schema as a document of its own, with the definitions it may refer to.
fn inner(parameters: &Json, property: &Json) -> Json {
    let mut map = match property {
        Json::Object(map) => map.clone(),
        Json::Bool(false) => Map::from_iter([("enum".to_owned(), json!([]))]),
        _ => Map::new(),
    };
    for key in ["$defs", "definitions"] {
        if let (Some(defs), false) = (parameters.get(key), map.contains_key(key)) {
            map.insert(key.into(), defs.clone());
        }
    }
    let mut options = schema::options();
    // Python's reader takes no pairs of surrogates.
    options["json_allowed_escapes"] = json!("nrbtf\\\"");
    map.insert("x-guidance".into(), options);
    Json::Object(map)
}

/// A text as Lark writes it.
fn literal(text: &str) -> String {
    Json::from(text).to_string()
}
