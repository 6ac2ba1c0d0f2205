//! Tool calls in a model's output: [`ToolFormat`] says how a model writes them, [`ToolParser`] reads them as they come.
//! How calls are laid out in a prompt is the chat template's matter.
//!
//! Formats are marked by special tokens that decoding hides as a rule (`[TOOL_CALLS]`, `<|python_tag|>`). The text that is
//! pushed must contain them: have the tokens of [`ToolFormat::token_ids`] written out.

mod body;
mod format;
mod harmony;
mod python;
mod scan;
mod tagged;
#[cfg(test)]
mod tests;

use serde_json::Value as Json;

use super::chat::ToolCall;
pub use format::ToolFormat;
use harmony::Harmony;
pub use python::is_name;
use tagged::Tagged;

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
        let names: Vec<String> = tools.iter().map(|n| n.as_ref().to_owned()).collect();
        let grammar = match format {
            ToolFormat::Harmony => Grammar::Harmony(Harmony::default()),
            other => Grammar::Tagged(Tagged::new(other)),
        };
        let calls = Calls { out: Vec::new(), names, seed, n_started: 0, open: None, sent: 0 };
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
    fn reset(&mut self) {
        match self {
            Grammar::Tagged(grammar) => grammar.reset(),
            Grammar::Harmony(grammar) => grammar.reset(),
        }
    }
}

/// The pieces of a push, and the call under way.
#[derive(Debug, Clone)]
struct Calls {
    out: Vec<Piece>,
    names: Vec<String>,
    seed: u64,
    n_started: usize,
    /// The call that has started: its number and identifier.
    open: Option<(usize, String)>,
    /// Up to where the held text's arguments were sent.
    sent: usize,
}

impl Calls {
    /// Whether a tool of this name is at hand. Without a list every name is.
    fn knows(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|n| n == name)
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
        self.open = Some((index, id));
        self.sent = arguments;
    }

    fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Sends the arguments in the held text up to `to`.
    fn send(&mut self, held: &str, to: usize) {
        let Some((index, _)) = self.open else { return };
        let fragment = &held[self.sent..to];
        self.sent = to;
        self.fragment(index, fragment);
    }

    fn fragment(&mut self, index: usize, fragment: &str) {
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
            self.fragment(self.n_started - 1, &arguments.to_string());
        }
        if let Some((index, id)) = self.open.take() {
            self.out.push(Piece::CallEnd { index, call: ToolCall { id: Some(id), name, arguments } });
        }
    }

    /// Gives back the text of a call that is none.
    fn broken(&mut self, text: &str) {
        match self.open.take() {
            Some((index, _)) => self.out.push(Piece::CallBroken { index, text: text.to_owned() }),
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
