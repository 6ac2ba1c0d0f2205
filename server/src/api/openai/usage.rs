//! Counts and times as OpenAI's and llama-server's clients read them.

use serde::Serialize;
use utoipa::ToSchema;

use crate::api::common::util::millis;
use crate::generate::job;

/// Tokens of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Usage {
    /// Tokens of the prompts.
    pub(super) prompt_tokens: usize,
    /// Tokens of all completions.
    pub(super) completion_tokens: usize,
    /// Both together.
    pub(super) total_tokens: usize,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

/// Of the prompts' tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct PromptDetails {
    /// Those that had been computed before.
    cached_tokens: usize,
}

/// Of the completions' tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct CompletionDetails {
    /// Those of the reasoning.
    reasoning_tokens: usize,
}

impl Usage {
    /// Counts a completion; its prompt only where it is the `first` of that prompt.
    pub(super) fn add(&mut self, usage: &job::Usage, first: bool) {
        if first {
            self.prompt_tokens += usage.prompt_tokens;
            self.prompt_tokens_details.cached_tokens += usage.cached_tokens;
        }
        self.completion_tokens += usage.completion_tokens;
        self.completion_tokens_details.reasoning_tokens += usage.thinking_tokens;
        self.total_tokens = self.prompt_tokens + self.completion_tokens;
    }
}

/// llama-server's times of a completion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct Timings {
    /// Tokens of the prompt that had been computed before.
    cache_n: usize,
    /// Tokens of the prompt that were computed.
    prompt_n: usize,
    prompt_ms: f64,
    prompt_per_token_ms: f64,
    prompt_per_second: f64,
    /// Tokens that were generated.
    predicted_n: usize,
    predicted_ms: f64,
    predicted_per_token_ms: f64,
    predicted_per_second: f64,
}

impl Timings {
    /// The times of a completion.
    pub(super) fn new(usage: &job::Usage) -> Timings {
        // Zero tokens or zero time have no rate; JSON knows no infinity.
        let per = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
        let (prompt_ms, predicted_ms) = (millis(usage.prompt), millis(usage.generation));
        let (prompt_n, predicted_n) =
            (usage.prompt_tokens - usage.cached_tokens.min(usage.prompt_tokens), usage.completion_tokens);
        Timings {
            cache_n: usage.cached_tokens,
            prompt_n,
            prompt_ms,
            prompt_per_token_ms: per(prompt_ms, prompt_n as f64),
            prompt_per_second: per(prompt_n as f64 * 1e3, prompt_ms),
            predicted_n,
            predicted_ms,
            predicted_per_token_ms: per(predicted_ms, predicted_n as f64),
            predicted_per_second: per(predicted_n as f64 * 1e3, predicted_ms),
        }
    }
}

/// The word for why a completion ended.
pub(super) fn finish_reason(reason: job::Reason) -> &'static str {
    match reason {
        job::Reason::Stop => "stop",
        job::Reason::Length => "length",
        job::Reason::ToolCalls => "tool_calls",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn prompts_count_once_and_rates_are_finite() {
        let one = job::Usage {
            prompt_tokens: 10,
            cached_tokens: 4,
            completion_tokens: 5,
            thinking_tokens: 2,
            prompt: Duration::from_millis(60),
            generation: Duration::from_secs(1),
            ..job::Usage::default()
        };
        let mut usage = Usage::default();
        usage.add(&one, true);
        usage.add(&one, false);
        assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (10, 10, 20));
        assert_eq!(
            (usage.prompt_tokens_details.cached_tokens, usage.completion_tokens_details.reasoning_tokens),
            (4, 4)
        );
        let times = Timings::new(&one);
        assert_eq!((times.prompt_n, times.prompt_per_second, times.predicted_per_second), (6, 100.0, 5.0));
        assert_eq!(Timings::new(&job::Usage::default()), Timings::default());
    }
}
