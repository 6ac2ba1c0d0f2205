//! Why a completion ended, and what it took.

use std::time::Duration;

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
