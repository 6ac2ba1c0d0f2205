//! [`Tagged`]: formats that mark calls by a tag before them, or write nothing but a call.

use super::body::{Body, Forms, Head, MAX_SPACE};
use super::scan::{self, Find, Starts};
use super::{Calls, Step, ToolFormat};

/// How a format's calls are marked.
#[derive(Debug)]
struct Marks {
    /// Tags before calls; the more telling first.
    open: &'static [&'static str],
    /// Tags behind them, in this order, each of which may be missing.
    close: &'static [&'static str],
    forms: Forms,
    /// An answer may begin with a call without a tag, of these forms.
    bare: Option<Forms>,
}

const OBJECTS: Forms = Forms { objects: true, python: false, head: None, known_only: false };
const EITHER: Forms = Forms { objects: true, python: true, head: None, known_only: true };

static HERMES: Marks = Marks { open: &["<tool_call>"], close: &["</tool_call>"], forms: OBJECTS, bare: None };

static LLAMA: Marks = Marks {
    open: &["<|python_tag|>", "<|python_start|>"],
    close: &["<|python_end|>"],
    forms: Forms { known_only: false, ..EITHER },
    bare: Some(EITHER),
};

static MISTRAL: Marks =
    Marks { open: &["[TOOL_CALLS]"], close: &[], forms: Forms { head: Some(Head::Mistral), ..OBJECTS }, bare: None };

static DEEPSEEK: Marks = Marks {
    open: &["<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>", "<｜tool▁call▁begin｜>"],
    close: &["```", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"],
    forms: Forms { objects: false, head: Some(Head::DeepSeek), ..OBJECTS },
    bare: None,
};

static GEMMA: Marks =
    Marks { open: &["```tool_code", "```tool_call", "```json"], close: &["```"], forms: EITHER, bare: Some(EITHER) };

#[derive(Debug, Clone)]
enum State {
    /// Nothing was seen.
    Start,
    /// Looking for a tag.
    Text,
    Body(Body),
    /// Behind a body, with the closing tags from this number on to come.
    After(usize),
}

/// Finds tags and reads what is behind them.
#[derive(Debug, Clone)]
pub(super) struct Tagged {
    marks: &'static Marks,
    state: State,
    /// White space goes at once: too much of it has come to be held.
    spaced: bool,
    /// Nothing but white space came since the last call.
    after_call: bool,
}

impl Tagged {
    pub(super) fn new(format: ToolFormat) -> Tagged {
        let marks = match format {
            ToolFormat::Llama3 | ToolFormat::Pythonic => &LLAMA,
            ToolFormat::Mistral | ToolFormat::MistralList => &MISTRAL,
            ToolFormat::DeepSeek | ToolFormat::DeepSeekFenced => &DEEPSEEK,
            ToolFormat::Gemma => &GEMMA,
            ToolFormat::Hermes | ToolFormat::Harmony => &HERMES,
        };
        Tagged { marks, state: State::Start, spaced: false, after_call: false }
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
                    self.state = match self.marks.bare {
                        Some(forms) => State::Body(Body::new(forms, None, 0)),
                        None => State::Text,
                    };
                }
                State::Text => match self.text(seen, end) {
                    Some(step) => return step,
                    None => continue,
                },
                State::Body(body) => {
                    let read = body.step(seen, end, calls);
                    let step = read.step();
                    match step {
                        Step::Broken(_) => self.reset(),
                        Step::Skip(_) if read.is_done() => self.state = State::After(0),
                        _ => {}
                    }
                    return step;
                }
                State::After(next) => match after(self.marks.close, next, seen, end) {
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
        let found = scan::find(seen, self.marks.open);
        let (to, tag) = match found {
            Find::At(at, i) => (at, Some(self.marks.open[i].len())),
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
            Some(len) => {
                let close = self.marks.close.first().copied().filter(|c| c.starts_with('<'));
                self.state = State::Body(Body::new(self.marks.forms, close, to + len));
                None
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
