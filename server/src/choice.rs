//! [`Choice`]: one completion under way. It reads what came token by token, so that nothing but the size of its deltas
//! depends on how many tokens came at once.

use crate::job::{Delta, Part};
use crate::mailbox::Letters;
use crate::prompt::Reader;

/// One completion.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    pub(crate) reader: Reader,
    /// The tokens so far.
    pub(crate) ids: Vec<u32>,
    /// Calls that are complete.
    pub(crate) n_calls: usize,
    /// Tokens of the reasoning, the one that ends it included.
    pub(crate) thinking_tokens: usize,
    pub(crate) ended: bool,
}

impl Choice {
    pub(crate) fn new(reader: Reader) -> Choice {
        Choice { reader, ..Choice::default() }
    }

    /// What letters add: deltas of text, of reasoning or of calls. Log-probabilities go with their token, in a delta of its
    /// own; a token that ends the reasoning and begins the answer has them in its last delta.
    pub(crate) fn read(&mut self, letters: &mut Letters) -> Vec<Delta> {
        let mut deltas = Vec::new();
        let mut delta = Delta::default();
        let mut logprobs = std::mem::take(&mut letters.logprobs).into_iter();
        let mut begin = 0;
        for (id, end) in std::mem::take(&mut letters.tokens) {
            self.thinking_tokens += usize::from(self.reader.is_thinking());
            self.ids.push(id);
            let mut parts = Vec::new();
            self.reader.push(&letters.text[begin..end], &mut parts);
            begin = end;
            self.add(parts, &mut delta, &mut deltas);
            if let Some(logprobs) = logprobs.next() {
                delta.logprobs.push(logprobs);
                deltas.push(std::mem::take(&mut delta));
            }
        }
        if letters.end.is_some() {
            let mut parts = Vec::new();
            self.reader.finish(&mut parts);
            self.add(parts, &mut delta, &mut deltas);
        }
        if !delta.parts.is_empty() {
            deltas.push(delta);
        }
        deltas
    }

    /// Adds parts to the delta under way; one of another kind begins a new delta.
    fn add(&mut self, parts: Vec<Part>, delta: &mut Delta, deltas: &mut Vec<Delta>) {
        for part in parts {
            self.n_calls += usize::from(matches!(part, Part::CallEnd { .. }));
            match (delta.parts.last_mut(), part) {
                (Some(Part::Text(text)), Part::Text(more)) | (Some(Part::Thinking(text)), Part::Thinking(more)) => {
                    text.push_str(&more);
                }
                (
                    Some(Part::CallArguments { index, fragment }),
                    Part::CallArguments { index: other, fragment: more },
                ) if *index == other => fragment.push_str(&more),
                (last, part) => {
                    if last.is_some_and(|last| kind(last) != kind(&part)) {
                        deltas.push(std::mem::take(delta));
                    }
                    delta.parts.push(part);
                }
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
    use crate::job::{Collector, Done, Reason, Usage};
    use crate::mailbox::{End, Mailbox};
    use ir_engine::run::{Finish, Logprob, Logprobs};

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

    /// What a completion says that comes in letters of so many tokens each: its deltas, and its counts.
    async fn read(size: usize, with_logprobs: bool) -> (Vec<Delta>, Choice) {
        let mut choice = Choice::new(Reader::for_tests("add"));
        let mailbox = Mailbox::new(1);
        let mut deltas = Vec::new();
        for (i, tokens) in TOKENS.chunks(size).enumerate() {
            for (k, text) in tokens.iter().enumerate() {
                let id = (i * size + k) as u32;
                assert!(mailbox.token(0, id, text, with_logprobs.then(|| logprobs(id))));
            }
            if (i + 1) * size >= TOKENS.len() {
                mailbox.end(0, End::Done(Finish::Stop, Default::default()));
            }
            deltas.extend(choice.read(&mut mailbox.take().await.1));
        }
        (deltas, choice)
    }

    /// The parts of all deltas in their order, neighbours of one kind joined.
    fn parts(deltas: &[Delta]) -> Vec<Part> {
        let (mut joined, mut rest) = (Delta::default(), Vec::new());
        Choice::default().add(deltas.iter().flat_map(|d| d.parts.clone()).collect(), &mut joined, &mut rest);
        rest.into_iter().chain([joined]).flat_map(|d| d.parts).collect()
    }

    #[tokio::test]
    async fn one_letter_says_what_many_say() {
        let (single, alone) = read(1, false).await;
        assert_eq!((alone.thinking_tokens, alone.n_calls, alone.ids.len()), (5, 1, TOKENS.len()));
        for size in [2, 3, 7, TOKENS.len()] {
            let (deltas, choice) = read(size, false).await;
            assert_eq!(parts(&deltas), parts(&single), "by {size}");
            let counts = |c: &Choice| (c.thinking_tokens, c.n_calls, c.ids.clone());
            assert_eq!(counts(&choice), counts(&alone), "by {size}");
            assert!(deltas.iter().all(|d| d.parts.iter().all(|p| kind(p) == kind(&d.parts[0]))), "{deltas:?}");
        }
        let collected = single.into_iter().fold(Collector::default(), |mut all, delta| {
            all.push(delta);
            all
        });
        let end = Done { reason: Reason::Stop, usage: Usage::default(), tokens: Vec::new() };
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
