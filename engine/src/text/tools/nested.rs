//! [`NestedBody`]: calls whose arguments are nested in markup of a kind that only the end makes whole: elements of tags, or
//! an object with quotes of its own. Read when the call has ended.

use serde_json::{Map, Value as Json};

use super::body::Read;
use super::scan::{self, Find};
use super::{Calls, python, values};

/// Values may nest this deep.
const MAX_DEPTH: usize = 64;

/// How such a call is written.
#[derive(Debug)]
pub(super) enum Nested {
    /// `NAME">` and elements `<key>value</key>`, in each of which others may stand; this before every tag.
    Elements(&'static str),
    /// `NAME{key:value}`, with this around strings.
    Quoted(&'static str),
}

/// Reads one call, up to a tag.
#[derive(Debug, Clone)]
pub(super) struct NestedBody {
    nested: &'static Nested,
    end: &'static str,
    from: usize,
    at: usize,
}

impl NestedBody {
    /// A reader of what stands from `from` to the tag `end`.
    pub(super) fn new(nested: &'static Nested, end: &'static str, from: usize) -> NestedBody {
        NestedBody { nested, end, from, at: from }
    }

    pub(super) fn step(&mut self, held: &str, end: bool, calls: &mut Calls) -> Read {
        match scan::find(&held[self.at..], &[self.end]) {
            Find::At(n, _) => {
                let (to, behind) = (self.at + n, self.at + n + self.end.len());
                match self.call(&held[self.from..to], calls) {
                    Some((name, arguments)) => {
                        calls.end(name, Json::Object(arguments));
                        Read::Call(behind)
                    }
                    None => Read::Broken(behind),
                }
            }
            _ if end => Read::Broken(held.len()),
            Find::Perhaps(n) => {
                self.at += n;
                Read::More
            }
            Find::None => {
                self.at = held.len();
                Read::More
            }
        }
    }

    fn call(&self, text: &str, calls: &Calls) -> Option<(String, Map<String, Json>)> {
        let (name, rest) = match self.nested {
            Nested::Elements(_) => text.split_once("\">")?,
            Nested::Quoted(_) => text.split_at(text.find('{')?),
        };
        let name = name.trim();
        let schema = calls.schema(name);
        let arguments = match self.nested {
            Nested::Elements(sign) => match elements(rest, sign, schema, 0)? {
                Json::Object(map) => map,
                Json::String(text) if text.trim().is_empty() => Map::new(),
                _ => return None,
            },
            Nested::Quoted(quote) => {
                let mut reader = Quoted { rest: rest.trim(), quote };
                let map = reader.object(0)?;
                reader.rest.is_empty().then_some(map)?
            }
        };
        python::is_name(name).then(|| (name.to_owned(), arguments))
    }
}

/// The value of an element's content: a text, or the elements in it, as a list where they are items.
fn elements(text: &str, sign: &str, schema: Option<&Json>, depth: usize) -> Option<Json> {
    let open = format!("{sign}<");
    if depth > MAX_DEPTH {
        return None;
    }
    if !text.contains(&open) {
        return Some(Json::from(text.strip_suffix(sign).unwrap_or(text)));
    }
    let (mut map, mut items, mut rest) = (Map::new(), Vec::new(), text.trim_start());
    while let Some(inner) = rest.strip_prefix(&open) {
        let (key, content) = inner.split_once('>')?;
        let close = format!("{sign}</{key}>");
        let (content, after) = split_balanced(content, &format!("{open}{key}>"), &close)?;
        let property = schema.and_then(|s| s.get("properties").and_then(|p| p.get(key)).or_else(|| s.get("items")));
        let value = match elements(content, sign, property, depth + 1)? {
            Json::String(text) if key == "item" => {
                let outer = serde_json::json!({"properties": {"item": property.cloned().unwrap_or_default()}});
                values::typed(&text, "item", Some(&outer), None)
            }
            Json::String(text) => values::typed(&text, key, schema, None),
            other => other,
        };
        if key == "item" {
            items.push(value)
        } else {
            _ = map.insert(key.to_owned(), value)
        }
        rest = after.trim_start();
    }
    let rest = rest.strip_suffix(sign).unwrap_or(rest);
    if !rest.trim().is_empty() || (!items.is_empty() && !map.is_empty()) {
        return None;
    }
    Some(if items.is_empty() { Json::Object(map) } else { Json::Array(items) })
}

/// A text up to the tag that closes what is open, and what follows it.
fn split_balanced<'t>(text: &'t str, open: &str, close: &str) -> Option<(&'t str, &'t str)> {
    let (mut at, mut depth) = (0, 0);
    loop {
        let end = at + text[at..].find(close)?;
        depth += text[at..end].matches(open).count();
        if depth == 0 {
            return Some((&text[..end], &text[end + close.len()..]));
        }
        depth -= 1;
        at = end + close.len();
    }
}

/// A reader of objects whose keys stand bare or in quotes of their own.
struct Quoted<'a> {
    rest: &'a str,
    quote: &'static str,
}

impl<'a> Quoted<'a> {
    fn take(&mut self, text: &str) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(text)?;
        Some(())
    }

    fn string(&mut self) -> Option<&'a str> {
        self.take(self.quote)?;
        let (text, rest) = self.rest.split_once(self.quote)?;
        self.rest = rest;
        Some(text)
    }

    fn object(&mut self, depth: usize) -> Option<Map<String, Json>> {
        let mut map = Map::new();
        self.take("{")?;
        while self.take("}").is_none() {
            if !map.is_empty() {
                self.take(",")?;
            }
            let key = match self.string() {
                Some(key) => key,
                None => {
                    let (key, _) = self.rest.split_once(':')?;
                    self.rest = &self.rest[key.len()..];
                    key.trim().trim_matches('"')
                }
            };
            self.take(":")?;
            map.insert(key.to_owned(), self.value(depth + 1)?);
        }
        Some(map)
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        if depth > MAX_DEPTH {
            return None;
        }
        let rest = self.rest.trim_start();
        if rest.starts_with(self.quote) {
            return self.string().map(Json::from);
        }
        if rest.starts_with('{') {
            return self.object(depth).map(Json::Object);
        }
        if self.take("[").is_some() {
            let mut items = Vec::new();
            while self.take("]").is_none() {
                if !items.is_empty() {
                    self.take(",")?;
                }
                items.push(self.value(depth + 1)?);
            }
            return Some(Json::Array(items));
        }
        let n = match rest.strip_prefix('"') {
            // A string as JSON has it.
            Some(inner) => 1 + inner.find('"')? + 1,
            None => rest.find([',', '}', ']'])?,
        };
        let (word, rest) = rest.split_at(n);
        self.rest = rest;
        serde_json::from_str(word.trim()).ok().or_else(|| python::value_of(word.trim()))
    }
}
