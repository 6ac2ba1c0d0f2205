//! What an answer must be: `response_format` and schemas, as grammars.

use ir_engine::text::constrain::relaxed_telling;
use serde::Deserialize;
use serde_json::Value as Json;
use utoipa::ToSchema;

use super::ignored::Ignored;
use crate::engine::error::ApiError;
use crate::generate::job::Grammar;

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
        json_schema: Option<NamedSchema>,
        /// Or the schema by itself. (llama-server's.)
        #[schema(value_type = Option<Object>)]
        schema: Option<Json>,
        /// Refuses what the answer cannot be held to, instead of passing over it.
        strict: Option<bool>,
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
    pub(crate) fn grammar(&self, ignored: &Ignored) -> Result<Option<Grammar>, ApiError> {
        Ok(match self {
            ResponseFormat::Text => None,
            ResponseFormat::JsonObject { schema: None } => Some(Grammar::Json),
            ResponseFormat::JsonObject { schema: Some(schema) } => {
                Some(schema_grammar("response_format.schema", schema, false, ignored)?)
            }
            ResponseFormat::JsonSchema { json_schema: Some(NamedSchema { schema, strict }), .. } => {
                Some(schema_grammar("response_format.json_schema.schema", schema, *strict == Some(true), ignored)?)
            }
            ResponseFormat::JsonSchema { json_schema: None, schema: Some(schema), strict } => {
                Some(schema_grammar("response_format.schema", schema, *strict == Some(true), ignored)?)
            }
            ResponseFormat::JsonSchema { json_schema: None, schema: None, .. } => {
                let field = "response_format.json_schema";
                return Err(ApiError::param(
                    field,
                    format!("{field}: missing field `json_schema`: give the schema in it"),
                ));
            }
        })
    }
}

/// A schema as a grammar. A strict one is taken as it is, so that what cannot be held to is an error; of another one that
/// is left out.
pub(crate) fn schema_grammar(field: &str, schema: &Json, strict: bool, ignored: &Ignored) -> Result<Grammar, ApiError> {
    if !schema.is_object() {
        return Err(ApiError::param(field, format!("{field} must be a JSON schema, an object")));
    }
    Ok(Grammar::JsonSchema(if strict { schema.clone() } else { loose_schema(schema, ignored) }))
}

/// A schema without what a grammar cannot hold a text to.
pub(crate) fn loose_schema(schema: &Json, ignored: &Ignored) -> Json {
    relaxed_telling(schema, &mut |what| ignored.note(&format!("schema.{what}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn formats_become_grammars() {
        let read = |value: Json| serde_json::from_value::<ResponseFormat>(value).unwrap().grammar(&Ignored::default());
        assert_eq!(read(json!({"type": "text"})), Ok(None));
        assert_eq!(read(json!({"type": "json_object"})), Ok(Some(Grammar::Json)));
        let schema = json!({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true}}});
        let format = |strict: bool| json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": strict}});
        assert_eq!(read(format(true)), Ok(Some(Grammar::JsonSchema(schema.clone()))));
        let Ok(Some(Grammar::JsonSchema(loose))) = read(format(false)) else { panic!("no schema") };
        assert!(!loose.to_string().contains("uniqueItems"), "{loose}");
        let beside = read(json!({"type": "json_schema", "schema": {"type": "object"}}));
        assert_eq!(beside, Ok(Some(Grammar::JsonSchema(json!({"type": "object"})))));
        assert!(read(json!({"type": "json_schema"})).is_err());
        let wrong = read(json!({"type": "json_schema", "json_schema": {"schema": "x"}})).unwrap_err();
        assert_eq!(wrong.param.as_deref(), Some("response_format.json_schema.schema"));
    }
}
