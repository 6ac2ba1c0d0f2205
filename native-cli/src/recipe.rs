//! [`Recipe`]: how a model of the store is to be run: its system prompt, parameters, first messages.

use ir_engine::run::{Session, SessionOptions};
use ir_engine::text::chat::Message;
use ir_store::{Found, GoTemplate, Store};
use serde_json::{Map, Value};

use crate::failure::Result;

/// What to say if a model's texts find no place.
pub(crate) const NO_TEMPLATE: &str = "The model's file has no chat template that is known here, so its system prompt and \
    messages are left out, and the prompt is continued as it is.";

/// How a model is to be run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Recipe {
    /// The system prompt.
    pub(crate) system: Option<String>,
    /// Parameters as Ollama names them.
    pub(crate) parameters: Map<String, Value>,
    /// Messages that come before every chat: role and text.
    pub(crate) messages: Vec<(String, String)>,
    /// The template in Go's language.
    pub(crate) template: Option<String>,
    /// Licences.
    pub(crate) licenses: Vec<String>,
}

impl Recipe {
    /// What the store has of a model beside its weights.
    pub(crate) fn of(store: &Store, found: &Found) -> Result<Recipe> {
        let first = |role: &str| -> Result<Option<String>> { Ok(store.texts(found, role)?.into_iter().next()) };
        let parameters = first("params")?.and_then(|text| serde_json::from_str(&text).ok());
        let messages: Option<Vec<Value>> = first("messages")?.and_then(|text| serde_json::from_str(&text).ok());
        let message = |m: &Value| Some((m["role"].as_str()?.to_owned(), m["content"].as_str()?.to_owned()));
        Ok(Recipe {
            system: first("system")?.filter(|s| !s.is_empty()),
            parameters: parameters.unwrap_or_default(),
            messages: messages.iter().flatten().filter_map(message).collect(),
            template: first("template")?,
            licenses: store.texts(found, "license")?,
        })
    }

    /// Whether it has texts that need a template.
    pub(crate) fn has_texts(&self) -> bool {
        self.system.is_some() || !self.messages.is_empty()
    }

    /// The family of its Go template, if there is one and it is known.
    pub(crate) fn go_template(&self) -> Option<GoTemplate> {
        self.template.as_deref().map(GoTemplate::of)
    }

    fn number(&self, name: &str) -> Option<f64> {
        self.parameters.get(name)?.as_f64()
    }

    fn count(&self, name: &str) -> Option<usize> {
        self.number(name).filter(|n| *n >= 0.0).map(|n| n as usize)
    }

    /// Tokens of context.
    pub(crate) fn context(&self) -> Option<usize> {
        self.count("num_ctx").filter(|n| *n >= 2)
    }

    /// The seed, if it is a fixed one.
    pub(crate) fn seed(&self) -> Option<u64> {
        self.parameters.get("seed")?.as_u64()
    }

    /// Puts its parameters in place of the file's recommendations.
    pub(crate) fn set(&self, options: &mut SessionOptions) {
        let sampling = &mut options.sampling;
        for (name, place) in [
            ("temperature", &mut sampling.temperature),
            ("top_p", &mut sampling.top_p),
            ("min_p", &mut sampling.min_p),
            ("typical_p", &mut sampling.typical_p),
            ("repeat_penalty", &mut sampling.repeat_penalty),
            ("presence_penalty", &mut sampling.presence_penalty),
            ("frequency_penalty", &mut sampling.frequency_penalty),
        ] {
            *place = self.number(name).map_or(*place, |n| n as f32);
        }
        sampling.top_k = self.count("top_k").unwrap_or(sampling.top_k);
        sampling.repeat_last_n = self.count("repeat_last_n").unwrap_or(sampling.repeat_last_n);
        sampling.seed = self.seed().unwrap_or(sampling.seed);
        options.max_tokens = self.count("num_predict").or(options.max_tokens);
        let stop = self.parameters.get("stop").map(|s| s.as_array().cloned().unwrap_or_else(|| vec![s.clone()]));
        options
            .stop
            .extend(stop.iter().flatten().filter_map(Value::as_str).filter(|s| !s.is_empty()).map(str::to_owned));
    }

    /// Says its first messages, behind the system prompt (`instead`, if that is given).
    pub(crate) fn examples(&self, session: &mut Session, instead: Option<&str>) {
        if self.messages.is_empty() {
            return;
        }
        if let Some(system) = instead.or(self.system.as_deref()) {
            session.say(Message::new("system", system));
        }
        for (role, text) in &self.messages {
            session.say(Message::new(role, text));
        }
    }
}
