//! What comes back of a [`Job`](crate::generate::job::Job), as plain data: [`Output`]s of a [`crate::Running`], all of it at once
//! ([`Answer`]), and embeddings.

use std::time::Duration;

use ir_engine::text::chat::ToolCall;

use crate::engine::error::ApiError;
pub use crate::engine::usage::{Reason, Usage};
pub use ir_engine::run::Part;

/// Something that happened to one of a job's completions.
#[derive(Debug, Clone)]
pub struct Output {
    /// Which completion: 0 to `n - 1`.
    pub choice: usize,
    /// What.
    pub event: Event,
}

/// What happens to a completion: any number of deltas, then one end.
#[derive(Debug, Clone)]
pub enum Event {
    /// It grew.
    Delta(Delta),
    /// It is complete.
    Done(Done),
    /// It failed, was told to go by a shutdown, or ran out of time. Ends the other completions too.
    Failed(ApiError),
}

/// What was added since the last delta: one token's worth where the client keeps up or wants log-probabilities, more where
/// it lags.
#[derive(Debug, Clone, Default)]
pub struct Delta {
    /// Text, or reasoning, or parts of calls, in the order they came; may be empty where only log-probabilities came.
    pub parts: Vec<Part>,
    /// Of one token, where the job asked for them.
    pub logprobs: Vec<ir_engine::run::Logprobs>,
}

/// How a completion ended and what it took.
#[derive(Debug, Clone)]
pub struct Done {
    /// Why.
    pub reason: Reason,
    /// The stop string that ended it, where one did.
    pub stop_string: Option<String>,
    /// Counts and times.
    pub usage: Usage,
    /// The prompt's tokens and the completion's, without an end-of-generation token: Ollama's `context`.
    pub tokens: Vec<u32>,
}

/// A whole completion.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// The reasoning.
    pub thinking: String,
    /// The tool calls in order.
    pub calls: Vec<ToolCall>,
    /// Per token, where the job asked for them.
    pub logprobs: Vec<ir_engine::run::Logprobs>,
    /// How it ended.
    pub done: Done,
}

/// Puts a completion together from its events.
#[derive(Debug, Default)]
pub struct Collector {
    text: String,
    thinking: String,
    calls: Vec<ToolCall>,
    logprobs: Vec<ir_engine::run::Logprobs>,
}

impl Collector {
    /// Takes a delta.
    pub fn push(&mut self, delta: Delta) {
        for part in delta.parts {
            match part {
                Part::Text(text) => self.text.push_str(&text),
                Part::Thinking(text) => self.thinking.push_str(&text),
                Part::CallEnd { call, .. } => self.calls.push(call),
                Part::CallStart { .. } | Part::CallArguments { .. } | Part::CallBroken { .. } => {}
            }
        }
        self.logprobs.extend(delta.logprobs);
    }

    /// The answer.
    pub fn finish(self, done: Done) -> Answer {
        let Collector { text, thinking, calls, logprobs } = self;
        Answer { text, thinking, calls, logprobs, done }
    }
}

/// What an [`EmbedJob`](crate::generate::job::EmbedJob) gives.
#[derive(Debug, Clone, Default)]
pub struct Embedded {
    /// A vector per input.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all inputs together.
    pub prompt_tokens: usize,
    /// Inputs that were cut.
    pub truncated: usize,
    /// From the request to its end.
    pub total: Duration,
    /// Loading of the model.
    pub load: Duration,
}

/// Scores of texts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ranked {
    /// One for each text, in their order: the larger, the better it answers the query.
    pub scores: Vec<f32>,
    /// Tokens of all texts, each with the query.
    pub prompt_tokens: usize,
}
