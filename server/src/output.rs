//! What comes back of a [`Job`](crate::job::Job), as plain data: [`Output`]s of a [`crate::Running`], all of it at once
//! ([`Answer`]), and embeddings.

use std::time::Duration;

use ir_engine::text::chat::ToolCall;

use crate::error::ApiError;

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
    /// A call is complete.
    CallEnd {
        /// The call's number.
        index: usize,
        /// All of it; the arguments are an object with its keys in the order they were written.
        call: ToolCall,
    },
    /// A call that had begun is no call after all: forget its other parts. What was written follows as text.
    CallBroken {
        /// The call's number.
        index: usize,
    },
}

/// Why a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The model ended it, or a stop string did.
    Stop,
    /// `max_tokens` or the context is used up.
    Length,
    /// The model ended it with tool calls.
    ToolCalls,
}

/// How a completion ended and what it took.
#[derive(Debug, Clone)]
pub struct Done {
    /// Why.
    pub reason: Reason,
    /// Counts and times.
    pub usage: Usage,
    /// The prompt's tokens and the completion's, without an end-of-generation token: Ollama's `context`.
    pub tokens: Vec<u32>,
}

/// Counts and times of a completion.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that were in the cache.
    pub cached_tokens: usize,
    /// Tokens generated.
    pub completion_tokens: usize,
    /// Those of them that were reasoning.
    pub thinking_tokens: usize,
    /// From the request to its end.
    pub total: Duration,
    /// Loading of the model.
    pub load: Duration,
    /// Waiting in the queue.
    pub queued: Duration,
    /// Computing the prompt.
    pub prompt: Duration,
    /// Generating.
    pub generation: Duration,
    /// Turns of the chat that did not fit and were dropped.
    pub dropped_messages: usize,
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

/// What an [`EmbedJob`](crate::job::EmbedJob) gives.
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
