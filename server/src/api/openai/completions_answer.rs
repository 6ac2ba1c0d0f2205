//! The answers of `/v1/completions`: whole, and as chunks of a stream.

use std::collections::HashMap;
use std::time::SystemTime;

use ir_engine::run::Logprobs;
use serde::Serialize;
use utoipa::ToSchema;

use super::FINGERPRINT;
use super::usage::{Timings, Usage, finish_reason};
use crate::api::common::openai_error::openai_error;
use crate::api::common::stream::{EventEncoder, Frames, answers};
use crate::api::common::util::{finite, new_id, token_text, unix_seconds};
use crate::engine::error::ApiError;
use crate::generate::job::{Answer, Delta, Done, Part};
use crate::generate::running::Running;

/// What every chunk of an answer repeats, and what the completions begin with.
#[derive(Debug, Clone)]
pub(super) struct TextHead {
    id: String,
    created: u64,
    model: String,
    /// Completions of each prompt.
    n: usize,
    /// Per completion: its prompt, where that is wanted.
    echoes: Vec<String>,
}

impl TextHead {
    /// Of a new answer.
    pub(super) fn new(model: &str, created: SystemTime, n: usize, echoes: Vec<String>) -> TextHead {
        TextHead { id: new_id("cmpl-"), created: unix_seconds(created), model: model.to_owned(), n, echoes }
    }

    fn completion(&self, choices: Vec<TextChoice>) -> TextCompletion {
        TextCompletion {
            id: self.id.clone(),
            object: "text_completion",
            created: self.created,
            model: self.model.clone(),
            system_fingerprint: FINGERPRINT,
            choices,
            usage: None,
            timings: None,
        }
    }
}

/// A whole answer, or a chunk of one.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TextCompletion {
    id: String,
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    model: String,
    system_fingerprint: &'static str,
    choices: Vec<TextChoice>,
    /// In a stream only where `include_usage` is set: null but in the last chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
    /// Of the first choice; in a stream in the last chunk of a choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
}

/// One of the completions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TextChoice {
    index: usize,
    text: String,
    #[schema(required = true)]
    logprobs: Option<TextLogprobs>,
    /// `stop` or `length`.
    #[schema(required = true)]
    finish_reason: Option<&'static str>,
}

/// Log-probabilities, token by token.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct TextLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    /// The most likely tokens; two with the same text are one.
    top_logprobs: Vec<HashMap<String, f32>>,
    /// Where each token begins, in characters from the completion's start.
    text_offset: Vec<usize>,
}

/// Log-probabilities of tokens that begin at a character; gives the character where they end.
fn logprobs(all: &[Logprobs], mut at: usize) -> (Option<TextLogprobs>, usize) {
    if all.is_empty() {
        return (None, at);
    }
    let mut out = TextLogprobs::default();
    for one in all {
        let text = token_text(&one.chosen);
        out.text_offset.push(at);
        at += text.chars().count();
        out.tokens.push(text);
        out.token_logprobs.push(finite(one.chosen.logprob));
        // Most likely first: of two with one text the likelier stays.
        let top = one.top.iter().rev().map(|l| (token_text(l), finite(l.logprob)));
        out.top_logprobs.push(top.collect());
    }
    (Some(out), at)
}

fn text_of(parts: Vec<Part>) -> String {
    parts.into_iter().filter_map(|p| if let Part::Text(text) = p { Some(text) } else { None }).collect()
}

impl TextCompletion {
    /// Answers to all prompts, prompt by prompt.
    pub(super) fn new(head: &TextHead, answers: &[Answer]) -> TextCompletion {
        let mut usage = Usage::default();
        let mut choices = Vec::with_capacity(answers.len());
        for (index, answer) in answers.iter().enumerate() {
            usage.add(&answer.done.usage, index.is_multiple_of(head.n));
            let echo = head.echoes.get(index).map_or("", String::as_str);
            choices.push(TextChoice {
                index,
                text: format!("{echo}{}", answer.text),
                logprobs: logprobs(&answer.logprobs, 0).0,
                finish_reason: Some(finish_reason(answer.done.reason)),
            });
        }
        let timings = answers.first().map(|a| Timings::new(&a.done.usage));
        TextCompletion { usage: Some(Some(usage)), timings, ..head.completion(choices) }
    }
}

/// Writes the chunks of completions.
#[derive(Debug)]
pub(super) struct TextEncoder {
    head: TextHead,
    counts: bool,
    usage: Usage,
    /// Per completion: characters so far.
    lengths: Vec<usize>,
}

impl TextEncoder {
    /// `counts` ends the stream with the usage.
    pub(super) fn new(head: TextHead, counts: bool) -> TextEncoder {
        TextEncoder { lengths: vec![0; head.echoes.len()], usage: Usage::default(), counts, head }
    }

    fn chunk(&self, choices: Vec<TextChoice>) -> TextCompletion {
        TextCompletion { usage: self.counts.then_some(None), ..self.head.completion(choices) }
    }
}

impl EventEncoder for TextEncoder {
    type Whole = TextCompletion;

    async fn whole(self, running: Vec<Running>) -> Result<TextCompletion, ApiError> {
        Ok(TextCompletion::new(&self.head, &answers(running).await?))
    }

    fn begin(&mut self, out: &mut Frames) {
        for (index, text) in self.head.echoes.iter().enumerate().filter(|(_, t)| !t.is_empty()) {
            let echo = TextChoice { index, text: text.clone(), logprobs: None, finish_reason: None };
            out.data(&self.chunk(vec![echo]));
        }
    }

    fn delta(&mut self, choice: usize, delta: Delta, out: &mut Frames) {
        let at = self.lengths.get_mut(choice);
        let (logprobs, end) = logprobs(&delta.logprobs, at.as_deref().copied().unwrap_or(0));
        if let Some(at) = at {
            *at = end;
        }
        let text = text_of(delta.parts);
        if !text.is_empty() || logprobs.is_some() {
            out.data(&self.chunk(vec![TextChoice { index: choice, text, logprobs, finish_reason: None }]));
        }
    }

    fn done(&mut self, choice: usize, done: Done, out: &mut Frames) {
        self.usage.add(&done.usage, choice.is_multiple_of(self.head.n));
        let finish_reason = Some(finish_reason(done.reason));
        let last = TextChoice { index: choice, text: String::new(), logprobs: None, finish_reason };
        out.data(&TextCompletion { timings: Some(Timings::new(&done.usage)), ..self.chunk(vec![last]) });
    }

    fn end(&mut self, out: &mut Frames) {
        if self.counts {
            out.data(&TextCompletion { usage: Some(Some(self.usage)), ..self.chunk(Vec::new()) });
        }
        out.done();
    }

    fn failed(&mut self, error: &ApiError, out: &mut Frames) {
        out.data(&openai_error(error));
        out.done();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::common::stream::testing::{delta, done, encoded};
    use crate::generate::job::{Event, Reason};
    use ir_engine::run::Logprob;
    use serde_json::json;

    fn head(n: usize, echoes: &[&str]) -> TextHead {
        let echoes = echoes.iter().map(|e| (*e).to_owned()).collect();
        TextHead { id: "cmpl-x".into(), created: 5, model: "m".into(), n, echoes }
    }

    fn token(text: &str) -> Logprobs {
        let one = |text: &str, logprob| Logprob { id: 0, logprob, bytes: text.as_bytes().to_vec() };
        Logprobs { chosen: one(text, -1.0), top: vec![one("a", -0.5), one("a", -2.0)] }
    }

    #[test]
    fn chunks_of_two_prompts() {
        let events = vec![
            (1, delta(vec![Part::Text("x".into())])),
            (0, delta(vec![Part::Text("y".into())])),
            (0, done(Reason::Length, 1)),
            (1, done(Reason::Stop, 2)),
        ];
        let chunks = encoded(TextEncoder::new(head(1, &["p0", ""]), true), events);
        let shown: Vec<_> = chunks[..5]
            .iter()
            .map(|(_, c)| &c["choices"][0])
            .map(|c| (c["index"].as_u64(), c["text"].as_str(), c["finish_reason"].as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                (Some(0), Some("p0"), None),
                (Some(1), Some("x"), None),
                (Some(0), Some("y"), None),
                (Some(0), Some(""), Some("length")),
                (Some(1), Some(""), Some("stop"))
            ]
        );
        assert_eq!(chunks[5].1["usage"]["prompt_tokens"], 14);
        assert_eq!((chunks.len(), &chunks[6].1), (7, &json!("[DONE]")));
    }

    #[test]
    fn offsets_go_on_from_chunk_to_chunk() {
        let chunk =
            |text: &str| (0, Event::Delta(Delta { parts: vec![Part::Text(text.into())], logprobs: vec![token(text)] }));
        let chunks = encoded(TextEncoder::new(head(1, &[""]), false), vec![chunk("né"), chunk("e")]);
        let logprobs = &chunks[1].1["choices"][0]["logprobs"];
        assert_eq!(
            logprobs,
            &json!({"tokens": ["e"], "token_logprobs": [-1.0], "top_logprobs": [{"a": -0.5}], "text_offset": [2]})
        );
    }

    #[test]
    fn whole_answers_begin_with_their_prompt() {
        let Event::Done(end) = done(Reason::Stop, 2) else { unreachable!() };
        let answer = Answer {
            text: "b".into(),
            thinking: String::new(),
            calls: Vec::new(),
            logprobs: vec![token("b")],
            done: end,
        };
        let whole = TextCompletion::new(&head(2, &["a", "a"]), &[answer.clone(), answer]);
        let json = serde_json::to_value(whole).unwrap_or_default();
        assert_eq!((&json["choices"][1]["text"], &json["choices"][1]["index"]), (&json!("ab"), &json!(1)));
        assert_eq!((&json["usage"]["prompt_tokens"], &json["usage"]["completion_tokens"]), (&json!(7), &json!(4)));
    }
}
