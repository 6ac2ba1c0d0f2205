//! [`Choice`]: one completion under way. It reads what came token by token, so that nothing but the size of its deltas
//! depends on how many tokens came at once.

use ir_engine::run::{AnswerReader, FinishReason};

use super::job::{Delta, Part};
use crate::engine::output_queue::{Batch, End};

/// One completion.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    pub(crate) reader: AnswerReader,
    /// The tokens so far.
    pub(crate) ids: Vec<u32>,
    /// Tokens of the reasoning, the one that ends it included.
    pub(crate) thinking_tokens: usize,
    pub(crate) ended: bool,
}

impl Choice {
    pub(crate) fn new(reader: AnswerReader) -> Choice {
        Choice { reader, ..Choice::default() }
    }

    /// What a batch adds: deltas of text, of reasoning or of calls. Log-probabilities go with their token, in a delta of its
    /// own; a token that ends the reasoning and begins the answer has them in its last delta.
    pub(crate) fn read(&mut self, batch: &mut Batch) -> Vec<Delta> {
        let mut deltas = Vec::new();
        let mut delta = Delta::default();
        let mut logprobs = std::mem::take(&mut batch.logprobs).into_iter();
        let mut begin = 0;
        for (id, end) in std::mem::take(&mut batch.tokens) {
            self.thinking_tokens += usize::from(self.reader.is_thinking());
            self.ids.push(id);
            let mut parts = Vec::new();
            self.reader.push(&batch.text[begin..end], &mut parts);
            begin = end;
            add(parts, &mut delta, &mut deltas);
            if let Some(logprobs) = logprobs.next() {
                delta.logprobs.push(logprobs);
                deltas.push(std::mem::take(&mut delta));
            }
        }
        if let Some(end) = &batch.end {
            let mut parts = Vec::new();
            match end {
                End::Done(FinishReason::Length, _) => self.reader.cut(&mut parts),
                _ => self.reader.finish(&mut parts),
            }
            add(parts, &mut delta, &mut deltas);
        }
        if !delta.parts.is_empty() {
            deltas.push(delta);
        }
        deltas
    }
}

/// Adds parts to the delta under way; one of another kind begins a new delta.
fn add(parts: Vec<Part>, delta: &mut Delta, deltas: &mut Vec<Delta>) {
    for part in parts {
        match (delta.parts.last_mut(), part) {
            (Some(Part::Text(text)), Part::Text(more)) | (Some(Part::Thinking(text)), Part::Thinking(more)) => {
                text.push_str(&more);
            }
            (Some(Part::CallArguments { index, fragment }), Part::CallArguments { index: other, fragment: more })
                if *index == other =>
            {
                fragment.push_str(&more)
            }
            (last, part) => {
                if last.is_some_and(|last| kind(last) != kind(&part)) {
                    deltas.push(std::mem::take(delta));
                }
                delta.parts.push(part);
            }
        }
    }
}

/// Text, reasoning or a call.
fn kind(part: &Part) -> u8 {
    match part {
        Part::Text(_) => 0,
        Part::Thinking(_) => 1,
        Part::CallStart { .. } | Part::CallArguments { .. } | Part::CallEnd { .. } | Part::CallBroken { .. } => 2,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use crate::engine::output_queue::OutputQueue;
    use crate::generate::job::{Collector, Done, Reason, Usage};
    use ir_engine::run::{Logprob, Logprobs};
    use ir_engine::text::chat::{ThinkSplitter, ThinkTags};
    use ir_engine::text::tools::{ToolFormat, ToolParser};

    /// An answer that reasons, calls and talks; the tags' tokens are joined with their neighbours or cut in two.
    const TOKENS: [&str; 17] = [
        "<thi",
        "nk>",
        "hm",
        ", a",
        "",
        " b",
        " </think>Let",
        " me",
        " see.",
        "<tool_call>",
        "{\"name\": \"add\",",
        " \"arguments\": {\"a\"",
        ": 1}",
        "}</tool_call>",
        "<tool_call>",
        "nonsense",
        "</tool_call> Done",
    ];

    fn logprobs(id: u32) -> Box<Logprobs> {
        Box::new(Logprobs { chosen: Logprob { id, logprob: -1.0, bytes: Vec::new() }, top: Vec::new() })
    }

    /// What a completion says that comes in batches of so many tokens each: its deltas, and its counts.
    async fn read(size: usize, with_logprobs: bool) -> (Vec<Delta>, Choice) {
        let splitter = ThinkTags::of_template("<think></think>").map(|tags| ThinkSplitter::new(tags, false));
        let tools = ToolParser::new(ToolFormat::Hermes, &["add"], 1);
        let mut choice = Choice::new(AnswerReader::new(splitter, Some(tools), false));
        let output_queue = OutputQueue::new(1);
        let mut deltas = Vec::new();
        for (i, tokens) in TOKENS.chunks(size).enumerate() {
            for (k, text) in tokens.iter().enumerate() {
                let id = (i * size + k) as u32;
                assert!(output_queue.token(0, id, text, with_logprobs.then(|| logprobs(id))));
            }
            if (i + 1) * size >= TOKENS.len() {
                output_queue.end(0, End::Done(FinishReason::Stop(None), Default::default()));
            }
            deltas.extend(choice.read(&mut output_queue.take().await.1));
        }
        (deltas, choice)
    }

    /// The parts of all deltas in their order, neighbours of one kind joined.
    fn parts(deltas: &[Delta]) -> Vec<Part> {
        let (mut joined, mut rest) = (Delta::default(), Vec::new());
        add(deltas.iter().flat_map(|d| d.parts.clone()).collect(), &mut joined, &mut rest);
        rest.into_iter().chain([joined]).flat_map(|d| d.parts).collect()
    }

    #[tokio::test]
    async fn one_letter_says_what_many_say() {
        let (single, alone) = read(1, false).await;
        assert_eq!((alone.thinking_tokens, alone.reader.n_calls(), alone.ids.len()), (5, 1, TOKENS.len()));
        for size in [2, 3, 7, TOKENS.len()] {
            let (deltas, choice) = read(size, false).await;
            assert_eq!(parts(&deltas), parts(&single), "by {size}");
            let counts = |c: &Choice| (c.thinking_tokens, c.reader.n_calls(), c.ids.clone());
            assert_eq!(counts(&choice), counts(&alone), "by {size}");
            assert!(deltas.iter().all(|d| d.parts.iter().all(|p| kind(p) == kind(&d.parts[0]))), "{deltas:?}");
        }
        let collected = single.into_iter().fold(Collector::default(), |mut all, delta| {
            all.push(delta);
            all
        });
        let end = Done { reason: Reason::Stop, stop_string: None, usage: Usage::default(), tokens: Vec::new() };
        let answer = collected.finish(end);
        assert_eq!((answer.thinking.as_str(), answer.calls.len()), ("hm, a b", 1));
        assert!(answer.text.starts_with("Let me see.") && answer.text.ends_with(" Done"), "{}", answer.text);
    }

    /// With log-probabilities the deltas themselves are the same: each token has its own.
    #[tokio::test]
    async fn log_probabilities_stay_with_their_tokens() {
        let shown = |deltas: &[Delta]| {
            let one = |d: &Delta| (d.parts.clone(), d.logprobs.iter().map(|l| l.chosen.id).collect::<Vec<_>>());
            deltas.iter().map(one).collect::<Vec<_>>()
        };
        let (single, _) = read(1, true).await;
        let ids: Vec<u32> = shown(&single).into_iter().flat_map(|(_, ids)| ids).collect();
        assert_eq!(ids, (0..TOKENS.len() as u32).collect::<Vec<_>>());
        for size in [2, 5, TOKENS.len()] {
            assert_eq!(shown(&read(size, true).await.0), shown(&single), "by {size}");
        }
    }
}
