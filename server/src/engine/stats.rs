//! [`Counters`]: what a model's requests did and took, counted without locks. How dashboards read it is in `metrics`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::engine::usage::{Reason, Usage};

/// Upper bounds in seconds of times that people wait.
const WAITS: [f64; 16] =
    [0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.25, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0];
/// Upper bounds in seconds of the time between two tokens.
const PACES: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.25, 0.5, 1.0, 2.5];

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Makes it at least `n`.
    pub(crate) fn raise(&self, n: u64) {
        self.0.fetch_max(n, Ordering::Relaxed);
    }
}

/// A time that only grows.
#[derive(Debug, Default)]
pub(crate) struct Clock(Counter);

impl Clock {
    pub(crate) fn add(&self, time: Duration) {
        self.0.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.0.get() as f64 / 1e9
    }
}

/// How often a time fell below each of some bounds.
#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: &'static [f64],
    /// One more than the bounds: what is above all of them.
    counts: Vec<Counter>,
    sum: Clock,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Histogram {
        Histogram { bounds, counts: (0..=bounds.len()).map(|_| Counter::default()).collect(), sum: Clock::default() }
    }

    pub(crate) fn add(&self, time: Duration) {
        let at = self.bounds.partition_point(|bound| *bound < time.as_secs_f64());
        self.counts[at].add(1);
        self.sum.add(time);
    }

    /// Each bound with the number of times at or below it; the last bound is infinite.
    pub(crate) fn cumulative(&self) -> Vec<(f64, u64)> {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let mut sum = 0;
        let add = |(bound, count): (f64, &Counter)| {
            sum += count.get();
            (bound, sum)
        };
        bounds.zip(&self.counts).map(add).collect()
    }

    pub(crate) fn sum(&self) -> f64 {
        self.sum.seconds()
    }
}

/// How requests end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Done(Reason),
    /// An embedding.
    Embedded,
    /// The client left.
    Cancelled,
    Failed,
}

impl End {
    pub(crate) const NAMES: [&'static str; 6] = ["stop", "length", "tool_calls", "embedded", "cancelled", "failed"];

    fn index(self) -> usize {
        match self {
            End::Done(Reason::Stop) => 0,
            End::Done(Reason::Length) => 1,
            End::Done(Reason::ToolCalls) => 2,
            End::Embedded => 3,
            End::Cancelled => 4,
            End::Failed => 5,
        }
    }
}

/// One model's counts since the server's start; they outlive its being unloaded.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) prompt_tokens: Counter,
    /// Those of them that were in the cache.
    pub(crate) cached_tokens: Counter,
    pub(crate) generated_tokens: Counter,
    pub(crate) prompt_time: Clock,
    pub(crate) generation_time: Clock,
    pub(crate) steps: Counter,
    /// Sequences of all steps together.
    pub(crate) step_sequences: Counter,
    pub(crate) preemptions: Counter,
    /// Tokens of the longest sequence.
    pub(crate) longest: Counter,
    pub(crate) first_token: Histogram,
    pub(crate) per_token: Histogram,
    pub(crate) whole: Histogram,
    pub(crate) queued: Histogram,
    ends: [Counter; End::NAMES.len()],
}

impl Default for Counters {
    fn default() -> Self {
        Counters {
            prompt_tokens: Counter::default(),
            cached_tokens: Counter::default(),
            generated_tokens: Counter::default(),
            prompt_time: Clock::default(),
            generation_time: Clock::default(),
            steps: Counter::default(),
            step_sequences: Counter::default(),
            preemptions: Counter::default(),
            longest: Counter::default(),
            first_token: Histogram::new(&WAITS),
            per_token: Histogram::new(&PACES),
            whole: Histogram::new(&WAITS),
            queued: Histogram::new(&WAITS),
            ends: Default::default(),
        }
    }
}

impl Counters {
    /// A completion came to its end; `before` is the time from the request to the engine's queue.
    pub(crate) fn done(&self, reason: Reason, usage: &Usage, before: Duration) {
        self.prompt(usage);
        self.generation_time.add(usage.generation);
        self.longest.raise((usage.prompt_tokens + usage.completion_tokens) as u64);
        if usage.completion_tokens > 0 {
            self.first_token.add(before + usage.queued + usage.prompt);
        }
        if let Some(gaps) =
            u32::try_from(usage.completion_tokens).ok().and_then(|n| n.checked_sub(1)).filter(|n| *n > 0)
        {
            self.per_token.add(usage.generation / gaps);
        }
        self.whole.add(usage.total);
        self.end(End::Done(reason));
    }

    /// A prompt was computed.
    pub(crate) fn prompt(&self, usage: &Usage) {
        self.prompt_tokens.add(usage.prompt_tokens as u64);
        self.cached_tokens.add(usage.cached_tokens as u64);
        self.prompt_time.add(usage.prompt);
        self.queued.add(usage.queued);
    }

    pub(crate) fn end(&self, end: End) {
        self.ends[end.index()].add(1);
    }

    /// How often requests ended in each way.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (&'static str, u64)> {
        End::NAMES.into_iter().zip(self.ends.iter().map(Counter::get))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_what_is_at_or_below_its_bounds() {
        let histogram = Histogram::new(&[0.5, 1.0]);
        for seconds in [0.25, 0.5, 0.75, 1.0, 7.0] {
            histogram.add(Duration::from_secs_f64(seconds));
        }
        assert_eq!(histogram.cumulative(), [(0.5, 2), (1.0, 4), (f64::INFINITY, 5)]);
        assert!((histogram.sum() - 9.5).abs() < 1e-9);
    }

    #[test]
    fn a_completion_is_counted_once_in_each_place() {
        let counters = Counters::default();
        let usage = Usage {
            prompt_tokens: 10,
            cached_tokens: 4,
            completion_tokens: 5,
            queued: Duration::from_millis(1),
            prompt: Duration::from_millis(2),
            generation: Duration::from_millis(40),
            ..Usage::default()
        };
        counters.done(Reason::Length, &usage, Duration::from_millis(3));
        let ends: Vec<_> = counters.ends().filter(|(_, n)| *n > 0).collect();
        assert_eq!((ends.as_slice(), counters.longest.get()), (&[("length", 1)][..], 15));
        assert!((counters.first_token.sum() - 0.006).abs() < 1e-9 && (counters.per_token.sum() - 0.01).abs() < 1e-9);
    }
}
