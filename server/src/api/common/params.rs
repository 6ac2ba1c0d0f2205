//! [`GenerationParams`]: what a client asks of a generation, as plain fields that every API translates its own into.
//! [`GenerationParams::job`] is the one place where they are checked and become a job; what the job becomes for the engine
//! is in `generate::request`.

use ir_engine::run::Sampling;
use serde_json::Value as Json;

use super::options;
use crate::api::common::body::Client;
use crate::engine::error::ApiError;
use crate::generate::job::{Grammar, Job, MAX_CHOICES, ModelRef, Prompt, Think};
use crate::generate::sampling::{SamplingChanges, limit};

/// Most likely tokens that a request may ask for at each token.
pub(crate) const MAX_TOP: i64 = 20;

/// What a client asks of a generation. What is not given is `None`, or as its type's default says.
#[derive(Debug, Default)]
pub(crate) struct GenerationParams {
    /// The model's name.
    pub(crate) model: String,
    /// Who asks.
    pub(crate) client: Client,
    /// How long the model stays loaded: a number of seconds or a duration.
    pub(crate) keep_alive: Option<Json>,
    /// Ollama's options; the fields beside go over them.
    pub(crate) options: Option<Json>,
    /// Tokens of the context; 0 is the model's own.
    pub(crate) context: Option<u64>,
    /// What to go on from; handlers that must see the model first give it later.
    pub(crate) prompt: Prompt,
    /// Completions.
    pub(crate) n: Option<u64>,
    /// Tokens of a completion at most; negative: until the context is full.
    pub(crate) max_tokens: Option<i64>,
    /// Texts before which a completion ends; empty ones are passed over.
    pub(crate) stop: Option<Vec<String>>,
    /// The API's defaults.
    pub(crate) defaults: Sampling,
    /// What goes over them, the seed apart.
    pub(crate) sampling: SamplingChanges,
    /// The seed; -1 is a new one for every request.
    pub(crate) seed: Option<i64>,
    /// Goes on past the end of the answer.
    pub(crate) ignore_eos: bool,
    /// The adapters that are used, by number; as the server is set if `None`.
    pub(crate) lora: Option<Vec<(usize, f32)>>,
    /// Sends each token's log-probability.
    pub(crate) logprobs: bool,
    /// With those of this many most likely tokens, and the field that says so.
    pub(crate) top: Option<(&'static str, i64)>,
    /// Reasoning.
    pub(crate) think: Think,
    /// Whether models that do not reason are to be refused where it is asked for.
    pub(crate) think_or_refuse: bool,
    /// What the answer is held to, each with its field; one at most.
    pub(crate) grammars: Vec<(Grammar, &'static str)>,
}

impl GenerationParams {
    /// The job.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub(crate) fn job(self) -> Result<Job, ApiError> {
        if self.model.is_empty() {
            return Err(ApiError::param("model", "model is required"));
        }
        let n = self.n.unwrap_or(1);
        if !(1..=MAX_CHOICES as u64).contains(&n) {
            return Err(ApiError::param("n", format!("n is {n}: ask for 1 to {MAX_CHOICES} completions")));
        }
        if let Some((field, _)) = self.top.filter(|(_, n)| !(0..=MAX_TOP).contains(n)) {
            return Err(ApiError::param(field, format!("{field} must be between 0 and {MAX_TOP}")));
        }
        let top = self.top.map_or(0, |(_, n)| n as usize);
        let keep_alive = given(&self.keep_alive).map(options::keep_alive).transpose()?;
        let model = ModelRef { name: self.model, any_path: self.client.any_path, keep_alive, ..ModelRef::default() };
        let (grammar, grammar_field) = only(self.grammars)?.unzip();
        let mut job = Job {
            model,
            prompt: self.prompt,
            n: n as usize,
            defaults: self.defaults,
            logprobs: (self.logprobs || top > 0).then_some(top),
            grammar,
            grammar_field,
            think: self.think,
            ignore_eos: self.ignore_eos,
            lora: self.lora,
            ..Job::default()
        };
        if let Some(options) = given(&self.options) {
            options::apply(options, &mut job)?;
        }
        job.sampling = self.sampling.over(job.sampling);
        if let Some(seed) = self.seed {
            // Any whole number is a seed but -1, as llama-server has it.
            job.sampling.seed = (seed != -1).then_some(seed as u64);
        }
        if let Some(stop) = self.stop {
            job.stop = stop;
        }
        job.stop.retain(|s| !s.is_empty());
        if let Some(n) = self.max_tokens {
            job.max_tokens = limit(n);
        }
        if let Some(n) = self.context {
            job.model.load.context = usize::try_from(n).ok().filter(|n| *n > 0);
        }
        Ok(job)
    }
}

/// A field of any form; null is as good as nothing.
fn given(value: &Option<Json>) -> Option<&Json> {
    value.as_ref().filter(|v| !v.is_null())
}

/// The grammar that is asked for.
fn only(grammars: Vec<(Grammar, &'static str)>) -> Result<Option<(Grammar, &'static str)>, ApiError> {
    if let [(_, first), (_, second), ..] = grammars.as_slice() {
        let message = format!("{second} is not the only one: {first} holds the answer already, give one of them");
        return Err(ApiError::param(second, message));
    }
    Ok(grammars.into_iter().next())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use serde_json::json;

    fn params() -> GenerationParams {
        GenerationParams { model: "m".into(), ..GenerationParams::default() }
    }

    #[test]
    fn fields_go_over_options_and_nothing_leaves_them() {
        let options =
            json!({"temperature": 1.5, "top_k": 3, "num_predict": 9, "num_ctx": 64, "seed": 5, "stop": ["a", ""]});
        let job = GenerationParams { options: Some(options.clone()), ..params() }.job().unwrap();
        assert_eq!((job.max_tokens, job.model.load.context, job.sampling.seed), (Some(9), Some(64), Some(5)));
        assert_eq!((job.stop.as_slice(), job.n, job.logprobs), (&["a".to_owned()][..], 1, None));
        let sampling = SamplingChanges { temperature: Some(0.5), ..SamplingChanges::default() };
        let over = GenerationParams { sampling, max_tokens: Some(-1), context: Some(0), seed: Some(-1), ..params() };
        let job = GenerationParams { options: Some(options), stop: Some(Vec::new()), ..over }.job().unwrap();
        assert_eq!((job.max_tokens, job.model.load.context, job.sampling.seed), (None, None, None));
        assert_eq!((job.sampling.temperature, job.sampling.top_k, job.stop.len()), (Some(0.5), Some(3), 0));
        assert_eq!(GenerationParams { seed: Some(-7), ..params() }.job().unwrap().sampling.seed, Some(-7i64 as u64));
    }

    #[test]
    fn log_probabilities_of_a_token_or_of_several() {
        let asked = |logprobs, top: Option<i64>| {
            GenerationParams { logprobs, top: top.map(|n| ("top", n)), ..params() }.job().map(|j| j.logprobs)
        };
        assert_eq!((asked(false, None), asked(true, None), asked(false, Some(0))), (Ok(None), Ok(Some(0)), Ok(None)));
        assert_eq!((asked(false, Some(2)), asked(true, Some(20))), (Ok(Some(2)), Ok(Some(20))));
        assert!(asked(true, Some(21)).is_err() && asked(true, Some(-1)).is_err());
    }

    #[test]
    fn one_grammar_at_most() {
        let held = |grammars| GenerationParams { grammars, ..params() }.job().map(|j| (j.grammar, j.grammar_field));
        assert_eq!(held(vec![(Grammar::Json, "format")]), Ok((Some(Grammar::Json), Some("format"))));
        assert_eq!(held(Vec::new()), Ok((None, None)));
        let error = held(vec![(Grammar::Json, "grammar"), (Grammar::Json, "format")]).unwrap_err();
        assert!(error.param.as_deref() == Some("format") && error.message.contains("grammar"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (wrong, param) in [
            (GenerationParams::default(), "model"),
            (GenerationParams { n: Some(0), ..params() }, "n"),
            (GenerationParams { n: Some(17), ..params() }, "n"),
            (GenerationParams { keep_alive: Some(json!(true)), ..params() }, "keep_alive"),
            (GenerationParams { top: Some(("logprobs", 21)), ..params() }, "logprobs"),
        ] {
            let error = wrong.job().unwrap_err();
            assert!(error.param.as_deref() == Some(param) && error.message.contains(param), "{error}");
        }
    }
}
