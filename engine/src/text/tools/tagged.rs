//! [`Tagged`]: formats that mark calls by a tag before them, or write nothing but a call.

use super::body::{Body, MAX_SPACE, Read};
use super::fields::FieldsBody;
use super::nested::NestedBody;
use super::scan::{self, Find, Starts};
use super::table::{Kind, Row};
use super::{Calls, Step};

/// What stands behind a tag, by the format's kind.
#[derive(Debug, Clone)]
enum Inner {
    Forms(Body),
    Fields(FieldsBody),
    Nested(NestedBody),
}

impl Inner {
    fn step(&mut self, held: &str, end: bool, calls: &mut Calls) -> (Read, bool) {
        match self {
            Inner::Forms(body) => {
                let read = body.step(held, end, calls);
                let done = read.is_done();
                (read, done)
            }
            Inner::Fields(body) => one(body.step(held, end, calls)),
            Inner::Nested(body) => one(body.step(held, end, calls)),
        }
    }
}

/// What came of a body of one call: with the call it is done.
fn one(read: Read) -> (Read, bool) {
    let done = matches!(read, Read::Call(_));
    (read, done)
}

#[derive(Debug, Clone)]
enum State {
    /// Nothing was seen.
    Start,
    /// Looking for a tag.
    Text,
    /// Behind a tag; or, where `bare`, at the start and behind none.
    Body { inner: Inner, bare: bool },
    /// Behind a body, with the closing tags from this number on to come.
    After(usize),
}

/// Finds tags and reads what is behind them.
#[derive(Debug, Clone)]
pub(super) struct Tagged {
    row: &'static Row,
    /// Tags before calls, then those around them.
    tags: Vec<&'static str>,
    state: State,
    /// White space goes at once: too much of it has come to be held.
    spaced: bool,
    /// Nothing but white space came since the last call.
    after_call: bool,
}

impl Tagged {
    pub(super) fn new(row: &'static Row) -> Tagged {
        let tags = row.open.iter().chain(row.around).copied().collect();
        Tagged { row, tags, state: State::Start, spaced: false, after_call: false }
    }

    /// Whether a call is under way that a tag marks.
    pub(super) fn in_call(&self) -> bool {
        matches!(self.state, State::Body { bare: false, .. })
    }

    /// The tags that may follow a call, directly behind one.
    pub(super) fn awaits_close(&self) -> Option<&[&'static str]> {
        if let State::After(next) = self.state { Some(&self.row.close[next..]) } else { None }
    }

    pub(super) fn tags(&self) -> &[&'static str] {
        &self.tags
    }

    fn inner(&self, from: usize) -> Inner {
        let row = self.row;
        match &row.kind {
            Kind::Forms(forms) => {
                let close = row.close.first().copied().filter(|c| c.starts_with('<'));
                Inner::Forms(Body::new(*forms, close, from))
            }
            Kind::Fields(fields) | Kind::Channels(Some((_, fields))) => Inner::Fields(FieldsBody::new(fields, from)),
            Kind::Nested(nested, end) => Inner::Nested(NestedBody::new(nested, end, from)),
            Kind::Channels(None) => Inner::Forms(Body::new(super::table::OBJECTS, None, from)),
        }
    }

    /// What is to come is text.
    pub(super) fn reset(&mut self) {
        self.state = State::Text;
        (self.spaced, self.after_call) = (true, false);
    }

    pub(super) fn step(&mut self, seen: &str, end: bool, calls: &mut Calls) -> Step {
        loop {
            match &mut self.state {
                State::Start => {
                    // The prompt may have ended within what leads to a text.
                    match self.row.lead.map_or(Starts::No, |lead| scan::starts(seen, lead)) {
                        Starts::Perhaps if !end => return Step::More,
                        Starts::Yes => {
                            self.state = State::Text;
                            return Step::Skip(self.row.lead.map_or(0, str::len));
                        }
                        _ => {}
                    }
                    self.state = match self.row.bare {
                        Some(forms) => State::Body { inner: Inner::Forms(Body::new(forms, None, 0)), bare: true },
                        None => State::Text,
                    };
                }
                State::Text => match self.text(seen, end) {
                    Some(step) => return step,
                    None => continue,
                },
                State::Body { inner, .. } => {
                    let (read, done) = inner.step(seen, end, calls);
                    let step = read.step();
                    match step {
                        Step::Broken(_) => self.reset(),
                        Step::Skip(_) if done => self.state = State::After(0),
                        _ => {}
                    }
                    return step;
                }
                State::After(next) => match after(self.row.close, next, seen, end) {
                    Some(step) => return step,
                    None => {
                        self.state = State::Text;
                        (self.spaced, self.after_call) = (false, true);
                    }
                },
            }
        }
    }

    /// Text up to the next tag; `None` where a body begins.
    fn text(&mut self, seen: &str, end: bool) -> Option<Step> {
        let found = scan::find(seen, &self.tags);
        let (to, tag) = match found {
            Find::At(at, i) => (at, Some(i)),
            Find::Perhaps(at) if !end => (at, None),
            _ => (seen.len(), None),
        };
        let words = seen[..to].trim_end().len();
        self.spaced &= words == 0;
        let all = self.spaced || to - words > MAX_SPACE || (end && tag.is_none() && (words > 0 || !self.after_call));
        let certain = if all { to } else { words };
        if certain > 0 {
            self.spaced |= to - words > MAX_SPACE;
            self.after_call = false;
            return Some(Step::Text(certain));
        }
        match tag {
            Some(i) if i < self.row.open.len() => {
                self.state = State::Body { inner: self.inner(to + self.tags[i].len()), bare: false };
                None
            }
            // Markup around calls says nothing.
            Some(i) => {
                (self.spaced, self.after_call) = (false, true);
                Some(Step::Skip(to + self.tags[i].len()))
            }
            None if end => Some(Step::Skip(seen.len())),
            None => Some(Step::More),
        }
    }
}

/// Drops closing tags and the white space before them; `None` when there are no more.
fn after(close: &[&str], next: &mut usize, seen: &str, end: bool) -> Option<Step> {
    let space = scan::space(seen);
    if space > MAX_SPACE {
        return None;
    }
    for (i, tag) in close.iter().enumerate().skip(*next) {
        match scan::starts(&seen[space..], tag) {
            Starts::Yes => {
                *next = i + 1;
                return Some(Step::Skip(space + tag.len()));
            }
            Starts::Perhaps if !end => return Some(Step::More),
            _ => {}
        }
    }
    None
}
