//! Chat templates: [`ChatTemplate`] turns [`Message`]s into the prompt that a model was trained on.
//! Jinja runs in minijinja; files are hostile, so steps, memory and output are limited. Tokens are no matter here.

mod date;
mod fallback;
mod form;
mod guard;
mod jinja;
mod json;
mod marked;
mod message;
mod think;

use minijinja::{Environment, Value};
use serde_json::{Map, Value as Json};

use super::tools::ToolFormat;
use crate::error::{Error, Result};
use crate::meta::Meta;

pub use date::Now;
use form::{Form, forms};
use guard::Guarded;
pub use marked::Marked;
use marked::Marker;
pub use message::{Message, ToolCall};
pub use think::{Split, ThinkSplitter, ThinkTags};

/// Where a template comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The model file, or what the caller gave.
    File,
    /// The file has none: the family with this name uses the same turn tokens.
    Family(&'static str),
}

/// What a prompt is made of.
#[derive(Debug, Clone, Default)]
pub struct RenderInput<'a> {
    /// The chat so far.
    pub messages: &'a [Message],
    /// Tool definitions in OpenAI's form (`{"type": "function", "function": {...}}`).
    pub tools: &'a [Json],
    /// Whether to end with the opening of an assistant turn.
    pub add_generation_prompt: bool,
    /// The text of the vocabulary's begin-of-sequence token; empty where it has none.
    pub bos: &'a str,
    /// The text of its end-of-sequence token.
    pub eos: &'a str,
    /// Asks for reasoning, or for none; `None` leaves the template's own default.
    pub think: Option<bool>,
    /// More variables for the template. They take precedence over those above.
    pub kwargs: Option<&'a Map<String, Json>>,
    /// The clock, for templates that write a date.
    pub now: Now,
}

/// A prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text to tokenize, with special tokens parsed and none added where it begins with the BOS text.
    pub text: String,
    /// Whether it ends inside the reasoning: the model's first words are thinking.
    pub thinking: bool,
}

/// A chat template, compiled where it parses.
#[derive(Debug)]
pub struct ChatTemplate {
    env: Environment<'static>,
    /// The template, and its variant for chats with tools.
    main: Option<Guarded>,
    tools: Option<Guarded>,
    /// Why a file's template cannot be used. The model can: text is continued without it.
    broken: Option<String>,
    source: Source,
    tags: Option<ThinkTags>,
    /// The sources as they were given.
    text: String,
    /// How it writes calls, once asked for.
    pub(in crate::text) tool_format: std::sync::OnceLock<Option<ToolFormat>>,
}

impl ChatTemplate {
    /// The template of a model file, or that of its family by its turn tokens; `None` where there is neither, and
    /// text can only be continued. `has_token` says whether the vocabulary holds a token of this text.
    ///
    /// A template of the file that does not parse, or is too long, is one that renders nothing: [`ChatTemplate::render`] says
    /// why, [`ChatTemplate::broken`] beforehand.
    ///
    /// # Errors
    /// A template that is no text.
    pub fn from_meta(meta: &Meta, has_token: &dyn Fn(&str) -> bool) -> Result<Option<ChatTemplate>> {
        let Some(main) = meta.opt_str("tokenizer.chat_template")? else {
            let Some((name, template)) = fallback::find(has_token) else { return Ok(None) };
            return Ok(Some(ChatTemplate { source: Source::Family(name), ..ChatTemplate::new(template, None)? }));
        };
        let tool_use = meta.opt_str("tokenizer.chat_template.tool_use")?;
        Ok(Some(ChatTemplate::new(main, tool_use).unwrap_or_else(|error| ChatTemplate {
            env: Environment::empty(),
            main: None,
            tools: None,
            broken: Some(match error {
                Error::Template(why) => why,
                other => other.to_string(),
            }),
            source: Source::File,
            tags: None,
            text: String::new(),
            tool_format: Default::default(),
        })))
    }

    /// Compiles a template, and the variant that chats with tools use where there is one.
    ///
    /// # Errors
    /// Where one does not parse, or is too long.
    pub fn new(main: &str, tool_use: Option<&str>) -> Result<ChatTemplate> {
        let compiled = |text| Guarded::new(text).map_err(|e| sentence(&e));
        let (guarded, tools) = (compiled(main)?, tool_use.map(compiled).transpose()?);
        let tags = ThinkTags::of_template(main).or_else(|| ThinkTags::of_template(tool_use?));
        Ok(ChatTemplate {
            env: jinja::environment(),
            main: Some(guarded),
            tools,
            broken: None,
            source: Source::File,
            tags,
            text: [main, tool_use.unwrap_or_default()].concat(),
            tool_format: Default::default(),
        })
    }

    /// The source, that of the variant for tools behind it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The prompt of a chat whose turns are left as they are; `None` where the template refuses it.
    pub(in crate::text) fn render_unfolded(&self, messages: &[Message], tools: &[Json], open: bool) -> Option<String> {
        let input = RenderInput { messages, tools, add_generation_prompt: open, ..RenderInput::default() };
        let unfolded = forms(messages).into_iter().filter(|form| form.fold == form::Fold::No);
        unfolded.filter_map(|form| self.render_as(&input, form, None).ok()).next()
    }

    /// Why the file's template cannot be used, if it does not parse or is too long.
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// Where the template comes from.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The tags around the model's reasoning, where the template names any.
    pub fn think_tags(&self) -> Option<ThinkTags> {
        self.tags
    }

    /// Whether the model is known to reason before it answers.
    pub fn thinks(&self) -> bool {
        self.tags.is_some() || self.can_switch_thinking()
    }

    /// Whether the template listens to [`RenderInput::think`] (found by rendering both).
    pub fn can_switch_thinking(&self) -> bool {
        let messages = [Message::new("user", "hello")];
        let base = RenderInput { messages: &messages, add_generation_prompt: true, ..RenderInput::default() };
        let [on, off] = [true, false].map(|t| self.render(&RenderInput { think: Some(t), ..base.clone() }));
        matches!((on, off), (Ok(on), Ok(off)) if on != off)
    }

    /// Whether a system message finds its way into the prompt (found by rendering one).
    pub fn supports_system(&self) -> bool {
        let messages = [Message::new("system", "PROBE-7c1"), Message::new("user", "hello")];
        self.probe(&RenderInput { messages: &messages, ..RenderInput::default() })
    }

    /// Whether tool definitions find their way into the prompt (found by rendering one).
    pub fn supports_tools(&self) -> bool {
        let messages = [Message::new("user", "hello")];
        let parameters = serde_json::json!({"type": "object", "properties": {}, "required": []});
        let function = serde_json::json!({"name": "PROBE-7c1", "description": "x", "parameters": parameters});
        let tools = [serde_json::json!({"type": "function", "function": function})];
        self.probe(&RenderInput { messages: &messages, tools: &tools, ..RenderInput::default() })
    }

    fn probe(&self, input: &RenderInput) -> bool {
        self.render(&RenderInput { add_generation_prompt: true, ..input.clone() })
            .is_ok_and(|rendered| rendered.text.contains("PROBE-7c1"))
    }

    /// The prompt of a chat. A template that refuses it is asked again with arguments as text, an absent content as an
    /// empty one, and turns folded together.
    ///
    /// # Errors
    /// [`Error::Template`] with the template's own sentence where it refuses the chat (`raise_exception`), or with
    /// what went wrong, a limit included.
    pub fn render(&self, input: &RenderInput) -> Result<Rendered> {
        let text = self.render_best(input)?.0;
        let thinking = self.tags.is_some_and(|t| t.open_at_end(&text));
        Ok(Rendered { text, thinking })
    }

    /// The prompt in the first form of the chat that the template takes.
    fn render_best(&self, input: &RenderInput) -> Result<(String, Form)> {
        if let Some(why) = &self.broken {
            return Err(Error::Template(format!(
                "the one of the model's file does not parse ({why}): continue text without it, or give another"
            )));
        }
        let mut first = None;
        for form in forms(input.messages) {
            match self.render_as(input, form, None) {
                Ok(text) => {
                    // Some templates print a content that is none.
                    let empty = Form { empty_content: true, ..form };
                    let absent = input.messages.iter().any(|m| m.content.is_none());
                    let nones = |text: &str| text.matches("None").count();
                    if absent
                        && !form.empty_content
                        && nones(&text) > 0
                        && let Ok(other) = self.render_as(input, empty, None)
                        && nones(&other) < nones(&text)
                    {
                        return Ok((other, empty));
                    }
                    return Ok((text, form));
                }
                Err(error) => _ = first.get_or_insert(error),
            }
        }
        Err(first.unwrap_or_else(|| Error::Template("it renders nothing".into())))
    }

    fn render_as(&self, input: &RenderInput, form: Form, marker: Option<&Marker>) -> Result<String> {
        let variables = variables(input, form, marker).map_err(|e| sentence(&e))?;
        let template = self.tools.as_ref().filter(|_| !input.tools.is_empty()).or(self.main.as_ref());
        let template = template.ok_or_else(|| Error::Template("there is none".into()))?;
        template.render(&self.env, variables).map_err(|e| sentence(&e))
    }
}

/// A template's variables, with marks in the texts where there is a marker.
fn variables(input: &RenderInput, form: Form, marker: Option<&Marker>) -> std::result::Result<Value, minijinja::Error> {
    let marked = |json: &Json, assistant: bool| match marker {
        Some(marker) => json::value_by(json, &|text| Value::from(marker.mark(text, assistant))),
        None => json::value(json),
    };
    let messages = form.fold.of(input.messages);
    let messages = messages.iter().map(|m| marked(&m.to_template(form), m.role == "assistant"));
    let messages = messages.collect::<std::result::Result<Vec<_>, _>>()?;
    let tools = match input.tools {
        [] => Value::from(()),
        tools => Value::from(tools.iter().map(|t| marked(t, false)).collect::<std::result::Result<Vec<_>, _>>()?),
    };
    let mut all = vec![
        ("messages", Value::from(messages)),
        ("tools", tools),
        ("documents", Value::from(())),
        ("add_generation_prompt", Value::from(input.add_generation_prompt)),
        ("bos_token", Value::from(input.bos)),
        ("eos_token", Value::from(input.eos)),
        (jinja::CLOCK, Value::from_object(jinja::Clock(input.now))),
    ];
    if let Some(think) = input.think {
        all.extend([("enable_thinking", Value::from(think)), ("thinking", Value::from(think))]);
    }
    for (name, value) in input.kwargs.into_iter().flatten() {
        // Documents are texts, single words are settings.
        all.push((name, if value.is_string() { json::value(value)? } else { marked(value, false)? }));
    }
    Ok(Value::from_pairs(all))
}

/// The engine's error as one sentence: the template's own where it raised one.
fn sentence(error: &minijinja::Error) -> Error {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(raised) = inner.downcast_ref::<jinja::Raised>() {
            return Error::Template(raised.0.clone());
        }
        source = inner.source();
    }
    let what = match error.kind() {
        minijinja::ErrorKind::OutOfFuel => "it takes too many steps".to_owned(),
        kind => error.detail().map_or_else(|| kind.to_string(), str::to_owned),
    };
    Error::Template(match error.line() {
        Some(line) => format!("{what} (line {line})"),
        None => what,
    })
}
