//! [`Harmony`]: messages with a header that names a channel or a recipient (OpenAI's "harmony" response format, and one
//! without channels): reasoning, answers, calls.

use super::body::{Read, named};
use super::fields::{Fields, FieldsBody};
use super::scan::{self, Find, Starts, Value};
use super::{Calls, Step};

const START: &str = "<|start|>";
const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
/// What may stand in the text of a message: the first two begin a header, the others end the message.
pub(super) const TAGS: [&str; 7] = [START, CHANNEL, "<|end|>", "<|return|>", "<|call|>", "<|eom|>", "<|eot|>"];
/// A header is at most this long.
const MAX_HEADER: usize = 512;

/// Where the output is.
#[derive(Debug, Clone, Default)]
enum State {
    /// Nothing was seen: the prompt ends within a header.
    #[default]
    Start,
    /// In a message of reasoning.
    Thinking,
    /// In a message for the user, or between messages.
    Text,
    /// In a call's arguments, behind a header.
    Call(String, Value),
    /// In a call whose arguments stand in tags.
    Fields(FieldsBody),
    /// Behind a call's arguments.
    Called,
}

/// Reads channels.
#[derive(Debug, Clone, Default)]
pub(super) struct Harmony {
    state: State,
    /// How arguments are written where they are no object.
    fields: Option<&'static (&'static str, Fields)>,
}

impl Harmony {
    pub(super) fn new(fields: Option<&'static (&'static str, Fields)>) -> Harmony {
        Harmony { state: State::Start, fields }
    }

    /// Whether a call is under way.
    pub(super) fn in_call(&self) -> bool {
        matches!(self.state, State::Call(..) | State::Fields(_))
    }

    pub(super) fn reset(&mut self) {
        self.state = State::Text;
    }

    pub(super) fn step(&mut self, seen: &str, end: bool, calls: &mut Calls) -> Step {
        match &mut self.state {
            State::Start => {
                // A recipient may come before the channel: " to=functions.f<|channel|>commentary...".
                let at = scan::space(seen);
                match scan::starts(&seen[at..], "to=") {
                    Starts::Perhaps if !end && at <= 1 => return Step::More,
                    Starts::Yes if at <= 1 => return self.header(seen, at, end),
                    _ => self.state = State::Text,
                }
                self.step(seen, end, calls)
            }
            State::Call(name, value) => {
                let space = scan::space(&seen[value.start..]);
                let from = value.start + space;
                match seen[from..].chars().next() {
                    None if !end && space <= MAX_HEADER => Step::More,
                    Some('{') => {
                        if space > 0 {
                            *value = Value::new(from);
                        }
                        let read = named(name, value, seen, calls);
                        match read {
                            Read::Call(_) => self.state = State::Called,
                            Read::Broken(_) => self.state = State::Text,
                            _ => {}
                        }
                        read.step()
                    }
                    _ => {
                        let n = value.start;
                        self.state = State::Text;
                        Step::Broken(n)
                    }
                }
            }
            State::Fields(body) => {
                let read = body.step(seen, end, calls);
                match read {
                    Read::Call(_) => self.state = State::Called,
                    Read::Broken(_) => self.state = State::Text,
                    _ => {}
                }
                read.step()
            }
            State::Called if self.fields.is_some() => self.between(seen, end),
            State::Called => match scan::space(seen) {
                0 => {
                    self.state = State::Text;
                    self.step(seen, end, calls)
                }
                n => Step::Skip(n),
            },
            State::Thinking | State::Text => self.text(seen, end),
        }
    }

    /// Behind a call whose arguments stood in tags: another call of the message, or what closes it, which says nothing.
    fn between(&mut self, seen: &str, end: bool) -> Step {
        let Some((open, fields)) = self.fields else { return Step::Skip(0) };
        match scan::find(seen, &[open, START, CHANNEL, "<|end|>", "<|return|>", "<|call|>", "<|eom|>", "<|eot|>"]) {
            Find::At(0, 0) => {
                self.state = State::Fields(FieldsBody::new(fields, open.len()));
                Step::Skip(0)
            }
            Find::At(0, _) => {
                self.state = State::Text;
                self.text(seen, end)
            }
            Find::Perhaps(0) if !end => Step::More,
            Find::At(n, _) => Step::Skip(n),
            Find::Perhaps(n) if !end => Step::Skip(n),
            _ => Step::Skip(seen.len()),
        }
    }

    fn text(&mut self, seen: &str, end: bool) -> Step {
        match scan::find(seen, &TAGS) {
            Find::At(0, i) if TAGS[i] == START || TAGS[i] == CHANNEL => self.header(seen, TAGS[i].len(), end),
            Find::At(0, i) => {
                self.state = State::Text;
                Step::Skip(TAGS[i].len())
            }
            Find::Perhaps(0) if !end => Step::More,
            Find::At(n, _) => self.say(n),
            Find::Perhaps(n) if !end => self.say(n),
            _ => self.say(seen.len()),
        }
    }

    fn say(&self, n: usize) -> Step {
        if matches!(self.state, State::Thinking) { Step::Thinking(n) } else { Step::Text(n) }
    }

    /// Reads a header, whose first `tag` bytes are known; what cannot be one is text.
    fn header(&mut self, seen: &str, tag: usize, end: bool) -> Step {
        let window = seen.len().min(MAX_HEADER);
        let window = (0..=window).rev().find(|n| seen.is_char_boundary(*n)).unwrap_or(0);
        let header = match scan::find(&seen[..window], &[MESSAGE]) {
            Find::At(at, _) => &seen[..at],
            _ if end || window < seen.len() || seen.len() == MAX_HEADER => {
                self.state = State::Text;
                return Step::Text(tag);
            }
            _ => return Step::More,
        };
        let mut words = header.split([' ', '\n']).filter(|w| !w.is_empty());
        let recipient =
            words.find_map(|w| w.find("to=").map(|at| &w[at + 3..])).map(|to| to.split("<|").next().unwrap_or(to));
        let after = header.split(CHANNEL).nth(1).unwrap_or("");
        let channel = after.trim_start().split([' ', '\n', '<']).next().unwrap_or("");
        let behind = header.len() + MESSAGE.len();
        match (recipient, channel) {
            (Some("self"), "") => self.state = State::Thinking,
            (Some("user"), "") => self.state = State::Text,
            (Some(_), _) if self.fields.is_some() => return self.fields(seen, behind, end),
            (Some(to), _) if !to.is_empty() && !to.starts_with("assistant") => {
                let name = to.strip_prefix("functions.").unwrap_or(to);
                self.state = State::Call(name.to_owned(), Value::new(behind));
                return Step::Skip(0);
            }
            (_, "analysis") => self.state = State::Thinking,
            _ => self.state = State::Text,
        }
        Step::Skip(behind)
    }

    /// Finds the call in a message to a tool.
    fn fields(&mut self, seen: &str, behind: usize, end: bool) -> Step {
        let Some((open, fields)) = self.fields else { return Step::Skip(behind) };
        match scan::find(&seen[behind..], &[open, "<|eom|>", "<|eot|>"]) {
            Find::At(at, 0) => {
                self.state = State::Fields(FieldsBody::new(fields, behind + at + open.len()));
                Step::Skip(0)
            }
            Find::At(at, _) => {
                self.state = State::Text;
                Step::Broken(behind + at)
            }
            _ if end || seen.len() - behind > MAX_HEADER => {
                self.state = State::Text;
                Step::Broken(seen.len())
            }
            _ => Step::More,
        }
    }
}
