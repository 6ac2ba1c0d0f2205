//! [`Body`]: what stands behind a tag: one call or several, as JSON objects, Python calls, or a name and an object.

use serde_json::Value as Json;

use super::python::{self, CallEnd};
use super::scan::{self, Object, Progress, Value};
use super::{Calls, Step};

/// A name and what stands before its object of arguments have at most this many bytes.
const MAX_HEAD: usize = 512;

/// White space around markup may be this long.
pub(super) const MAX_SPACE: usize = 64;

/// Which forms a body may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Forms {
    /// `{"name": ..., "arguments": ...}`, or a list of such.
    pub(super) objects: bool,
    /// `f(a=1)`, or a list of such.
    pub(super) python: bool,
    /// A name before an object of arguments.
    pub(super) head: Option<Head>,
    /// Only calls of known tools count, for nothing else marks them.
    pub(super) known_only: bool,
}

/// How a name before an object of arguments is written: one of several words with separators between and behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) separators: &'static [&'static str],
    /// The name is the last of the words and not the first.
    pub(super) last: bool,
}

impl Head {
    fn name(self, head: &str) -> Option<&str> {
        let mut words = vec![head];
        for separator in self.separators {
            words = words.into_iter().flat_map(|word| word.split(separator)).collect();
        }
        let mut named = words.into_iter().map(str::trim).filter(|word| !word.is_empty());
        let name = if self.last { named.next_back() } else { named.next() }?;
        // `functions.name:0`, with the call's number.
        let name = name.strip_prefix("functions.").unwrap_or(name);
        let name = name.split_once(':').filter(|(_, n)| n.bytes().all(|b| b.is_ascii_digit())).map_or(name, |n| n.0);
        (!name.is_empty() && python::name_len(name) == name.len()).then_some(name)
    }
}

#[derive(Debug, Clone)]
enum Stage {
    /// Before a call; `first`: before the first one.
    Before {
        first: bool,
    },
    Object(Object),
    Python(usize, CallEnd),
    Named(String, Value),
}

/// Reads calls one after another. Places are bytes of the held text, which begins where the call (with what leads to it)
/// does.
#[derive(Debug, Clone)]
pub(super) struct Body {
    forms: Forms,
    /// What ends a body, if it comes outside of strings.
    close: Option<&'static str>,
    /// Where the call begins; white space perhaps.
    from: usize,
    list: bool,
    stage: Stage,
}

/// What came of a step.
pub(super) enum Read {
    More,
    /// A call is complete; so many bytes are done with.
    Call(usize),
    /// No more calls; so many bytes belong to the body.
    Done(usize),
    /// So many bytes are no call.
    Broken(usize),
}

impl Read {
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Read::Done(_))
    }

    /// As a step of the parser; what follows the body is the caller's business.
    pub(super) fn step(&self) -> Step {
        match self {
            Read::More => Step::More,
            Read::Call(n) | Read::Done(n) => Step::Skip(*n),
            Read::Broken(n) => Step::Broken(*n),
        }
    }
}

impl Body {
    pub(super) fn new(forms: Forms, close: Option<&'static str>, from: usize) -> Body {
        Body { forms, close, from, list: false, stage: Stage::Before { first: true } }
    }

    pub(super) fn step(&mut self, held: &str, end: bool, calls: &mut Calls) -> Read {
        if let Stage::Before { first } = self.stage {
            match self.before(held, end, first, calls) {
                None => {}
                Some(read) => return read,
            }
        }
        let read = match &mut self.stage {
            Stage::Object(object) => Self::object(object, self.close, self.forms.known_only, held, end, calls),
            Stage::Python(from, scanner) => match scanner.end(held) {
                None => Read::More,
                Some(to) => {
                    python_call(&held[*from..to], &self.forms, calls).map_or(Read::Broken(to), |()| Read::Call(to))
                }
            },
            Stage::Named(name, value) => named(name, value, held, calls),
            Stage::Before { .. } => Read::More,
        };
        if matches!(read, Read::Call(_)) {
            self.stage = Stage::Before { first: false };
            self.from = 0;
        }
        read
    }

    /// Finds the next call's beginning; `None` when it has.
    fn before(&mut self, held: &str, end: bool, first: bool, calls: &Calls) -> Option<Read> {
        let no = if first { Read::Broken(self.from) } else { Read::Done(0) };
        let mut at = self.from;
        let mut next = |after: usize| {
            at = after + scan::space(&held[after..]);
            let c = held[at..].chars().next();
            (at, c.filter(|_| at - after <= MAX_SPACE), at - after > MAX_SPACE)
        };
        let (at, c, far) = next(self.from);
        let Some(c) = c else { return Some(if end || far { no } else { Read::More }) };
        let lists = self.forms.objects || self.forms.python;
        let from = match (first, self.list && !first, c) {
            (true, _, '[') if lists => at + 1,
            (true, ..) => at,
            (_, true, ']') => return Some(Read::Done(at + 1)),
            (_, true, ',') | (_, false, ';') => at + 1,
            (_, false, '{') if self.forms.objects => at,
            (_, false, c) if self.forms.python && c.is_ascii_alphabetic() => at,
            _ => return Some(no),
        };
        self.list |= first && from > at;
        let (at, c, far) = next(from);
        let Some(c) = c else { return Some(if end || far { no } else { Read::More }) };
        if c == '{' && self.forms.objects {
            self.stage = Stage::Object(Object::new(at));
            return None;
        }
        if self.forms.python {
            let n = python::name_len(&held[at..]);
            let name = &held[at..at + n];
            return match held[at + n..].chars().next() {
                None if n > 0 && n <= MAX_HEAD && !end => Some(Read::More),
                Some('(') if n > 0 && n <= MAX_HEAD && (name == "print" || self.knows(name, calls)) => {
                    self.stage = Stage::Python(at, CallEnd::new(at + n));
                    None
                }
                _ => Some(no),
            };
        }
        match self.forms.head {
            Some(head) if first && !self.list => self.head(head, held, at, end, calls),
            _ => Some(no),
        }
    }

    /// Whether a call of this tool counts.
    fn knows(&self, name: &str, calls: &Calls) -> bool {
        !self.forms.known_only || calls.knows(name.strip_suffix(".call").unwrap_or(name)) || calls.knows(name)
    }

    fn head(&mut self, head: Head, held: &str, at: usize, end: bool, calls: &Calls) -> Option<Read> {
        let Some(n) = held.as_bytes()[at..].iter().take(MAX_HEAD).position(|b| *b == b'{') else {
            // What nothing else marks is text as soon as it cannot be a known name.
            let word = &held[at..at + python::name_len(&held[at..])];
            let alien = self.forms.known_only
                && (if at + word.len() < held.len() { !calls.knows(word) } else { !calls.may_know(word) });
            let over = held.len() - at > MAX_HEAD || end || alien;
            return Some(if over { Read::Broken(self.from) } else { Read::More });
        };
        match head.name(&held[at..at + n]).filter(|name| !self.forms.known_only || calls.knows(name)) {
            None => Some(Read::Broken(self.from)),
            Some(name) => {
                self.stage = Stage::Named(name.to_owned(), Value::new(at + n));
                None
            }
        }
    }

    fn object(
        object: &mut Object,
        close: Option<&str>,
        known_only: bool,
        held: &str,
        end: bool,
        calls: &mut Calls,
    ) -> Read {
        // Without a tag around it, an object is a call only if it has a call's keys and a tool's name.
        let knows = |name: &str| calls.knows(name);
        let progress = object.read(held, close, end, if known_only { Some(&knows) } else { None });
        if progress == Progress::Alien {
            return Read::Broken(object.pos());
        }
        let to = object.arguments_end.unwrap_or(object.pos());
        if let (Some(name), Some(from)) = (&object.name, object.arguments) {
            if !calls.is_open() && !name.is_empty() {
                calls.start(name, from);
            }
            calls.send(held, to);
        }
        let (to, call) = match progress {
            Progress::End(to) => (to, scan::call_of(&held[object.start..to])),
            // Small models forget the last bracket.
            Progress::Cut(to) if object.arguments_end.is_some() => {
                (to, scan::call_of(&format!("{}}}", &held[object.start..to])))
            }
            Progress::Cut(to) => (to, None),
            Progress::More | Progress::Alien => return Read::More,
        };
        // What was sent counts, whatever comes twice in the object.
        let sent = object.arguments.zip(object.arguments_end).filter(|_| calls.is_open());
        let call = call.and_then(|(name, arguments)| match sent {
            Some((from, to)) => Some((object.name.clone()?, serde_json::from_str(&held[from..to]).ok()?)),
            None => Some((name, arguments)),
        });
        match call {
            Some((name, arguments)) if !known_only || calls.knows(&name) => {
                calls.end(name, arguments);
                Read::Call(to)
            }
            _ => Read::Broken(to),
        }
    }
}

fn python_call(text: &str, forms: &Forms, calls: &mut Calls) -> Option<()> {
    // Gemma likes to print what a tool returns.
    let inner = text.strip_prefix("print(").and_then(|t| t.strip_suffix(')')).filter(|_| !calls.knows("print"));
    let (name, arguments) = python::call_of(inner.unwrap_or(text))?;
    // Llama's built-in tools are called as methods.
    let name = name.strip_suffix(".call").map(str::to_owned).filter(|n| calls.knows(n)).unwrap_or(name);
    if forms.known_only && !calls.knows(&name) {
        return None;
    }
    calls.end(name, Json::Object(arguments));
    Some(())
}

/// Reads the arguments behind a name.
pub(super) fn named(name: &str, value: &mut Value, held: &str, calls: &mut Calls) -> Read {
    if !calls.is_open() {
        calls.start(name, value.start);
    }
    let end = value.end(held);
    calls.send(held, end.unwrap_or(held.len()));
    let Some(to) = end else { return Read::More };
    match serde_json::from_str(&held[value.start..to]) {
        Ok(arguments @ Json::Object(_)) => {
            calls.end(name.to_owned(), arguments);
            Read::Call(to)
        }
        _ => Read::Broken(to),
    }
}
