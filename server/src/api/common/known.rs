//! [`Known`]: an object that tells by its `type` what it is, read strictly where that is known and kept as it came where it
//! is not. Clients put into a history what other servers gave them; one new type must not refuse the whole chat.

use std::ops::Deref;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value as Json};
use utoipa::ToSchema;

use super::body::nested;

/// What is told apart by its `type`.
pub(crate) trait Tagged: DeserializeOwned {
    /// The types that are read.
    const TYPES: &'static [&'static str];
    /// What an object without a `type` is.
    const ABSENT: Option<&'static str> = None;
}

/// An object of a type that is read, or of another.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Known<T> {
    /// One that is read.
    Read(T),
    /// Another, as it came; a text by itself is one of type `text`.
    Unknown(Foreign),
}

/// An object of a type that is not known.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
#[schema(value_type = Object)]
#[serde(transparent)]
pub(crate) struct Foreign(Map<String, Json>);

impl Deref for Foreign {
    type Target = Map<String, Json>;

    fn deref(&self) -> &Map<String, Json> {
        &self.0
    }
}

impl<'de, T: Tagged> Deserialize<'de> for Known<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut map = match Json::deserialize(from)? {
            Json::Object(map) => map,
            // Nothing, where an object should be.
            Json::Null => return Ok(Known::Unknown(Foreign::default())),
            Json::String(text) => Map::from_iter([("type".into(), "text".into()), ("text".into(), text.into())]),
            other => return Err(D::Error::custom(format!("invalid type: {}, expected an object", kind_of(&other)))),
        };
        if let (None | Some(Json::Null), Some(absent)) = (map.get("type"), T::ABSENT) {
            map.insert("type".into(), absent.into());
        }
        if !map.get("type").and_then(Json::as_str).is_some_and(|kind| T::TYPES.contains(&kind)) {
            return Ok(Known::Unknown(Foreign(map)));
        }
        serde_path_to_error::deserialize(Json::Object(map)).map(Known::Read).map_err(nested)
    }
}

fn kind_of(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) => "sequence",
        Json::Object(_) => "map",
    }
}

/// An object's `type`, or nothing.
pub(crate) fn type_of(map: &Map<String, Json>) -> &str {
    map.get("type").and_then(Json::as_str).unwrap_or("")
}

/// The text that an object of an unknown type carries, where it has one by the usual name.
pub(crate) fn text_of(map: &Map<String, Json>) -> Option<&str> {
    map.get("text").and_then(Json::as_str).filter(|text| !text.is_empty())
}

/// What an object among texts says: its text, or where it has no type and is a value of its own, its JSON.
pub(crate) fn said(map: &Map<String, Json>) -> Option<String> {
    let value = || (!map.is_empty() && type_of(map).is_empty()).then(|| Json::Object(map.clone()).to_string());
    text_of(map).map(str::to_owned).or_else(value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Number {
        #[serde(rename = "type")]
        kind: String,
        n: u32,
    }

    impl Tagged for Number {
        const TYPES: &'static [&'static str] = &["number"];
        const ABSENT: Option<&'static str> = Some("number");
    }

    #[test]
    fn known_types_are_strict_and_others_are_kept() {
        let read =
            |value: Json| crate::api::common::body::parse::<Vec<Known<Number>>>(json!([value]).to_string().as_bytes());
        let one = Number { kind: "number".into(), n: 1 };
        assert_eq!(read(json!({"type": "number", "n": 1})).unwrap(), [Known::Read(one.clone())]);
        assert_eq!(read(json!({"n": 1})).unwrap(), [Known::Read(one)]);
        let other = json!({"type": "colour", "n": "red"});
        let Json::Object(map) = other.clone() else { unreachable!() };
        assert_eq!(read(other).unwrap(), [Known::Unknown(Foreign(map))]);
        let wrong = read(json!({"type": "number", "n": "one"})).unwrap_err();
        assert_eq!(wrong.param.as_deref(), Some("[0].n"), "{wrong}");
        let missing = read(json!({"type": "number"})).unwrap_err();
        assert_eq!(missing.param.as_deref(), Some("[0].n"), "{missing}");
        assert!(read(json!(5)).unwrap_err().message.contains("expected an object"));
        let text = read(json!("hi")).unwrap();
        assert!(matches!(&text[0], Known::Unknown(map) if text_of(map) == Some("hi") && type_of(map) == "text"));
        assert!(matches!(&read(Json::Null).unwrap()[0], Known::Unknown(map) if said(map).is_none()));
        let map = |value: Json| value.as_object().unwrap().clone();
        assert_eq!(said(&map(json!({"a": 1}))).as_deref(), Some("{\"a\":1}"));
        assert_eq!(said(&map(json!({"type": "colour", "a": 1}))), None);
    }
}
