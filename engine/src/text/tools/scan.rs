//! Scanning text that is still coming in: tags that may be cut in two, and the JSON object of a call.
//! Scanners remember where they are, so every byte is looked at once.

use serde_json::Value as Json;

/// Where tags stand in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Find {
    /// The tag of this number begins here.
    At(usize, usize),
    /// From here on the text may be the beginning of a tag.
    Perhaps(usize),
    /// No tag, not even in part.
    None,
}

/// The first of `tags` in `text`; of several at one place the first in the list.
pub(super) fn find(text: &str, tags: &[&str]) -> Find {
    let bytes = text.as_bytes();
    for at in 0..bytes.len() {
        let rest = &bytes[at..];
        for (i, tag) in tags.iter().enumerate() {
            if rest.starts_with(tag.as_bytes()) {
                return Find::At(at, i);
            }
            if tag.as_bytes().starts_with(rest) {
                return Find::Perhaps(at);
            }
        }
    }
    Find::None
}

/// What stands at the start of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Starts {
    Yes,
    /// The text is too short to tell.
    Perhaps,
    No,
}

/// Whether `text` starts with `tag`.
pub(super) fn starts(text: &str, tag: &str) -> Starts {
    match (text.starts_with(tag), tag.starts_with(text)) {
        (true, _) => Starts::Yes,
        (_, true) => Starts::Perhaps,
        _ => Starts::No,
    }
}

/// Bytes of white space at the start of a text.
pub(super) fn space(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

/// Finds the end of a JSON object by its brackets, outside of strings. What is in it is not checked.
#[derive(Debug, Clone, Default)]
pub(super) struct Brackets {
    depth: u32,
    in_string: bool,
    escaped: bool,
}

/// What a byte does to the nesting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    StringStart,
    StringEnd,
    Open,
    Close,
    Other,
    InString,
}

impl Brackets {
    fn take(&mut self, byte: u8) -> Turn {
        if self.in_string {
            match (self.escaped, byte) {
                (true, _) => self.escaped = false,
                (false, b'\\') => self.escaped = true,
                (false, b'"') => {
                    self.in_string = false;
                    return Turn::StringEnd;
                }
                _ => {}
            }
            return Turn::InString;
        }
        match byte {
            b'"' => {
                self.in_string = true;
                Turn::StringStart
            }
            b'{' | b'[' => {
                self.depth += 1;
                Turn::Open
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                Turn::Close
            }
            _ => Turn::Other,
        }
    }
}

/// Finds the end of an object that begins at `pos`.
#[derive(Debug, Clone)]
pub(super) struct Value {
    pub(super) start: usize,
    pos: usize,
    brackets: Brackets,
}

impl Value {
    pub(super) fn new(start: usize) -> Value {
        Value { start, pos: start, brackets: Brackets::default() }
    }

    /// Reads on; gives the place behind the closing bracket when it has come.
    pub(super) fn end(&mut self, text: &str) -> Option<usize> {
        for byte in &text.as_bytes()[self.pos..] {
            self.pos += 1;
            if self.brackets.take(*byte) == Turn::Close && self.brackets.depth == 0 {
                return Some(self.pos);
            }
        }
        None
    }
}

/// The keys of a call object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Name,
    Arguments,
    /// A key that calls have and that does not matter here.
    Known,
    Alien,
}

/// How far a call object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    /// It is no call of a known tool.
    Alien,
    /// It ends here.
    End(usize),
    /// It should have ended here, where a closing tag begins.
    Cut(usize),
}

/// Reads `{"name": ..., "arguments": {...}}` as it comes, in any order of keys.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) start: usize,
    pos: usize,
    brackets: Brackets,
    string: usize,
    key: Key,
    wants_key: bool,
    /// The name, once its string is complete.
    pub(super) name: Option<String>,
    /// Where the arguments' object begins.
    pub(super) arguments: Option<usize>,
    /// Behind the arguments' object.
    pub(super) arguments_end: Option<usize>,
}

impl Object {
    /// A reader of the object whose `{` stands at `start`.
    pub(super) fn new(start: usize) -> Object {
        Object {
            start,
            pos: start,
            brackets: Brackets::default(),
            string: 0,
            key: Key::Known,
            wants_key: true,
            name: None,
            arguments: None,
            arguments_end: None,
        }
    }

    /// How far the text was read.
    pub(super) fn pos(&self) -> usize {
        self.pos
    }

    /// Reads on. `close` is a tag that ends the object if it comes between values. `end`: no more text comes. With
    /// `known`, keys that calls do not have and names that it refuses end the reading.
    pub(super) fn read(
        &mut self,
        text: &str,
        close: Option<&str>,
        end: bool,
        known: Option<&dyn Fn(&str) -> bool>,
    ) -> Progress {
        let bytes = text.as_bytes();
        while let Some(byte) = bytes.get(self.pos) {
            if let (Some(tag), false) = (close, self.brackets.in_string)
                && tag.as_bytes()[0] == *byte
            {
                match starts(&text[self.pos..], tag) {
                    Starts::Yes => return Progress::Cut(self.pos),
                    Starts::Perhaps if !end => return Progress::More,
                    _ => {}
                }
            }
            let turn = self.brackets.take(*byte);
            let depth = self.brackets.depth;
            let at = self.pos;
            self.pos += 1;
            match turn {
                Turn::StringStart if depth == 1 => self.string = at,
                Turn::StringEnd if depth == 1 => {
                    let string = &text[self.string..self.pos];
                    if self.wants_key {
                        self.key = key(string);
                        if known.is_some() && self.key == Key::Alien {
                            return Progress::Alien;
                        }
                    } else if self.key == Key::Name && self.name.is_none() {
                        self.name = serde_json::from_str(string).ok();
                        if let (Some(known), Some(name)) = (known, &self.name)
                            && !known(name)
                        {
                            return Progress::Alien;
                        }
                    }
                }
                Turn::Open
                    if depth == 2
                        && !self.wants_key
                        && self.key == Key::Arguments
                        && self.arguments.is_none()
                        && *byte == b'{' =>
                {
                    self.arguments = Some(at);
                }
                Turn::Close if depth == 1 && self.arguments.is_some() && self.arguments_end.is_none() => {
                    self.arguments_end = Some(self.pos);
                }
                Turn::Close if depth == 0 => return Progress::End(self.pos),
                Turn::Other if depth == 1 => match byte {
                    b':' => self.wants_key = false,
                    b',' => self.wants_key = true,
                    b' ' | b'\n' | b'\r' | b'\t' => {}
                    _ if known.is_some() && self.wants_key => {
                        self.pos = at;
                        return Progress::Alien;
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        if end { Progress::Cut(self.pos) } else { Progress::More }
    }
}

fn key(string: &str) -> Key {
    match string {
        r#""name""# | r#""tool_name""# => Key::Name,
        r#""arguments""# | r#""parameters""# => Key::Arguments,
        r#""function""# | r#""type""# | r#""id""# | r#""tool_call_id""# => Key::Known,
        _ => Key::Alien,
    }
}

/// Name and arguments of a complete call object. Without arguments they are an empty object; arguments may be JSON text
/// in a string. An object of one key that is none of a call's is a name with its arguments.
pub(super) fn call_of(text: &str) -> Option<(String, Json)> {
    let object: Json = serde_json::from_str(text).ok()?;
    let single = object.as_object().filter(|o| o.len() == 1).and_then(|o| o.iter().next());
    if let Some((key, arguments @ Json::Object(_))) = single
        && self::key(&Json::from(key.as_str()).to_string()) == Key::Alien
    {
        return Some((key.clone(), arguments.clone()));
    }
    let call = object.get("function").filter(|f| f.is_object()).unwrap_or(&object);
    let name = call.get("name").or(call.get("tool_name")).or(call.get("function"))?.as_str()?.to_owned();
    let arguments = match call.get("arguments").or(call.get("parameters")) {
        None | Some(Json::Null) => Json::Object(serde_json::Map::new()),
        Some(Json::String(text)) => serde_json::from_str(text).ok()?,
        Some(other) => other.clone(),
    };
    (arguments.is_object() && !name.is_empty()).then_some((name, arguments))
}

/// The object that a text begins to write, closed where the text ends: without what is not whole, but for a string.
pub(super) fn closed(text: &str) -> Json {
    let mut brackets = Brackets::default();
    let mut open: Vec<char> = Vec::new();
    // Where a member or an item may end, with what is open there; the last few are enough.
    let mut ends: std::collections::VecDeque<(usize, usize)> = [(0, 0)].into();
    for (at, byte) in text.bytes().enumerate() {
        match brackets.take(byte) {
            Turn::Open => {
                open.push(if byte == b'{' { '}' } else { ']' });
                ends.push_back((at + 1, open.len()));
            }
            Turn::Close => _ = open.pop(),
            Turn::Other if byte == b',' => ends.push_back((at, open.len())),
            _ => {}
        }
        if ends.len() > 8 {
            ends.pop_front();
        }
    }
    let whole = if brackets.in_string && !brackets.escaped { format!("{text}\"") } else { text.to_owned() };
    let tries =
        std::iter::once((whole, open.len())).chain(ends.iter().rev().map(|(at, n)| (text[..*at].to_owned(), *n)));
    let read = |(mut text, n): (String, usize)| {
        text.extend(open.get(..n)?.iter().rev());
        serde_json::from_str(&text).ok().filter(Json::is_object)
    };
    tries.filter_map(read).next().unwrap_or_else(|| Json::Object(serde_json::Map::new()))
}
