//! Values that a call writes as plain text: what they are is for the tool's schema to say.

use serde_json::Value as Json;

use super::python;

/// A parameter's value. `schema`: that of the tool's arguments. `string`: what the markup says of its type.
pub(super) fn typed(text: &str, key: &str, schema: Option<&Json>, string: Option<bool>) -> Json {
    let property = schema.and_then(|schema| schema.get("properties")?.get(key));
    let mut types = Types::default();
    match (property, schema) {
        (Some(property), Some(schema)) => types.add(property, schema, 0),
        _ => types.any = true,
    }
    let other = || serde_json::from_str(text.trim()).ok().or_else(|| python::value_of(text.trim()));
    let string = match string {
        Some(known) => known,
        None if types.any => !matches!(other(), Some(value) if !value.is_string()),
        None => types.string && (!types.other || other().is_none_or(|v| v.is_string())),
    };
    if string { Json::from(text) } else { other().unwrap_or_else(|| Json::from(text)) }
}

/// Whether a property's value may be any text.
#[cfg(feature = "constrain")]
pub(crate) fn allows_text(property: &Json, schema: &Json) -> bool {
    let mut types = Types::default();
    types.add(property, schema, 0);
    types.any || (types.string && property.get("enum").is_none() && property.get("const").is_none())
}

/// Types that a schema allows.
#[derive(Default)]
struct Types {
    string: bool,
    other: bool,
    any: bool,
}

impl Types {
    fn add(&mut self, schema: &Json, root: &Json, depth: usize) {
        if depth > 8 {
            return;
        }
        let mut of = |name: &str| if name == "string" { self.string = true } else { self.other = true };
        match schema.get("type") {
            Some(Json::String(name)) => return of(name),
            Some(Json::Array(names)) => return names.iter().filter_map(Json::as_str).for_each(of),
            _ => {}
        }
        let listed = schema.get("enum").and_then(Json::as_array).into_iter().flatten().chain(schema.get("const"));
        let mut known = false;
        for value in listed {
            known = true;
            if value.is_string() { self.string = true } else { self.other = true }
        }
        for key in ["anyOf", "oneOf", "allOf"] {
            for part in schema.get(key).and_then(Json::as_array).into_iter().flatten() {
                known = true;
                self.add(part, root, depth + 1);
            }
        }
        if let Some(part) = schema.get("$ref").and_then(|r| root.pointer(r.as_str()?.strip_prefix('#')?)) {
            known = true;
            self.add(part, root, depth + 1);
        }
        self.any |= !known;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_schema_tells_what_a_text_is() {
        let schema = json!({"$defs": {"n": {"type": "integer"}}, "properties": {
            "s": {"type": "string"}, "n": {"type": "integer"}, "r": {"$ref": "#/$defs/n"},
            "either": {"type": ["string", "null"]}, "e": {"enum": ["1", "2"]}, "o": {"type": "object"},
            "u": {"anyOf": [{"type": "string"}, {"type": "number"}]}, "x": {}}});
        let cases = [
            ("s", "12", json!("12")),
            ("s", "True", json!("True")),
            ("n", "12", json!(12)),
            ("n", "twelve", json!("twelve")),
            ("r", " 3 ", json!(3)),
            ("either", "null", json!(null)),
            ("either", "x", json!("x")),
            ("e", "1", json!("1")),
            ("o", "{'a': [True, None]}", json!({"a": [true, null]})),
            ("u", "1.5", json!(1.5)),
            ("u", "one", json!("one")),
            ("x", "false", json!(false)),
            ("x", "word", json!("word")),
            ("unknown", "7", json!(7)),
        ];
        for (key, text, want) in cases {
            assert_eq!(typed(text, key, Some(&schema), None), want, "{key}: {text}");
        }
        assert_eq!(typed("7", "n", Some(&schema), Some(true)), json!("7"));
        assert_eq!(typed("7", "s", None, Some(false)), json!(7));
    }
}
