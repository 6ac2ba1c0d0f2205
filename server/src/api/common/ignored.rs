//! [`Ignored`]: what requests hold and the server passes over. Each is counted, and told to the log where it comes first,
//! so that nothing is lost without a word and no client fills the log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::http::header;
use axum::http::request::Parts;

use crate::engine::error::cut;
use crate::engine::output_queue::lock;

/// Different things that are counted by name, at most: names come from clients.
const MAX_NAMES: usize = 512;

/// How often things were passed over, by API and field.
#[derive(Debug, Default)]
pub(crate) struct IgnoredCounts(Mutex<BTreeMap<(&'static str, String), u64>>);

impl IgnoredCounts {
    /// Counts one, and says whether it is the first of its name.
    fn add(&self, api: &'static str, field: &str) -> bool {
        let mut all = lock(&self.0);
        let full = all.len() >= MAX_NAMES;
        if let Some(n) = all.get_mut(&(api, field.to_owned())) {
            *n += 1;
            return false;
        }
        let field = if full { "other" } else { field };
        *all.entry((api, field.to_owned())).or_default() += 1;
        !full
    }

    pub(crate) fn all(&self) -> Vec<((&'static str, String), u64)> {
        lock(&self.0).iter().map(|(key, n)| (key.clone(), *n)).collect()
    }
}

/// Where a request's handlers say what they pass over.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ignored {
    api: &'static str,
    agent: String,
    /// `None`: nobody counts.
    counts: Option<Arc<IgnoredCounts>>,
}

impl Ignored {
    /// Of a request.
    pub(crate) fn of(parts: &Parts) -> Ignored {
        let agent = parts.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("");
        Ignored {
            api: api(parts.uri.path()),
            agent: cut(agent, 120),
            counts: parts.extensions.get::<Arc<IgnoredCounts>>().cloned(),
        }
    }

    /// Says that a field, or something that is named like one, is passed over.
    pub(crate) fn note(&self, field: &str) {
        let field = cut(field, 80);
        if self.counts.as_ref().is_some_and(|counts| counts.add(self.api, &field)) {
            let (api, agent) = (self.api, self.agent.as_str());
            tracing::info!(api, field, user_agent = agent, "passed over; said once, then counted in ir_ignored_total");
        }
    }
}

/// The API that an address belongs to, as the counts name it.
fn api(path: &str) -> &'static str {
    let known =
        [("/v1/messages", "anthropic"), ("/v1/responses", "responses"), ("/v1/", "openai"), ("/api/", "ollama")];
    known.into_iter().find(|(own, _)| path.starts_with(own)).map_or("llama-server", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_the_first_is_told() {
        let counts = IgnoredCounts::default();
        assert!(counts.add("openai", "store") && !counts.add("openai", "store") && counts.add("ollama", "store"));
        for i in 0..2 * MAX_NAMES {
            counts.add("openai", &format!("field{i}"));
        }
        let all = counts.all();
        assert!(all.len() <= MAX_NAMES + 1, "{}", all.len());
        assert_eq!(all.iter().map(|(_, n)| n).sum::<u64>(), 3 + 2 * MAX_NAMES as u64);
        let other = all.iter().find(|((_, name), _)| name == "other");
        assert!(other.is_some_and(|(_, n)| *n > MAX_NAMES as u64));
    }

    #[test]
    fn addresses_have_an_api() {
        for (path, want) in [
            ("/v1/messages/count_tokens", "anthropic"),
            ("/v1/responses", "responses"),
            ("/v1/chat/completions", "openai"),
            ("/api/chat", "ollama"),
            ("/tokenize", "llama-server"),
        ] {
            assert_eq!(api(path), want);
        }
    }
}
