//! [`Recipe`]: how a model of the store is to be run: its system prompt, parameters, first messages.

use serde_json::{Map, Value};

use crate::error::Result;
use crate::go_template::GoTemplate;
use crate::modelfile::Modelfile;
use crate::place::Place;
use crate::store::Found;

/// How a model is to be run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recipe {
    /// The system prompt.
    pub system: Option<String>,
    /// Parameters as Ollama names them.
    pub parameters: Map<String, Value>,
    /// Messages that come before every chat: role and text.
    pub messages: Vec<(String, String)>,
    /// The template in Go's language.
    pub template: Option<String>,
    /// Licences.
    pub licenses: Vec<String>,
}

impl Recipe {
    /// What the store has of a model beside its weights.
    ///
    /// # Errors
    /// A part of it cannot be read.
    pub fn of(found: &Found) -> Result<Recipe> {
        let first = |role: &str| -> Result<Option<String>> { Ok(found.texts(role)?.into_iter().next()) };
        let parameters = first("params")?.and_then(|text| serde_json::from_str(&text).ok());
        let messages: Option<Vec<Value>> = first("messages")?.and_then(|text| serde_json::from_str(&text).ok());
        let message = |m: &Value| Some((m["role"].as_str()?.to_owned(), m["content"].as_str()?.to_owned()));
        Ok(Recipe {
            system: first("system")?.filter(|s| !s.is_empty()),
            parameters: parameters.unwrap_or_default(),
            messages: messages.iter().flatten().filter_map(message).collect(),
            template: first("template")?,
            licenses: found.texts("license")?,
        })
    }

    /// The same of a place; what is no model of a store has none.
    ///
    /// # Errors
    /// A part of it cannot be read.
    pub fn of_place(place: &Place) -> Result<Recipe> {
        match place {
            Place::Stored(found) => Recipe::of(found),
            _ => Ok(Recipe::default()),
        }
    }

    /// Whether it has texts that need a template.
    pub fn has_texts(&self) -> bool {
        self.system.is_some() || !self.messages.is_empty()
    }

    /// The family of its Go template, if there is one and it is known.
    pub fn go_template(&self) -> Option<GoTemplate> {
        self.template.as_deref().map(GoTemplate::of)
    }

    /// A parameter that is a number.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.parameters.get(name)?.as_f64()
    }

    /// A parameter that counts; `None` where it is negative.
    pub fn count(&self, name: &str) -> Option<usize> {
        self.number(name).filter(|n| *n >= 0.0).map(|n| n as usize)
    }

    /// Tokens of context.
    pub fn context(&self) -> Option<usize> {
        self.count("num_ctx").filter(|n| *n >= 2)
    }

    /// The seed, if it is a fixed one.
    pub fn seed(&self) -> Option<u64> {
        self.parameters.get("seed")?.as_u64()
    }

    /// Texts before which an answer ends.
    pub fn stop(&self) -> Vec<String> {
        let stop = self.parameters.get("stop").map(|s| s.as_array().cloned().unwrap_or_else(|| vec![s.clone()]));
        stop.iter().flatten().filter_map(Value::as_str).filter(|s| !s.is_empty()).map(str::to_owned).collect()
    }

    /// A Modelfile that makes the same model.
    pub fn modelfile(&self, place: &Place) -> Modelfile {
        let from = match place {
            Place::File(path) => path.display().to_string(),
            _ => place.name(),
        };
        Modelfile {
            from,
            parameters: self.parameters.clone(),
            template: self.template.clone(),
            system: self.system.clone(),
            messages: self.messages.clone(),
            licenses: self.licenses.clone(),
            ..Modelfile::default()
        }
    }
}
