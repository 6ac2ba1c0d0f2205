//! `POST /v1/completions`: text that goes on from a prompt, or from several.

use serde::Deserialize;
use utoipa::ToSchema;

use super::completions_answer::{TextCompletion, TextEncoder, TextHead};
use crate::api::common::body::{Bodies, Client};
use crate::api::common::fields::{Common, OneText, Texts};
use crate::api::common::format::ResponseFormat;
use crate::api::common::generation::{generating, reply};
use crate::api::common::openai_error::OpenAiErrors;
use crate::api::common::params::GenerationParams;
use crate::api::common::util::{cannot, whole};
use crate::engine::error::ApiError;
use crate::generate::job::{Job, Prompt};
use crate::generate::running::Running;
use crate::models::loaded::Lease;

/// Completions of all prompts of a request together, at most.
const MAX_TOGETHER: usize = 64;

/// What only completions have.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct CompletionFields {
    /// What to go on from: texts or token ids, one or several.
    prompt: Texts,
    /// What comes behind the completion, for models that can fill in.
    suffix: Option<String>,
    /// Begins each completion with its prompt.
    echo: Option<bool>,
    /// Sends the log-probabilities of each token and of this many most likely ones.
    #[schema(minimum = 0, maximum = 20)]
    #[serde(default, deserialize_with = "whole")]
    logprobs: Option<i64>,
    /// The same as `n`: completions are not ranked here.
    #[serde(default, deserialize_with = "whole")]
    best_of: Option<u64>,
    /// What the completion must be. (llama-server's.)
    response_format: Option<ResponseFormat>,
}

impl CompletionFields {
    /// The prompts, and the job that each of them gets.
    fn job(&mut self, common: Common, client: Client) -> Result<(Vec<OneText>, Job), ApiError> {
        if self.best_of.is_some_and(|n| n != common.n.unwrap_or(1)) {
            return Err(ApiError::param("best_of", "completions are not ranked here: give best_of the value of n"));
        }
        if self.logprobs.is_some() && self.echo == Some(true) {
            return Err(ApiError::param("echo", "log-probabilities of prompts are not computed: ask without echo"));
        }
        let format = self.response_format.take().map(|f| f.grammar(&client.ignored)).transpose()?.flatten();
        let under = common.params(client, format.map(|f| (f, "response_format")))?;
        let top = self.logprobs.map(|n| ("logprobs", n));
        let job = GenerationParams { logprobs: top.is_some(), top, ..under }.job()?;
        let prompts = std::mem::replace(&mut self.prompt, Texts::List(Vec::new())).split();
        if prompts.is_empty() {
            return Err(ApiError::param("prompt", "prompt is empty: give text or token ids"));
        }
        if prompts.len() * job.n > MAX_TOGETHER {
            let message = format!("prompt asks for more than {MAX_TOGETHER} completions at once: send fewer prompts");
            return Err(ApiError::param("prompt", message));
        }
        Ok((prompts, job))
    }

    /// A prompt as a job goes on from it.
    fn prompt(&self, lease: &Lease, model: &str, prompt: OneText) -> Result<Prompt, ApiError> {
        match (prompt, self.suffix.as_deref().filter(|s| !s.is_empty())) {
            (OneText::Text(text), None) => Ok(Prompt::Text(text)),
            (OneText::Tokens(ids), None) => Ok(Prompt::Tokens(ids)),
            (_, Some(_)) if !lease.capabilities.insert => Err(cannot(model, "insert")),
            (OneText::Text(prefix), Some(suffix)) => Ok(Prompt::Fill { prefix, suffix: suffix.to_owned() }),
            (OneText::Tokens(_), Some(_)) => Err(ApiError::param("suffix", "suffix goes with a prompt of text only")),
        }
    }
}

/// What stands in front of a completion that echoes its prompt.
fn echoed(lease: &Lease, prompt: &OneText) -> String {
    match prompt {
        OneText::Text(text) => text.clone(),
        OneText::Tokens(ids) => lease.model().tokenizer().decode(ids, true),
    }
}

/// A completion's fields, all of them.
type CompletionRequest = Bodies<Common, CompletionFields>;

generating! {
    /// Text that goes on from a prompt.
    completions: "/v1/completions" "OpenAI" OpenAiErrors CompletionRequest => TextCompletion;
    (hub, client, Bodies(common, mut request)) {
        let (model, stream, counts) = (common.model.clone(), common.streams(), common.counts());
        let (prompts, job) = request.job(common, client)?;
        let lease = hub.open(&job.model).await?;
        let vocabulary = lease.model().tokenizer().n_vocab();
        let (n, mut echoes, mut jobs) = (job.n, Vec::new(), Vec::new());
        for prompt in prompts {
            if let OneText::Tokens(ids) = &prompt
                && let Some(id) = ids.iter().find(|id| **id >= vocabulary)
            {
                let message = format!("prompt holds token id {id} of a vocabulary of {vocabulary}");
                return Err(ApiError::param("prompt", message));
            }
            let echo = if request.echo == Some(true) { echoed(&lease, &prompt) } else { String::new() };
            echoes.extend(std::iter::repeat_n(echo, n));
            jobs.push(Job { prompt: request.prompt(&lease, &model, prompt)?, ..job.clone() });
        }
        // Started in order; where one does not start, the others are dropped and so cancelled.
        let mut all: Vec<Running> = Vec::with_capacity(jobs.len());
        for job in jobs {
            all.push(hub.run(job).await?);
        }
        drop(lease);
        let Some(first) = all.first() else { return Err(ApiError::param("prompt", "prompt is empty")) };
        let head = TextHead::new(&model, first.created, n, echoes);
        reply(all, n, stream, TextEncoder::new(head, counts)).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    fn fill(body: Json) -> Result<(Vec<OneText>, Job), ApiError> {
        let text = body.to_string();
        let common: Common = crate::api::common::body::parse(text.as_bytes())?;
        let mut request: CompletionFields = crate::api::common::body::parse(text.as_bytes())?;
        request.job(common, Client::default())
    }

    #[test]
    fn prompts_in_every_form() {
        let (prompts, job) =
            fill(json!({"model": "m", "prompt": ["a", "b"], "n": 2, "best_of": 2, "logprobs": 3})).unwrap();
        assert_eq!(prompts, [OneText::Text("a".into()), OneText::Text("b".into())]);
        assert_eq!((job.n, job.logprobs), (2, Some(3)));
        let (prompts, _) = fill(json!({"model": "m", "prompt": [[1, 2], [3]]})).unwrap();
        assert_eq!(prompts, [OneText::Tokens(vec![1, 2]), OneText::Tokens(vec![3])]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, param) in [
            (json!({"model": "m"}), "prompt"),
            (json!({"model": "m", "prompt": []}), "prompt"),
            (json!({"model": "m", "prompt": {"a": 1}}), "prompt"),
            (json!({"model": "m", "prompt": vec!["a"; 9], "n": 8}), "prompt"),
            (json!({"model": "m", "prompt": "a", "best_of": 2}), "best_of"),
            (json!({"model": "m", "prompt": "a", "logprobs": 21}), "logprobs"),
            (json!({"model": "m", "prompt": "a", "logprobs": true}), "logprobs"),
            (json!({"model": "m", "prompt": "a", "logprobs": 1, "echo": true}), "echo"),
        ] {
            let error = fill(body.clone()).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{body}: {error}");
        }
    }
}
