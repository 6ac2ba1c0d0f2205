//! JSON schemas made ready for llguidance: what it cannot hold to is refused by name, what readers take for granted is
//! written out. The schema's meaning stays llguidance's business.

use std::collections::HashSet;

use llguidance::derivre::{RegexAst, RegexBuilder};
use llguidance::regex_to_lark;
use serde_json::{Map, Value as Json, json};

use crate::error::{Error, Result};

/// Schemas in one another at most.
const MAX_DEPTH: usize = 64;
/// Schemas and values of one document at most, and the bytes of its texts.
const MAX_NODES: usize = 50_000;
const MAX_BYTES: usize = 1 << 20;
/// Definitions that are referred to at most: the compiler recurses from one to the next.
const MAX_REFS: usize = 500;

/// Bytes of a pattern at most, where others than strict clients give it.
const MAX_PATTERN: usize = 16 << 10;

/// White space between tokens of JSON: what people and models write, but no endless run of it.
const SPACE: &str = r"[\x20\x09]{1,2}|(\r?\n){1,2}[\x20\x09]{0,64}";

/// Keywords whose value is a schema, a list of schemas, or schemas by name.
const ONE: [&str; 3] = ["items", "additionalProperties", "additionalItems"];
const LISTS: [&str; 5] = ["items", "prefixItems", "anyOf", "oneOf", "allOf"];
const NAMED: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];
/// Keywords that a grammar cannot hold a text to.
const BEYOND: [&str; 18] = [
    "not",
    "if",
    "then",
    "else",
    "uniqueItems",
    "contains",
    "minContains",
    "maxContains",
    "propertyNames",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedItems",
    "unevaluatedProperties",
    "$recursiveRef",
    "$dynamicRef",
    "$recursiveAnchor",
    "$dynamicAnchor",
];
/// Formats that texts are held to; others are remarks, as the standard has it.
const FORMATS: [&str; 10] =
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"];

/// A schema without what a grammar cannot hold a text to (`not`, `uniqueItems`, `if`, `contains`, patterns that look around
/// themselves, ...): for servers whose clients are used to seeing it passed over.
pub fn relaxed(schema: &Json) -> Json {
    relaxed_telling(schema, &mut |_| {})
}

/// As [`relaxed`]; `dropped` is told each keyword that went, or its pattern.
pub fn relaxed_telling(schema: &Json, dropped: &mut dyn FnMut(&str)) -> Json {
    let mut schema = schema.clone();
    // Deeper ones are refused later.
    let _ = walk(&mut schema, 0, &mut |map, _| {
        map.retain(|key, _| {
            let kept = !BEYOND.contains(&key.as_str());
            if !kept {
                dropped(key);
            }
            kept
        });
        let unread = |pattern: &Json| pattern.as_str().is_some_and(|pattern| !is_readable(pattern));
        if map.get("pattern").is_some_and(unread) {
            let pattern = map.shift_remove("pattern").unwrap_or_default();
            dropped(&format!("pattern {}", pattern.as_str().unwrap_or_default()));
        }
        if let Some(Json::Object(named)) = map.get_mut("patternProperties") {
            let patterns: Vec<String> = named.keys().filter(|pattern| !is_readable(pattern)).cloned().collect();
            for pattern in patterns {
                named.shift_remove(&pattern);
                dropped(&format!("patternProperties {pattern}"));
            }
        }
        Ok(())
    });
    schema
}

/// Whether the grammar compiler reads a pattern.
fn is_readable(pattern: &str) -> bool {
    let ast = RegexAst::SearchRegex(regex_to_lark(pattern, "dw"));
    pattern.len() <= MAX_PATTERN && RegexBuilder::new().mk(&ast).is_ok()
}

/// A schema as llguidance takes it.
pub(super) fn prepare(schema: &Json) -> Result<Json> {
    measure(schema)?;
    let mut schema = match schema {
        Json::Bool(true) => json!({}),
        Json::Object(_) => schema.clone(),
        _ => return Err(Error::request("a JSON schema is an object: give one like {\"type\": \"object\"}")),
    };
    let mut refs = HashSet::new();
    let mut combined = false;
    walk(&mut schema, 0, &mut |map, _| {
        if let Some(key) = map.iter().find(|(key, value)| BEYOND.contains(&key.as_str()) && **value != json!(false)) {
            return Err(Error::unsupported(format!(
                "the JSON schema uses {:?}, which no grammar can hold a text to: remove it",
                key.0
            )));
        }
        map.retain(|key, _| !BEYOND.contains(&key.as_str()));
        combined |= map.contains_key("allOf") || (map.contains_key("$ref") && map.contains_key("properties"));
        if let Some(to) = map.get("$ref").and_then(Json::as_str) {
            refs.insert(to.to_owned());
        }
        Ok(())
    })?;
    if refs.len() > MAX_REFS {
        let n = refs.len();
        return Err(Error::limit(format!(
            "the JSON schema refers to {n} definitions: it may refer to {MAX_REFS} at most"
        )));
    }
    walk(&mut schema, 0, &mut |map, _| {
        if map.get("format").and_then(Json::as_str).is_some_and(|f| !FORMATS.contains(&f)) {
            map.shift_remove("format");
        }
        let open = ["additionalProperties", "patternProperties", "anyOf", "oneOf", "$ref"];
        if !combined && map.get("properties").is_some_and(Json::is_object) && !open.iter().any(|k| map.contains_key(*k))
        {
            map.insert("additionalProperties".into(), json!(false));
        }
        Ok(())
    })?;
    if let Json::Object(map) = &mut schema {
        map.insert("x-guidance".into(), options());
    }
    Ok(schema)
}

/// llguidance's options for a schema.
pub(super) fn options() -> Json {
    json!({"whitespace_pattern": SPACE, "coerce_one_of": true})
}

/// Refuses documents that are too large.
fn measure(schema: &Json) -> Result<()> {
    let (mut nodes, mut bytes) = (0, 0);
    let mut rest = vec![(schema, 0)];
    while let Some((value, depth)) = rest.pop() {
        nodes += 1;
        match value {
            Json::String(text) => bytes += text.len(),
            Json::Array(items) => rest.extend(items.iter().map(|v| (v, depth + 1))),
            Json::Object(map) => {
                bytes += map.keys().map(String::len).sum::<usize>();
                rest.extend(map.values().map(|v| (v, depth + 1)));
            }
            _ => {}
        }
        if nodes + rest.len() > MAX_NODES || bytes > MAX_BYTES || depth > 3 * MAX_DEPTH {
            return Err(Error::limit("the JSON schema is too large or too deep: make it simpler"));
        }
    }
    Ok(())
}

/// Visits every schema of a document, parents first.
fn walk(
    schema: &mut Json,
    depth: usize,
    visit: &mut dyn FnMut(&mut Map<String, Json>, usize) -> Result<()>,
) -> Result<()> {
    let Json::Object(map) = schema else { return Ok(()) };
    if depth > MAX_DEPTH {
        return Err(Error::limit(format!("the JSON schema nests more than {MAX_DEPTH} schemas: make it flatter")));
    }
    visit(map, depth)?;
    for (key, value) in map.iter_mut() {
        let key = key.as_str();
        match value {
            Json::Object(_) if ONE.contains(&key) => walk(value, depth + 1, visit)?,
            Json::Array(list) if LISTS.contains(&key) => {
                list.iter_mut().try_for_each(|schema| walk(schema, depth + 1, visit))?;
            }
            Json::Object(named) if NAMED.contains(&key) => {
                named.values_mut().try_for_each(|schema| walk(schema, depth + 1, visit))?;
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_closed_unless_schemas_combine() {
        let closed = |schema: Json| prepare(&schema).unwrap()["additionalProperties"] == json!(false);
        assert!(closed(json!({"properties": {"a": {}}})));
        assert!(!closed(json!({"type": "object"})));
        assert!(!closed(json!({"properties": {}, "additionalProperties": {"type": "string"}})));
        assert!(!closed(json!({"properties": {}, "allOf": [{"properties": {"b": {}}}]})));
        let nested =
            prepare(&json!({"properties": {"allOf": {"properties": {}}, "format": {"format": "int64"}}})).unwrap();
        assert_eq!(nested["properties"]["allOf"]["additionalProperties"], false, "a property's name is no keyword");
        assert_eq!(nested["properties"]["format"], json!({}));
    }

    #[test]
    fn what_cannot_be_held_to_is_refused_or_dropped() {
        let schema = json!({"type": "object", "properties": {"tags": {"type": "array", "uniqueItems": true}}});
        assert!(prepare(&schema).unwrap_err().to_string().contains("\"uniqueItems\""));
        assert!(prepare(&relaxed(&schema)).is_ok());
        assert!(prepare(&json!({"type": "array", "uniqueItems": false})).is_ok(), "it asks for nothing");
        assert!(
            prepare(&json!({"properties": {"not": {"type": "string"}}})).is_ok(),
            "a property's name is no keyword"
        );
        assert!(prepare(&json!([])).is_err() && prepare(&json!(false)).is_err());
    }

    #[test]
    fn patterns_that_cannot_be_read_are_dropped_and_told() {
        let decimal = "^(?!^[-+.]*$)[+-]?0*\\d*\\.?\\d*$";
        let schema = json!({"properties": {
            "price": {"anyOf": [{"type": "number"}, {"type": "string", "pattern": decimal}]},
            "code": {"type": "string", "pattern": "^[a-z]{2}$"},
            "pattern": {"type": "string"},
        }, "patternProperties": {"^x-": {"type": "string"}, "(?<=a)b": {"type": "string"}}});
        let mut dropped = Vec::new();
        let relaxed = relaxed_telling(&schema, &mut |what| dropped.push(what.to_owned()));
        assert_eq!(dropped, ["patternProperties (?<=a)b".to_owned(), format!("pattern {decimal}")]);
        let mut want = schema.clone();
        want["properties"]["price"]["anyOf"][1] = json!({"type": "string"});
        want["patternProperties"] = json!({"^x-": {"type": "string"}});
        assert_eq!(relaxed, want);
        assert!(!is_readable("(") && !is_readable("(?=a)") && is_readable("a|b") && is_readable("\\w+@\\d{3,}"));
    }

    #[test]
    fn large_and_deep_documents_are_refused() {
        let mut deep = json!({});
        for _ in 0..200 {
            deep = json!({"items": deep});
        }
        assert!(matches!(prepare(&deep), Err(Error::Limit(_))));
        assert!(matches!(prepare(&json!({"enum": vec![0; MAX_NODES]})), Err(Error::Limit(_))));
        assert!(matches!(prepare(&json!({"const": "x".repeat(MAX_BYTES + 1)})), Err(Error::Limit(_))));
    }
}
