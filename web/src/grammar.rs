//! The second module: [`Grammars`] compiles what answers are held to, [`Rules`] says which tokens may follow. It holds a
//! vocabulary, no model: a grammar that breaks it leaves the model running. `constraint` of the main module asks here.

use ir_engine::text::constrain::{Constrainer, Constraint, Grammar, Vocabulary};
use ir_engine::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::error::throw;

type Answer<T> = std::result::Result<T, JsValue>;

/// What an answer is to be, in the words of `index.d.ts`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Format {
    Json,
    Schema(Value),
    Regex(String),
    Lark(String),
    Gbnf(String),
}

fn read(format: &str) -> Result<Grammar> {
    let format = serde_json::from_str(format).map_err(|error| {
        Error::request(format!(
            "format does not fit ({error}): give \"json\", or an object with one of schema, regex, lark and gbnf"
        ))
    })?;
    Ok(match format {
        Format::Json => Grammar::Json,
        Format::Schema(schema) => Grammar::JsonSchema(schema),
        Format::Regex(text) => Grammar::Regex(text),
        Format::Lark(text) => Grammar::Lark(text),
        Format::Gbnf(text) => Grammar::Gbnf(text),
    })
}

/// Compiles formats for one vocabulary.
#[wasm_bindgen]
pub struct Grammars(Constrainer);

#[wasm_bindgen]
impl Grammars {
    /// Prepares a vocabulary, as the main module's `Host::vocabulary` writes it.
    ///
    /// # Errors
    /// One that is damaged or too large.
    #[wasm_bindgen(constructor)]
    pub fn new(vocabulary: Vec<u8>) -> Answer<Grammars> {
        let read = Vocabulary::from_bytes(&vocabulary);
        drop(vocabulary);
        read.and_then(|v| Constrainer::new(&v)).map(Grammars).map_err(throw)
    }

    /// Compiles a format, given as JSON.
    ///
    /// # Errors
    /// One that is malformed, too large or beyond what can be held to.
    pub fn compile(&self, format: &str) -> Answer<Rules> {
        read(format).and_then(|grammar| self.0.compile(&grammar)).map(Rules).map_err(throw)
    }
}

/// What may follow in one text: [`Constraint`], for the main module.
#[wasm_bindgen]
pub struct Rules(Constraint);

#[wasm_bindgen]
impl Rules {
    /// See [`Constraint::allowed`].
    ///
    /// # Errors
    /// As there.
    pub fn allowed(&mut self) -> Answer<Vec<u32>> {
        self.0.allowed().map(<[u32]>::to_vec).map_err(throw)
    }

    /// See [`Constraint::accept`]. Says whether the text is complete.
    ///
    /// # Errors
    /// As there.
    pub fn accept(&mut self, token: u32) -> Answer<bool> {
        self.0.accept(token).map(|()| self.0.is_done()).map_err(throw)
    }

    /// See [`Constraint::accept_text`]. Says whether the text is complete.
    ///
    /// # Errors
    /// As there.
    #[wasm_bindgen(js_name = acceptText)]
    pub fn accept_text(&mut self, text: &[u8]) -> Answer<bool> {
        self.0.accept_text(text).map(|()| self.0.is_done()).map_err(throw)
    }

    /// See [`Constraint::is_complete`].
    ///
    /// # Errors
    /// As there.
    #[wasm_bindgen(js_name = isComplete)]
    pub fn is_complete(&mut self) -> Answer<bool> {
        self.0.is_complete().map_err(throw)
    }

    /// The same state once more.
    pub fn fork(&self) -> Rules {
        Rules(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_in_the_words_of_javascript() {
        assert_eq!(read("\"json\"").unwrap(), Grammar::Json);
        assert_eq!(read(r#"{"schema":true}"#).unwrap(), Grammar::JsonSchema(Value::Bool(true)));
        assert_eq!(read(r#"{"regex":"a+"}"#).unwrap(), Grammar::Regex("a+".into()));
        for wrong in
            ["", "null", "\"xml\"", "{}", r#"{"regex":1}"#, r#"{"regex":"a","lark":"b"}"#, r#"{"type":"object"}"#]
        {
            assert!(read(wrong).unwrap_err().to_string().starts_with("format does not fit"), "{wrong}");
        }
    }
}
