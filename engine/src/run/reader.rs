//! [`AnswerReader`]: from an answer's text, as it comes, to its parts: reasoning, text and calls of tools.

use crate::text::chat::{ThinkSplitter, ToolCall};
use crate::text::tools::{Piece, ToolParser};

/// A part of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Text of the answer.
    Text(String),
    /// Text of the reasoning.
    Thinking(String),
    /// A tool call begins. Calls are numbered from 0.
    CallStart {
        /// The call's number.
        index: usize,
        /// `call_` and eight letters or digits.
        id: String,
        /// The tool.
        name: String,
    },
    /// The next part of a call's arguments. All parts together are the JSON text of an object.
    CallArguments {
        /// The call's number.
        index: usize,
        /// The text.
        fragment: String,
    },
    /// A call is complete, or the answer's limit has cut it: then it is the answer's last part.
    CallEnd {
        /// The call's number.
        index: usize,
        /// All of it, or what is whole of it; the arguments are an object with its keys in the order they were written.
        call: ToolCall,
    },
    /// A call that had begun is no call after all: forget its other parts. What was written follows as text.
    CallBroken {
        /// The call's number.
        index: usize,
    },
}

/// Tells reasoning, text and calls apart in one answer. [`ChatTurn::reader`](super::ChatTurn::reader) gives it.
#[derive(Debug, Clone, Default)]
pub struct AnswerReader {
    splitter: Option<ThinkSplitter>,
    tools: Option<ToolParser>,
    /// One call is the most: the model's others are passed over.
    one_call: bool,
    /// The call that there was.
    called: Option<usize>,
    n_calls: usize,
}

impl AnswerReader {
    /// A reader of an answer whose reasoning `splitter` parts and whose calls `tools` reads; `one_call`: one call is the
    /// most, and the model's others are passed over.
    pub fn new(splitter: Option<ThinkSplitter>, tools: Option<ToolParser>, one_call: bool) -> AnswerReader {
        AnswerReader { splitter, tools, one_call, ..AnswerReader::default() }
    }

    /// Takes new text, and adds what became certain to `parts`.
    pub fn push(&mut self, text: &str, parts: &mut Vec<Part>) {
        match &mut self.splitter {
            Some(splitter) => {
                let split = splitter.push(text);
                self.split(split.thinking, &split.answer, parts);
            }
            None => self.answer(text, parts),
        }
    }

    /// Ends a completion that its limit has cut: a call that is not whole is given as far as it came, and of markup that is
    /// not whole nothing is.
    pub fn cut(&mut self, parts: &mut Vec<Part>) {
        if let Some(split) = self.splitter.as_mut().map(ThinkSplitter::finish) {
            self.split(split.thinking, &split.answer, parts);
        }
        if let Some(tools) = &mut self.tools {
            let pieces = tools.cut();
            pieces.into_iter().for_each(|p| self.add(p, parts));
        }
    }

    /// Ends the completion.
    pub fn finish(&mut self, parts: &mut Vec<Part>) {
        if let Some(split) = self.splitter.as_mut().map(ThinkSplitter::finish) {
            self.split(split.thinking, &split.answer, parts);
        }
        if let Some(tools) = &mut self.tools {
            let pieces = tools.finish();
            pieces.into_iter().for_each(|p| self.add(p, parts));
        }
    }

    /// Whether the text so far ends inside the reasoning.
    pub fn is_thinking(&self) -> bool {
        self.splitter.as_ref().is_some_and(ThinkSplitter::is_thinking)
    }

    fn split(&mut self, thinking: String, answer: &str, parts: &mut Vec<Part>) {
        if !thinking.is_empty() {
            parts.push(Part::Thinking(thinking));
        }
        self.answer(answer, parts);
    }

    fn answer(&mut self, text: &str, parts: &mut Vec<Part>) {
        match &mut self.tools {
            _ if text.is_empty() => {}
            Some(tools) => {
                let pieces = tools.push(text);
                pieces.into_iter().for_each(|p| self.add(p, parts));
            }
            None => parts.push(Part::Text(text.to_owned())),
        }
    }

    fn add(&mut self, piece: Piece, parts: &mut Vec<Part>) {
        let one = self.called.filter(|_| self.one_call);
        let further = |index: usize| one.is_some_and(|called| called != index);
        let part = match piece {
            Piece::CallStart { index, .. }
            | Piece::Arguments { index, .. }
            | Piece::CallEnd { index, .. }
            | Piece::CallCut { index, .. }
                if further(index) =>
            {
                return;
            }
            Piece::Text(text) => Part::Text(text),
            Piece::Thinking(text) => Part::Thinking(text),
            Piece::CallStart { index, id, name } => Part::CallStart { index, id, name },
            Piece::Arguments { index, fragment } => Part::CallArguments { index, fragment },
            Piece::CallEnd { index, call } => {
                self.called.get_or_insert(index);
                self.n_calls += 1;
                Part::CallEnd { index, call }
            }
            Piece::CallCut { index, call } => Part::CallEnd { index, call },
            Piece::CallBroken { index, text } => {
                if !further(index) {
                    parts.push(Part::CallBroken { index });
                }
                Part::Text(text)
            }
        };
        parts.push(part);
    }

    /// Calls that are complete.
    pub fn n_calls(&self) -> usize {
        self.n_calls
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tools::ToolFormat;

    #[test]
    fn one_call_is_the_most_where_no_more_are_wanted() {
        let text = "<tool_call>{\"name\": \"a\", \"arguments\": {}}</tool_call>";
        let calls = |one_call: bool| {
            let tools = Some(ToolParser::new(ToolFormat::Hermes, &["a"], 1));
            let mut reader = AnswerReader::new(None, tools, one_call);
            let mut parts = Vec::new();
            reader.push(&text.repeat(3), &mut parts);
            reader.finish(&mut parts);
            let of = |index: usize| {
                parts.iter().filter(|p| matches!(p, Part::CallEnd { index: i, .. } if *i == index)).count()
            };
            (of(0), of(1), of(2), parts.iter().any(|p| matches!(p, Part::Text(t) if t.contains("tool_call"))))
        };
        assert_eq!(calls(false), (1, 1, 1, false));
        assert_eq!(calls(true), (1, 0, 0, false));
    }
}
