//! The schemas of a tool's arguments: of all as one object, and of each property for forms that write them one by one.

use serde_json::{Map, Value as Json, json};

use super::tools::Tool;
use super::{relaxed, schema};
use crate::error::{Error, Result};
use crate::text::tools::is_name;

/// A tool's schema of arguments, ready for llguidance.
pub(super) fn arguments(tool: &Tool) -> Result<Json> {
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
pub(super) fn inner(parameters: &Json, property: &Json) -> Json {
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

/// Key and schema of each property of a tool's arguments, and whether it is required, for forms that write them one by one.
pub(super) fn plain_properties(tool: &str, parameters: &Json) -> Result<Vec<(String, Json, bool)>> {
    let plain = ["$ref", "anyOf", "oneOf", "allOf", "patternProperties"];
    let empty = Map::new();
    let properties = parameters["properties"].as_object().unwrap_or(&empty);
    if let Some(key) = plain.iter().find(|key| parameters.get(**key).is_some()) {
        return Err(Error::unsupported(format!(
            "the parameters of {tool:?} use {key:?}, which a call in this model's form cannot have: give plain properties"
        )));
    }
    let required = |key: &str| parameters["required"].as_array().is_some_and(|r| r.iter().any(|k| k == key));
    let named: Vec<&str> = parameters["required"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    let unknown = |key: &&&str| !properties.contains_key(**key) || !is_name(key);
    if let Some(key) = named.iter().find(unknown) {
        return Err(Error::unsupported(format!(
            "the parameter {key:?} of {tool:?} cannot be written in a call of this model's form: rename it"
        )));
    }
    let written = properties.iter().filter(|(key, _)| is_name(key));
    Ok(written.map(|(key, value)| (key.clone(), value.clone(), required(key))).collect())
}

/// The words of which a property's value is one.
pub(super) fn words_of(property: &Json) -> Option<Vec<&str>> {
    let words = property.get("enum")?.as_array()?.iter().map(|word| word.as_str().filter(|w| !w.is_empty()));
    words.collect()
}

/// Characters of a text property, at least and at most; bounds that no grammar should count are passed over.
pub(super) fn lengths(property: &Json) -> (usize, Option<usize>) {
    const COUNTED: u64 = 4096;
    let text = property.get("type").is_some_and(|kind| kind == "string");
    let bound = |key: &str| property.get(key).and_then(Json::as_u64).filter(|n| text && *n <= COUNTED);
    let (least, most) = (bound("minLength").unwrap_or(0) as usize, bound("maxLength").map(|n| n as usize));
    (least, most.map(|most| most.max(least)))
}
