//! Tool calls in a model's output: [`ToolFormat`] says how a model writes them, [`ToolParser`] reads them as they come.
//! How calls are laid out in a prompt is the chat template's matter.
//!
//! Formats are marked by special tokens that decoding hides as a rule (`[TOOL_CALLS]`, `<|python_tag|>`). The text that is
//! pushed must contain them: have the tokens of [`ToolFormat::token_ids`] written out.

mod body;
mod fields;
mod format;
mod harmony;
mod nested;
mod probe;
mod python;
mod scan;
pub(crate) mod table;
mod tagged;
#[cfg(test)]
mod tests;
mod values;

use serde_json::Value as Json;

use super::chat::ToolCall;
pub use format::ToolFormat;
use harmony::Harmony;
pub use python::is_name;
use tagged::Tagged;
#[cfg(feature = "constrain")]
pub(crate) use values::allows_text;

/// A call's text may be this long; a longer one is taken for plain text.
const MAX_CALL: usize = 1 << 20;

/// What new text of a model's output turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Text of the answer.
    Text(String),
    /// Text of the reasoning. Only formats that mark it within the same syntax yield it (gpt-oss); for others see
    /// [`ThinkSplitter`](super::chat::ThinkSplitter).
    Thinking(String),
    /// A call begins. Calls are numbered from 0.
    CallStart {
        /// The call's number.
        index: usize,
        /// What identifies it, as in [`ToolCall::id`].
        id: String,
        /// The tool's name, as the model wrote it: there may be no such tool.
        name: String,
    },
    /// A part of a call's arguments. All parts of a call together are the JSON text of an object.
    Arguments {
        /// The call's number.
        index: usize,
        /// The text's next part.
        fragment: String,
    },
    /// A call is complete.
    CallEnd {
        /// The call's number.
        index: usize,
        /// All of it; the arguments are an object with its keys in the order they were written.
        call: ToolCall,
    },
    /// A call that the answer's limit cut off.
    CallCut {
        /// The call's number.
        index: usize,
        /// As much of it as has come; what is not whole of the arguments is left out.
        call: ToolCall,
    },
    /// A call that had begun is malformed or was never finished: forget its other pieces.
    CallBroken {
        /// The call's number, which no other call has.
        index: usize,
        /// All that was written of it, markup included.
        text: String,
    },
}

/// Reads a model's output and tells calls from text. Tags and calls may be split over pieces in any way. What looks like
/// a call and is none comes back as text. White space beside calls is dropped.
///
/// Work is linear in the text, and at most one call's text (1 MiB) is held.
#[derive(Debug, Clone)]
pub struct ToolParser {
    grammar: Grammar,
    /// Text that has come and is not yet known to be anything.
    held: String,
    calls: Calls,
}

#[derive(Debug, Clone)]
enum Grammar {
    Tagged(Tagged),
    Harmony(Harmony),
}

/// What a grammar makes of the held text. Counts are bytes from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It takes more text to tell.
    More,
    /// So much is text of the answer.
    Text(usize),
    /// So much is text of the reasoning.
    Thinking(usize),
    /// So much is markup.
    Skip(usize),
    /// So much is a call that went wrong.
    Broken(usize),
}

impl ToolParser {
    /// A parser for one answer. `tools` are the names of the tools at hand: in formats without tags of their own
    /// (Llama's bare JSON, Python lists, Gemma's fences) only their calls are calls. Identifiers (`call_xxxxxxxx`) follow
    /// from `seed`, which should differ from answer to answer.
    pub fn new<S: AsRef<str>>(format: ToolFormat, tools: &[S], seed: u64) -> ToolParser {
        let tools: Vec<_> = tools.iter().map(|name| (name.as_ref().to_owned(), None)).collect();
        ToolParser::with_schemas(format, tools, seed)
    }

    /// The same for tools with the schemas of their arguments, for formats that write values as plain text: what they are is
    /// for the schema to say.
    pub fn with_schemas(format: ToolFormat, tools: Vec<(String, Option<Json>)>, seed: u64) -> ToolParser {
        let row = format.row();
        let grammar = match row.kind {
            table::Kind::Channels(fields) => Grammar::Harmony(Harmony::new(fields)),
            _ => Grammar::Tagged(Tagged::new(row)),
        };
        let calls = Calls { tools, seed, ..Calls::default() };
        ToolParser { grammar, held: String::new(), calls }
    }

    /// Takes the output's next text and returns what became certain.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        self.run(false);
        std::mem::take(&mut self.calls.out)
    }

    /// Ends the output: what was held is settled. A call that lacks its end comes back as text.
    pub fn finish(&mut self) -> Vec<Piece> {
        self.run(true);
        let rest = std::mem::take(&mut self.held);
        self.calls.broken(&rest);
        std::mem::take(&mut self.calls.out)
    }

    /// Ends an output that its limit has cut: a call that lacks its end is given as far as it has come, and markup that is
    /// not whole is dropped.
    pub fn cut(&mut self) -> Vec<Piece> {
        let begun = self.held.clone();
        let in_call = self.grammar.in_call() && !begun.is_empty();
        let mut last = self.clone();
        let pieces = last.finish();
        let is_whole = pieces.iter().any(|piece| matches!(piece, Piece::CallEnd { .. }));
        if !in_call || is_whole {
            // What may be the beginning of a tag is none of the answer.
            let tag = if is_whole { 0 } else { self.grammar.begun_tag(&begun) };
            self.held.truncate(begun.len() - tag);
            return self.finish();
        }
        self.held.clear();
        self.calls.cut();
        std::mem::take(&mut self.calls.out)
    }

    /// Calls that were completed so far or are under way.
    pub fn n_calls(&self) -> usize {
        self.calls.n_started
    }

    fn run(&mut self, end: bool) {
        let mut done = 0;
        while done < self.held.len() || end {
            let seen = &self.held[done..];
            let step = match &mut self.grammar {
                Grammar::Tagged(grammar) => grammar.step(seen, end, &mut self.calls),
                Grammar::Harmony(grammar) => grammar.step(seen, end, &mut self.calls),
            };
            let step = match step {
                Step::More if seen.len() > MAX_CALL => {
                    self.grammar.reset();
                    Step::Broken(seen.len())
                }
                other => other,
            };
            done += match step {
                Step::More => break,
                Step::Text(n) => {
                    self.calls.text(&seen[..n]);
                    n
                }
                Step::Thinking(n) => {
                    self.calls.thinking(&seen[..n]);
                    n
                }
                Step::Broken(n) => {
                    self.calls.broken(&seen[..n]);
                    n
                }
                Step::Skip(n) => n,
            };
            if end && done == self.held.len() {
                break;
            }
        }
        self.held.drain(..done);
    }
}

impl Grammar {
    /// Whether the held text is a call under way.
    fn in_call(&self) -> bool {
        match self {
            Grammar::Tagged(grammar) => grammar.in_call(),
            Grammar::Harmony(grammar) => grammar.in_call(),
        }
    }

    /// Bytes at the end of the held text that are the beginning of a tag; of a few, anything may be, but behind a call.
    fn begun_tag(&self, held: &str) -> usize {
        let (tags, least): (&[&str], usize) = match self {
            Grammar::Tagged(grammar) => match grammar.awaits_close() {
                Some(close) if close.iter().any(|tag| tag.starts_with(held.trim_start())) => return held.len(),
                Some(close) => (close, 1),
                None => (grammar.tags(), 4),
            },
            Grammar::Harmony(_) => (&harmony::TAGS, 1),
        };
        let most = tags.iter().map(|tag| tag.len()).max().unwrap_or(0).min(held.len());
        let begins =
            |n: &usize| tags.iter().any(|tag| tag.len() > *n && held.as_bytes().ends_with(&tag.as_bytes()[..*n]));
        (least..=most).rev().filter(|n| held.is_char_boundary(held.len() - n)).find(begins).unwrap_or(0)
    }

    fn reset(&mut self) {
        match self {
            Grammar::Tagged(grammar) => grammar.reset(),
            Grammar::Harmony(grammar) => grammar.reset(),
        }
    }
}

/// The pieces of a push, and the call under way.
#[derive(Debug, Clone, Default)]
struct Calls {
    out: Vec<Piece>,
    /// Names and schemas of the tools at hand.
    tools: Vec<(String, Option<Json>)>,
    seed: u64,
    n_started: usize,
    /// The call that has started: its number, identifier and name.
    open: Option<(usize, String, String)>,
    /// Its arguments as they were sent.
    arguments: String,
    /// Up to where the held text's arguments were sent.
    sent: usize,
}

impl Calls {
    /// Whether a tool of this name is at hand. Without a list every name is.
    fn knows(&self, name: &str) -> bool {
        self.tools.is_empty() || self.tools.iter().any(|(n, _)| n == name)
    }

    /// Whether a tool's name begins so.
    fn may_know(&self, begin: &str) -> bool {
        self.tools.is_empty() || self.tools.iter().any(|(n, _)| n.starts_with(begin))
    }

    /// The schema of a tool's arguments.
    fn schema(&self, name: &str) -> Option<&Json> {
        self.tools.iter().find(|(n, _)| n == name)?.1.as_ref()
    }

    fn text(&mut self, text: &str) {
        match self.out.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Text(last)) => last.push_str(text),
            _ => self.out.push(Piece::Text(text.to_owned())),
        }
    }

    fn thinking(&mut self, text: &str) {
        match self.out.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Thinking(last)) => last.push_str(text),
            _ => self.out.push(Piece::Thinking(text.to_owned())),
        }
    }

    /// Begins a call whose arguments stand in the held text from `arguments` on.
    fn start(&mut self, name: &str, arguments: usize) {
        let index = self.n_started;
        let id = call_id(self.seed, index);
        self.out.push(Piece::CallStart { index, id: id.clone(), name: name.to_owned() });
        self.n_started += 1;
        self.open = Some((index, id, name.to_owned()));
        self.arguments.clear();
        self.sent = arguments;
    }

    fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Sends the arguments in the held text up to `to`.
    fn send(&mut self, held: &str, to: usize) {
        let fragment = &held[self.sent..to];
        self.sent = to;
        self.more(fragment);
    }

    /// Sends more of the arguments.
    fn more(&mut self, fragment: &str) {
        let Some((index, ..)) = self.open else { return };
        self.arguments.push_str(fragment);
        match self.out.last_mut() {
            _ if fragment.is_empty() => {}
            Some(Piece::Arguments { fragment: last, .. }) => last.push_str(fragment),
            _ => self.out.push(Piece::Arguments { index, fragment: fragment.to_owned() }),
        }
    }

    /// Completes the call under way, or a whole one.
    fn end(&mut self, name: String, arguments: Json) {
        if self.open.is_none() {
            self.start(&name, 0);
            self.more(&arguments.to_string());
        }
        if let Some((index, id, _)) = self.open.take() {
            self.out.push(Piece::CallEnd { index, call: ToolCall { id: Some(id), name, arguments } });
        }
    }

    /// Ends the call under way where the answer was cut.
    fn cut(&mut self) {
        if let Some((index, id, name)) = self.open.take() {
            let arguments = scan::closed(&self.arguments);
            self.out.push(Piece::CallCut { index, call: ToolCall { id: Some(id), name, arguments } });
        }
    }

    /// Gives back the text of a call that is none.
    fn broken(&mut self, text: &str) {
        match self.open.take() {
            Some((index, ..)) => self.out.push(Piece::CallBroken { index, text: text.to_owned() }),
            None => self.text(text),
        }
    }
}

/// `call_` and eight letters or digits.
fn call_id(seed: u64, index: usize) -> String {
    // SplitMix64's output function.
    let mut bits = seed.wrapping_add((index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^= bits >> 31;
    let mut id = String::from("call_");
    for _ in 0..8 {
        id.push(char::from(b"0123456789abcdefghijklmnopqrstuvwxyz"[(bits % 36) as usize]));
        bits /= 36;
    }
    id
}
