//! JSON and template values: conversion both ways as Hugging Face's templates see them (`json.dumps`, `str`, `repr`).

use std::fmt::Write;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};
use serde_json::Value as Json;

/// Values may nest this deep; no chat needs more, and a namespace may contain itself.
pub(super) const MAX_DEPTH: usize = 100;

fn too_deep() -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("a value nests more than {MAX_DEPTH} deep"))
}

/// A template value of this JSON, keys in order.
pub(super) fn value(json: &Json) -> Result<Value, Error> {
    from_json(json, MAX_DEPTH, &|text| Value::from(text))
}

/// The same with `text` in the place of each text and key.
pub(super) fn value_by(json: &Json, text: &dyn Fn(&str) -> Value) -> Result<Value, Error> {
    from_json(json, MAX_DEPTH, text)
}

fn from_json(json: &Json, depth: usize, text: &dyn Fn(&str) -> Value) -> Result<Value, Error> {
    if depth == 0 {
        return Err(too_deep());
    }
    Ok(match json {
        Json::Null => Value::from(()),
        Json::Bool(b) => Value::from(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => Value::from(i),
            (_, Some(u)) => Value::from(u),
            _ => Value::from(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(s) => text(s),
        Json::Array(items) => {
            Value::from(items.iter().map(|v| from_json(v, depth - 1, text)).collect::<Result<Vec<_>, _>>()?)
        }
        Json::Object(map) => {
            let pairs = map.iter().map(|(k, v)| Ok((text(k), from_json(v, depth - 1, text)?)));
            Value::from_pairs(pairs.collect::<Result<Vec<_>, Error>>()?)
        }
    })
}

/// JSON text as Python's `json.dumps(x, ensure_ascii=False)` writes it.
pub(super) fn compact(json: &Json) -> String {
    let style = Style::default();
    let mut out = String::new();
    // JSON that was parsed nests less than the limit; what does not is cut to nothing.
    match value(json).and_then(|v| style.write(&mut out, &v, 0)) {
        Ok(()) => out,
        Err(_) => String::new(),
    }
}

/// `json.dumps`'s options.
#[derive(Debug, Clone)]
pub(super) struct Style {
    /// Spaces per level on lines of their own, instead of all on one line.
    pub(super) indent: Option<usize>,
    pub(super) item_separator: String,
    pub(super) key_separator: String,
    pub(super) ensure_ascii: bool,
    pub(super) sort_keys: bool,
    /// Bytes that may be written.
    pub(super) limit: usize,
}

impl Default for Style {
    fn default() -> Style {
        Style {
            indent: None,
            item_separator: ", ".into(),
            key_separator: ": ".into(),
            ensure_ascii: false,
            sort_keys: false,
            limit: usize::MAX,
        }
    }
}

impl Style {
    /// Writes `value` at nesting level `level`.
    pub(super) fn write(&self, out: &mut String, value: &Value, level: usize) -> Result<(), Error> {
        if level > MAX_DEPTH {
            return Err(too_deep());
        }
        if out.len() > self.limit {
            return Err(Error::new(ErrorKind::InvalidOperation, "JSON text is too long"));
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => number(out, value),
            ValueKind::String => self.string(out, value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.sequence(out, ('[', ']'), &items, level, |out, item| self.write(out, item, level + 1))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.sequence(out, ('{', '}'), &keys, level, |out, key| {
                    match key.as_str() {
                        Some(text) => self.string(out, text),
                        None => {
                            let mut text = String::new();
                            self.write(&mut text, key, MAX_DEPTH)?;
                            self.string(out, &text);
                        }
                    }
                    out.push_str(&self.key_separator);
                    self.write(out, &value.get_item(key)?, level + 1)
                })?;
            }
            other => {
                let what = format!("an {other} value has no JSON form");
                return Err(Error::new(ErrorKind::InvalidOperation, what));
            }
        }
        Ok(())
    }

    fn sequence(
        &self,
        out: &mut String,
        brackets: (char, char),
        items: &[Value],
        level: usize,
        mut write: impl FnMut(&mut String, &Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        out.push(brackets.0);
        let line = |out: &mut String, level: usize| {
            if let Some(indent) = self.indent {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', indent.min(16) * level));
            }
        };
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                out.push_str(if self.indent.is_some() { self.item_separator.trim_end() } else { &self.item_separator });
            }
            line(out, level + 1);
            write(out, item)?;
        }
        if !items.is_empty() {
            line(out, level);
        }
        out.push(brackets.1);
        Ok(())
    }

    fn string(&self, out: &mut String, text: &str) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ensure_ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// A number as Python writes it: `1`, `1.0`, `1e-05`.
fn number(out: &mut String, value: &Value) {
    let float = match f64::try_from(value.clone()) {
        Ok(float) if !value.is_integer() => float,
        _ => {
            let _ = write!(out, "{value}");
            return;
        }
    };
    if !float.is_finite() {
        out.push_str(if float.is_nan() { "NaN" } else { ["-Infinity", "Infinity"][usize::from(float > 0.0)] });
        return;
    }
    let text = format!("{float:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let _ = match exponent {
        -4..=15 => write!(out, "{float:?}"),
        _ => write!(out, "{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
    };
}

/// What Python's `str(value)` gives: `True`, `None`, `{'a': 1}`; strings as they are, nothing for undefined.
///
/// # Errors
/// Where the value nests too deep or the text would exceed `limit` bytes.
pub(super) fn display(out: &mut String, value: &Value, limit: usize) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => out.push_str(text),
        None => repr(out, value, limit, 0)?,
    }
    Ok(())
}

fn repr(out: &mut String, value: &Value, limit: usize, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(too_deep());
    }
    if out.len() > limit {
        return Err(Error::new(ErrorKind::InvalidOperation, "a value's text is too long"));
    }
    match value.kind() {
        ValueKind::Undefined => {}
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => {
            let at = out.len();
            number(out, value);
            match &out[at..] {
                "NaN" => out.replace_range(at.., "nan"),
                "Infinity" => out.replace_range(at.., "inf"),
                "-Infinity" => out.replace_range(at.., "-inf"),
                _ => {}
            }
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let tuple = value.is_tuple();
            out.push(if tuple { '(' } else { '[' });
            let mut n = 0;
            for item in value.try_iter()? {
                out.push_str(if n > 0 { ", " } else { "" });
                repr(out, &item, limit, depth + 1)?;
                n += 1;
            }
            out.push_str(match (tuple, n) {
                (true, 1) => ",)",
                (true, _) => ")",
                _ => "]",
            });
        }
        ValueKind::Map => {
            out.push('{');
            for (i, key) in value.try_iter()?.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                repr(out, &key, limit, depth + 1)?;
                out.push_str(": ");
                repr(out, &value.get_item(&key)?, limit, depth + 1)?;
            }
            out.push('}');
        }
        // minijinja's form of texts is Python's.
        ValueKind::String => _ = write!(out, "{value:?}"),
        _ => _ = write!(out, "{value}"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_are_pythons() {
        let json: Json = serde_json::from_str(
            r#"{"b":[1,1.0,0.1,1e16,1e-5,123456789012345.0,-0.0,true,null,"é\"\\\n\u0001"],"a":{}}"#,
        )
        .unwrap();
        let value = value(&json).unwrap();
        let want =
            r#"{"b": [1, 1.0, 0.1, 1e+16, 1e-05, 123456789012345.0, -0.0, true, null, "é\"\\\n\u0001"], "a": {}}"#;
        assert_eq!(compact(&json), want);
        let style = Style { indent: Some(2), sort_keys: true, ensure_ascii: true, ..Style::default() };
        let mut out = String::new();
        style.write(&mut out, &super::value(&serde_json::json!({"b": ["\u{1f600}"], "a": []})).unwrap(), 0).unwrap();
        assert_eq!(out, "{\n  \"a\": [],\n  \"b\": [\n    \"\\ud83d\\ude00\"\n  ]\n}");
        let mut out = String::new();
        display(&mut out, &value, usize::MAX).unwrap();
        let want = r#"{'b': [1, 1.0, 0.1, 1e+16, 1e-05, 123456789012345.0, -0.0, True, None, 'é"\\\n\x01'], 'a': {}}"#;
        assert_eq!(out, want);
    }

    #[test]
    fn depth_is_limited() {
        let mut json = Json::Null;
        for _ in 0..200 {
            json = Json::from(vec![json]);
        }
        assert!(value(&json).is_err());
        assert_eq!(compact(&json), "");
    }
}
