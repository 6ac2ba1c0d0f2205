//! Reasoning: the tags that mark it, and [`ThinkSplitter`], which parts a stream into thinking and answer.

/// The texts around a model's reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThinkTags {
    /// What opens it.
    pub open: &'static str,
    /// What closes it.
    pub close: &'static str,
}

/// Tags of known families; a template that names a pair uses it.
const KNOWN: [ThinkTags; 7] = [
    ThinkTags { open: "<think>", close: "</think>" },
    ThinkTags { open: "[THINK]", close: "[/THINK]" },
    ThinkTags { open: "<seed:think>", close: "</seed:think>" },
    ThinkTags { open: "<|START_THINKING|>", close: "<|END_THINKING|>" },
    ThinkTags { open: "<mm:think>", close: "</mm:think>" },
    ThinkTags { open: "<|channel>thought", close: "<channel|>" },
    ThinkTags { open: "<|open|>think<|sep|>", close: "<|close|>think<|sep|>" },
];

impl ThinkTags {
    /// The pair that a template's source names, if any. The closing tag alone counts too (DeepSeek's templates
    /// only cut at it).
    pub fn of_template(source: &str) -> Option<ThinkTags> {
        KNOWN.into_iter().find(|t| source.contains(t.close) || source.contains(t.open))
    }

    /// Whether a prompt ends inside the reasoning, so that the model's first words belong to it.
    pub fn open_at_end(&self, prompt: &str) -> bool {
        prompt.trim_end().ends_with(self.open)
    }
}

/// What a stream's new text adds to each side. Either may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Split {
    /// New text of the reasoning, without tags.
    pub thinking: String,
    /// New text of the answer.
    pub answer: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Nothing but whitespace was seen: an opening tag may follow.
    Start,
    /// Within the tags.
    Thinking,
    /// Behind the closing tag, before the answer's first visible character.
    Gap,
    /// The answer. Tags in it are plain text.
    Answer,
}

/// Parts streamed text into reasoning and answer. Reasoning is recognised at the start only; whitespace around the
/// tags is dropped. Tags may be split over pieces: at most a tag's length and trailing whitespace are held back.
#[derive(Debug, Clone)]
pub struct ThinkSplitter {
    tags: ThinkTags,
    part: Part,
    /// Seen, but not yet known to be tag, whitespace before a tag, or text.
    held: String,
    /// Whether the reasoning has shown a visible character.
    begun: bool,
}

impl ThinkSplitter {
    /// A splitter for one answer; `inside` where the prompt ended within the reasoning
    /// ([`Rendered::thinking`](super::Rendered::thinking)).
    pub fn new(tags: ThinkTags, inside: bool) -> ThinkSplitter {
        ThinkSplitter {
            tags,
            part: if inside { Part::Thinking } else { Part::Start },
            held: String::new(),
            begun: false,
        }
    }

    /// Whether the text so far ends inside the reasoning.
    pub fn is_thinking(&self) -> bool {
        self.part == Part::Thinking
    }

    /// Takes the stream's next text and returns what became certain.
    pub fn push(&mut self, text: &str) -> Split {
        let mut out = Split::default();
        self.held.push_str(text);
        while self.step(&mut out) {}
        out
    }

    /// Ends the stream: what was held back belongs to the part it is in.
    pub fn finish(&mut self) -> Split {
        let held = std::mem::take(&mut self.held);
        match self.part {
            Part::Start | Part::Answer => Split { answer: held, ..Split::default() },
            Part::Thinking => Split { thinking: held.trim_end().to_owned(), ..Split::default() },
            Part::Gap => Split::default(),
        }
    }

    /// Moves on by one part; `false` when more text is needed.
    fn step(&mut self, out: &mut Split) -> bool {
        match self.part {
            Part::Answer => {
                out.answer.push_str(&std::mem::take(&mut self.held));
                false
            }
            Part::Gap => {
                self.drop_leading_space();
                if !self.held.is_empty() {
                    self.part = Part::Answer;
                }
                !self.held.is_empty()
            }
            Part::Start => {
                let seen = self.held.trim_start();
                if let Some(rest) = seen.strip_prefix(self.tags.open) {
                    self.held = rest.to_owned();
                    self.part = Part::Thinking;
                    return true;
                }
                if self.tags.open.starts_with(seen) {
                    return false;
                }
                self.part = Part::Answer;
                true
            }
            Part::Thinking => self.think(out),
        }
    }

    fn think(&mut self, out: &mut Split) -> bool {
        if !self.begun {
            self.drop_leading_space();
            // A model may repeat the tag that the prompt already opened.
            if let Some(rest) = self.held.strip_prefix(self.tags.open) {
                self.held = rest.to_owned();
                return true;
            }
            if self.tags.open.starts_with(self.held.as_str()) {
                return false;
            }
        }
        if let Some(at) = self.held.find(self.tags.close) {
            out.thinking.push_str(self.held[..at].trim_end());
            self.held.drain(..at + self.tags.close.len());
            self.part = Part::Gap;
            return true;
        }
        let certain = self.held.len() - partial_suffix(&self.held, self.tags.close);
        let certain = self.held[..certain].trim_end().len();
        self.begun |= certain > 0;
        out.thinking.extend(self.held.drain(..certain));
        false
    }

    fn drop_leading_space(&mut self) {
        let space = self.held.len() - self.held.trim_start().len();
        self.held.drain(..space);
    }
}

/// Bytes at the end of `text` that may be the start of `tag`.
fn partial_suffix(text: &str, tag: &str) -> usize {
    (1..tag.len().min(text.len() + 1)).rev().find(|n| text.as_bytes().ends_with(&tag.as_bytes()[..*n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAGS: ThinkTags = KNOWN[0];

    /// Splits `text`, pushed in pieces of `size` characters.
    fn split(text: &str, size: usize, inside: bool) -> (String, String) {
        let mut splitter = ThinkSplitter::new(TAGS, inside);
        let (mut thinking, mut answer) = (String::new(), String::new());
        let chars: Vec<char> = text.chars().collect();
        let pieces = chars.chunks(size).map(|c| splitter.push(&c.iter().collect::<String>())).collect::<Vec<_>>();
        for piece in pieces.into_iter().chain([splitter.finish()]) {
            thinking += &piece.thinking;
            answer += &piece.answer;
        }
        (thinking, answer)
    }

    #[test]
    fn pieces_of_any_size_split_alike() {
        let cases = [
            // text, starts inside, thinking, answer
            ("<think>\nhm, a\n\nb\n</think>\n\nYes.\n", false, "hm, a\n\nb", "Yes.\n"),
            ("\n <think>x</think>y", false, "x", "y"),
            ("hm < </ </thin </think> so", true, "hm < </ </thin", "so"),
            ("<think>\nagain</think>ok", true, "again", "ok"),
            ("Plain <think>no</think>", false, "", "Plain <think>no</think>"),
            ("  indented", false, "", "  indented"),
            ("<thin", false, "", "<thin"),
            ("<think>never closed \n", false, "never closed", ""),
            ("\n\n</think>\n\nempty", true, "", "empty"),
            ("<think></think>", false, "", ""),
            ("\u{e9}\u{1f600}</think>\u{e9} </think>", true, "\u{e9}\u{1f600}", "\u{e9} </think>"),
            ("", false, "", ""),
        ];
        for (text, inside, thinking, answer) in cases {
            for size in [1, 2, 3, 5, 8, 1000] {
                assert_eq!(split(text, size, inside), (thinking.into(), answer.into()), "{text:?} by {size}");
            }
        }
    }

    #[test]
    fn text_is_not_held_longer_than_needed() {
        let mut splitter = ThinkSplitter::new(TAGS, true);
        assert_eq!(splitter.push("one two").thinking, "one two");
        assert_eq!(splitter.push(" three </").thinking, " three");
        assert_eq!(splitter.push("b").thinking, " </b");
        assert_eq!(splitter.push("</think>A").answer, "A");
        assert_eq!(splitter.push("<think>").answer, "<think>");
    }
}
