//! [`FieldsBody`]: calls whose parameters stand in tags of their own, each value as plain text.

use serde_json::{Map, Value as Json};

use super::body::{MAX_SPACE, Read};
use super::scan::{self, Find, Starts};
use super::{Calls, python, values};

/// A name or a tag has at most this many bytes.
const MAX_TAG: usize = 512;

/// How such a call is written.
#[derive(Debug)]
pub(super) struct Fields {
    /// What ends the name: the first of these; and what ends the tag that it stands in, where that is something else.
    pub(super) name: (&'static [&'static str], &'static str),
    /// What begins a parameter, ends its key, and ends the tag that the key stands in.
    pub(super) key: (&'static str, &'static str, &'static str),
    /// What stands around a value.
    pub(super) value: (&'static str, &'static str),
    /// What ends the call.
    pub(super) end: &'static str,
}

#[derive(Debug, Clone)]
enum Stage {
    Name,
    /// Between parameters.
    Between,
    /// In a value: its key, where it begins, and what its tag says of its type.
    Value(String, usize, Option<bool>),
}

/// Reads one call. Places are bytes of the held text.
#[derive(Debug, Clone)]
pub(super) struct FieldsBody {
    fields: &'static Fields,
    stage: Stage,
    /// Where to look on.
    at: usize,
    name: String,
    arguments: Map<String, Json>,
}

impl FieldsBody {
    /// A reader of a call whose name begins at `from`.
    pub(super) fn new(fields: &'static Fields, from: usize) -> FieldsBody {
        FieldsBody { fields, stage: Stage::Name, at: from, name: String::new(), arguments: Map::new() }
    }

    pub(super) fn step(&mut self, held: &str, end: bool, calls: &mut Calls) -> Read {
        loop {
            let read = match &self.stage {
                Stage::Name => self.name(held, calls),
                Stage::Between => self.between(held, end, calls),
                Stage::Value(key, from, string) => {
                    let (key, from, string) = (key.clone(), *from, *string);
                    self.value(key, from, string, held, calls)
                }
            };
            match read {
                None => {}
                Some(Read::More) if end => return Read::Broken(held.len()),
                Some(read) => return read,
            }
        }
    }

    /// The part of a tag up to `ends`, from `at` on: its text and what follows the end.
    fn until<'t>(held: &'t str, at: usize, ends: &[&str]) -> Result<(&'t str, usize, usize), Read> {
        let window = (0..=held.len().min(at + MAX_TAG)).rev().find(|n| held.is_char_boundary(*n)).unwrap_or(0);
        match scan::find(&held[at..window.max(at)], ends) {
            Find::At(n, which) => Ok((&held[at..at + n], at + n, ends[which].len())),
            _ if held.len() - at >= MAX_TAG => Err(Read::Broken(at)),
            _ => Err(Read::More),
        }
    }

    fn name(&mut self, held: &str, calls: &mut Calls) -> Option<Read> {
        let (ends, tag) = self.fields.name;
        let start = self.at + scan::space(&held[self.at..]).min(MAX_SPACE);
        let (name, at) = match Self::until(held, start, ends) {
            Ok((name, at, _)) => (name.trim(), at),
            // What is neither a name nor the beginning of what ends one is no call.
            Err(Read::More) => {
                let rest = held[start + python::name_len(&held[start..])..].trim();
                let ends = rest.is_empty() || ends.iter().any(|end| end.starts_with(rest));
                return Some(if ends { Read::More } else { Read::Broken(start) });
            }
            Err(read) => return Some(read),
        };
        if !python::is_name(name) {
            return Some(Read::Broken(start));
        }
        let at = match tag {
            "" => at,
            tag => match Self::until(held, at, &[tag]) {
                Ok((_, at, n)) => at + n,
                Err(read) => return Some(read),
            },
        };
        let name = name.strip_prefix("functions.").filter(|short| calls.knows(short)).unwrap_or(name).to_owned();
        calls.start(&name, 0);
        calls.more("{");
        (self.name, self.at, self.stage) = (name, at, Stage::Between);
        None
    }

    fn between(&mut self, held: &str, end: bool, calls: &mut Calls) -> Option<Read> {
        let at = self.at + scan::space(&held[self.at..]);
        let rest = &held[at..];
        let (open, key_end, tag_end) = self.fields.key;
        match (scan::starts(rest, self.fields.end), scan::starts(rest, open)) {
            (Starts::Yes, _) => {
                calls.more("}");
                calls.end(std::mem::take(&mut self.name), Json::Object(std::mem::take(&mut self.arguments)));
                Some(Read::Call(at + self.fields.end.len()))
            }
            (_, Starts::Yes) => {
                let (key, at) = match Self::until(held, at + open.len(), &[key_end]) {
                    Ok((key, at, _)) => (key.trim().to_owned(), at),
                    Err(read) => return Some(read),
                };
                let (tag, at) = match Self::until(held, at, &[if tag_end.is_empty() { key_end } else { tag_end }]) {
                    Ok((tag, at, n)) => (tag, at + n),
                    Err(read) => return Some(read),
                };
                self.open_value(key, tag, at, held)
            }
            (Starts::Perhaps, _) | (_, Starts::Perhaps) if !end => Some(Read::More),
            _ => Some(Read::Broken(at)),
        }
    }

    fn open_value(&mut self, key: String, tag: &str, at: usize, held: &str) -> Option<Read> {
        let open = self.fields.value.0;
        let mut from = at;
        if !open.is_empty() {
            from += scan::space(&held[at..]);
            match scan::starts(&held[from..], open) {
                Starts::Yes => from += open.len(),
                Starts::Perhaps => return Some(Read::More),
                Starts::No => return Some(Read::Broken(from)),
            }
        }
        let string = match () {
            () if tag.contains("string=\"true\"") || tag.contains("type=\"string\"") => Some(true),
            () if tag.contains("string=\"false\"") || tag.contains("type=\"") => Some(false),
            () => None,
        };
        (self.stage, self.at) = (Stage::Value(key, from, string), from);
        None
    }

    fn value(&mut self, key: String, from: usize, string: Option<bool>, held: &str, calls: &mut Calls) -> Option<Read> {
        let close = self.fields.value.1;
        let end = match scan::find(&held[self.at..], &[close]) {
            Find::At(n, _) => self.at + n,
            Find::Perhaps(n) => {
                self.at += n;
                return Some(Read::More);
            }
            Find::None => {
                self.at = held.len();
                return Some(Read::More);
            }
        };
        let text = &held[from..end];
        // Some write a value in lines of its own.
        let text = text.strip_prefix('\n').and_then(|t| t.strip_suffix('\n')).unwrap_or(text);
        let value = values::typed(text, &key, calls.schema(&self.name), string);
        let comma = if self.arguments.is_empty() { "" } else { ", " };
        calls.more(&format!("{comma}{}: {value}", Json::from(key.as_str())));
        self.arguments.insert(key, value);
        (self.stage, self.at) = (Stage::Between, end + close.len());
        None
    }
}
