//! Random schemas, random walks: what comes out always parses, and is what a validator of its own says it must be.

use fancy_regex::Regex;
use ir_engine::text::constrain::{Grammar, relaxed};
use serde_json::{Map, Value as Json, json};

use super::walk::{Words, llama, tiny};
use crate::common::exam::Random;

const PATTERNS: [&str; 5] = ["^[a-c]{2,5}$", "^\\d+-\\d$", "x", "^(ab|cd)*$", "[A-Z]/\\w$"];

/// A schema of the kinds that people write.
fn schema(random: &mut Random, depth: usize) -> Json {
    let kind = random.below(if depth == 0 { 7 } else { 12 });
    match kind {
        0 => json!({"type": "null"}),
        1 => json!({"type": "boolean"}),
        2 => match random.below(3) {
            0 => json!({"type": "integer"}),
            1 => {
                json!({"type": "integer", "minimum": random.below(50) as i64 - 25, "maximum": 25 + random.below(9000)})
            }
            _ => json!({"type": "integer", "exclusiveMinimum": random.below(100)}),
        },
        3 => match random.below(3) {
            0 => json!({"type": "number"}),
            1 => json!({"type": "number", "minimum": -1.5, "maximum": random.below(1000) as f64 / 8.0}),
            _ => json!({"type": "number", "exclusiveMaximum": random.below(1000) as f64 / 4.0 + 0.5}),
        },
        4 => match random.below(3) {
            0 => json!({"type": "string"}),
            1 => json!({"type": "string", "minLength": random.below(4), "maxLength": 4 + random.below(8)}),
            _ => json!({"type": "string", "pattern": PATTERNS[random.below(PATTERNS.len())]}),
        },
        5 => json!({"enum": ["red", "dark \"blue\"", 7, -2, null, true, [1], {"a": "é"}]}),
        6 => {
            let value = [json!("x"), json!(1.5), json!("\n")][random.below(3)].clone();
            json!({"const": value})
        }
        7 => json!({"type": ["string", "integer", "null"]}),
        8 => {
            let mut map = Map::from_iter([("type".to_owned(), "array".into())]);
            if random.below(4) > 0 {
                map.insert("items".into(), schema(random, depth - 1));
            }
            let min = random.below(3);
            map.insert("minItems".into(), min.into());
            if random.below(2) == 0 {
                map.insert("maxItems".into(), (min + random.below(3)).into());
            }
            Json::Object(map)
        }
        9 => json!({"anyOf": [schema(random, depth - 1), schema(random, depth - 1)]}),
        _ => object(random, depth),
    }
}

fn object(random: &mut Random, depth: usize) -> Json {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for i in 0..random.below(5) {
        let name = ["name", "kind of", "é", "a\"b", "z"][i];
        properties.insert(name.into(), schema(random, depth - 1));
        if random.below(2) == 0 {
            required.push(name);
        }
    }
    let mut map = Map::from_iter([("type".to_owned(), "object".into()), ("required".to_owned(), json!(required))]);
    map.insert("properties".into(), Json::Object(properties));
    match random.below(4) {
        0 => _ = map.insert("additionalProperties".into(), schema(random, depth - 1)),
        1 => _ = map.insert("additionalProperties".into(), false.into()),
        _ => {}
    }
    Json::Object(map)
}

/// What the standard says of the keywords that the generator uses; objects with properties are closed, as documented.
pub(crate) fn valid(schema: &Json, root: &Json, value: &Json) -> Result<(), String> {
    let fail = |what: &str| Err(format!("{value} against {what} of {schema}"));
    let Json::Object(schema_map) = schema else { return Ok(()) };
    if let Some(to) = schema_map.get("$ref") {
        return valid(root.pointer(&to.as_str().unwrap()[1..]).unwrap(), root, value);
    }
    if let Some(options) = schema_map.get("anyOf").and_then(Json::as_array) {
        return match options.iter().any(|option| valid(option, root, value).is_ok()) {
            true => Ok(()),
            false => fail("anyOf"),
        };
    }
    let is = |kind: &str| match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.as_f64().is_some_and(|n| n.fract() == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        _ => value.is_object(),
    };
    let ok = match schema_map.get("type") {
        Some(Json::String(kind)) => is(kind),
        Some(Json::Array(kinds)) => kinds.iter().any(|kind| is(kind.as_str().unwrap())),
        _ => true,
    };
    if !ok {
        return fail("type");
    }
    let number = |key: &str| schema_map.get(key).and_then(Json::as_f64);
    let equal = |a: &Json| a == value || (a.is_number() && a.as_f64() == value.as_f64());
    if schema_map.get("const").is_some_and(|c| !equal(c)) {
        return fail("const");
    }
    if schema_map.get("enum").is_some_and(|e| !e.as_array().unwrap().iter().any(equal)) {
        return fail("enum");
    }
    if let Some(n) = value.as_f64() {
        let low = number("minimum").is_some_and(|m| n < m) || number("exclusiveMinimum").is_some_and(|m| n <= m);
        let high = number("maximum").is_some_and(|m| n > m) || number("exclusiveMaximum").is_some_and(|m| n >= m);
        if low || high {
            return fail("bounds");
        }
    }
    if let Some(text) = value.as_str() {
        let n = text.chars().count() as f64;
        if number("minLength").is_some_and(|m| n < m) || number("maxLength").is_some_and(|m| n > m) {
            return fail("length");
        }
        if let Some(pattern) = schema_map.get("pattern") {
            // As ECMAScript has it: ASCII digits and letters.
            let pattern = pattern.as_str().unwrap().replace("\\d", "[0-9]").replace("\\w", "[0-9A-Za-z_]");
            if !Regex::new(&pattern).unwrap().is_match(text).unwrap() {
                return fail("pattern");
            }
        }
    }
    if let Some(items) = value.as_array() {
        let n = items.len() as f64;
        if number("minItems").is_some_and(|m| n < m) || number("maxItems").is_some_and(|m| n > m) {
            return fail("number of items");
        }
        let of = schema_map.get("items").unwrap_or(&Json::Null);
        items.iter().try_for_each(|item| valid(of, root, item))?;
    }
    if let Some(map) = value.as_object() {
        let none = Map::new();
        let properties = schema_map.get("properties").and_then(Json::as_object).unwrap_or(&none);
        for key in schema_map.get("required").and_then(Json::as_array).into_iter().flatten() {
            if !map.contains_key(key.as_str().unwrap()) {
                return fail("required");
            }
        }
        for (key, value) in map {
            match (properties.get(key), schema_map.get("additionalProperties")) {
                (Some(of), _) => valid(of, root, value)?,
                (None, Some(Json::Bool(false))) => return fail("additionalProperties"),
                (None, Some(of)) => valid(of, root, value)?,
                (None, None) if schema_map.contains_key("properties") => return fail("properties"),
                (None, None) => {}
            }
        }
    }
    Ok(())
}

fn check(words: &Words, schema: &Json, favoured: &[u8], random: &mut Random) -> Json {
    let constraint = words.compile(&Grammar::JsonSchema(schema.clone()));
    let text = words.walk(constraint, favoured, random);
    let shown = String::from_utf8_lossy(&text).into_owned();
    let value: Json = serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{e}: {shown} of {schema}"));
    valid(schema, schema, &value).unwrap_or_else(|e| panic!("{e}: {shown}"));
    value
}

fn random_schemas(words: &Words, n: usize, seed: u64) {
    let mut random = Random(seed);
    let (mut n_deep, mut kinds) = (0, [0; 6]);
    for i in 0..n {
        let of = schema(&mut random, i % 4);
        for favoured in [&b""[..], b"\"{[0123456789.-et,", b" \n\\\"a"] {
            let value = check(words, &of, favoured, &mut random);
            n_deep += usize::from(value.is_object() || value.is_array());
            let kind =
                [value.is_null(), value.is_boolean(), value.is_number(), value.is_string(), value.is_array(), true];
            kinds[kind.iter().position(|k| *k).unwrap()] += 1;
        }
    }
    println!("{n} schemas: {n_deep} objects and lists; null, boolean, number, string, list, object: {kinds:?}");
    assert!(kinds.iter().all(|k| *k > 0) && n_deep > n / 4);
}

#[test]
fn walks_of_random_schemas_are_valid() {
    random_schemas(tiny(), 150, 1);
}

#[test]
fn walks_of_random_schemas_are_valid_in_a_large_vocabulary() {
    if let Some(words) = llama() {
        random_schemas(words, 24, 2);
    }
}

/// Numbers beyond a double and nesting beyond what parsers read are JSON by the standard, and no parser takes them.
#[test]
fn free_json_is_always_read() {
    let mut random = Random(3);
    for words in [Some(tiny()), llama()].into_iter().flatten() {
        for favoured in [&b"0123456789eE+-."[..], b"9e", b"[{", b"[", b"1,["] {
            for of in [json!({"type": ["number", "array"]}), json!({"type": "array"}), json!({})] {
                check(words, &of, favoured, &mut random);
            }
        }
        for favoured in [&b"\"{:0e9"[..], b"{\":[", b""] {
            let text = words.walk(words.compile(&Grammar::Json), favoured, &mut random);
            let value: Json = serde_json::from_slice(&text).unwrap();
            assert!(value.is_object(), "{value}");
        }
    }
    let loose = |text: &str| tiny().accepts(&Grammar::JsonSchema(json!({"type": "number"})), text);
    assert!(loose("1e99") && loose("-0.5") && loose(&"7".repeat(128)));
    assert!(!loose("1e999") && !loose(&"7".repeat(129)) && !loose("01") && !loose("+1") && !loose("1."));
}

#[test]
fn definitions_recurse() {
    let tree = json!({
        "$ref": "#/$defs/node",
        "$defs": {"node": {"type": "object", "required": ["label", "children"], "properties": {
            "label": {"type": "string", "maxLength": 8},
            "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 3},
        }}},
    });
    let mut random = Random(4);
    for favoured in [&b""[..], b"{\"[lc,"] {
        (0..10).for_each(|_| _ = check(tiny(), &tree, favoured, &mut random));
    }
    let json = Grammar::JsonSchema(tree);
    assert!(tiny().accepts(&json, r#"{"label": "a", "children": [{"label": "b", "children": []}]}"#));
    assert!(!tiny().accepts(&json, r#"{"label": "a", "children": [{"label": "b"}]}"#));
}

#[test]
fn patterns_are_ecmascripts() {
    let pattern = |p: &str| Grammar::JsonSchema(json!({"type": "string", "pattern": p}));
    let accepts = |p: &str, text: &str| tiny().accepts(&pattern(p), &json!(text).to_string());
    assert!(accepts("^\\d{3}$", "123") && !accepts("^\\d{3}$", "12"));
    assert!(!accepts("^\\d$", "٣") && !accepts("^[\\d.]+$", "١.٢") && accepts("^[\\d.]+$", "1.2"), "digits are ASCII");
    assert!(!accepts("^\\w+$", "é") && accepts("^\\w+$", "a_1") && accepts("^\\D$", "٣"));
    assert!(accepts("b", "abc") && !accepts("^b", "abc"), "a pattern is searched for");
    assert!(accepts("^a/b\"$", "a/b\""));
    let error = tiny().constrainer.compile(&pattern("(?=a)b")).unwrap_err().to_string();
    assert!(error.contains("JSON schema") && !error.contains('\n'), "{error}");
}

#[test]
fn formats_are_held_to_and_others_are_remarks() {
    let format = |f: &str, text: &str| {
        tiny().accepts(&Grammar::JsonSchema(json!({"type": "string", "format": f})), &json!(text).to_string())
    };
    assert!(format("date", "2026-02-28") && !format("date", "2026-13-01"));
    assert!(format("uuid", "00000000-0000-4000-8000-000000000000") && !format("uuid", "x"));
    assert!(format("binary", "anything"));
}

#[test]
fn closed_and_ordered_as_documented() {
    let schema = json!({"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "integer"}}});
    let json = Grammar::JsonSchema(schema);
    let accepts = |text: &str| tiny().accepts(&json, text);
    assert!(accepts("{}") && accepts(r#"{"b": 1}"#) && accepts(r#"{"b":1,"a":2}"#) && accepts("{\n  \"a\": 2\n}"));
    assert!(!accepts(r#"{"a": 2, "b": 1}"#), "the schema's order");
    assert!(!accepts(r#"{"c": 1}"#), "no other properties");
    assert!(!accepts(" {}") && !accepts(&format!("{{{}}}", "\n".repeat(9))), "no space before, no endless space");
    let merged =
        json!({"allOf": [{"properties": {"a": {"type": "integer"}}}, {"properties": {"b": {"type": "null"}}}]});
    assert!(tiny().accepts(&Grammar::JsonSchema(merged), r#"{"a": 1, "b": null}"#));
    let pet = json!({"oneOf": [{"properties": {"kind": {"const": "cat"}}, "required": ["kind"]},
                               {"properties": {"kind": {"const": "dog"}, "age": {"type": "integer"}}, "required": ["kind"]}]});
    assert!(tiny().accepts(&Grammar::JsonSchema(pet.clone()), r#"{"kind": "dog", "age": 3}"#));
    assert!(!tiny().accepts(&Grammar::JsonSchema(pet), r#"{"kind": "cow"}"#));
    let set = json!({"type": "array", "uniqueItems": true, "items": {"type": "integer"}});
    assert!(tiny().constrainer.compile(&Grammar::JsonSchema(set.clone())).is_err());
    assert!(tiny().accepts(&Grammar::JsonSchema(relaxed(&set)), "[1, 1]"));
}
