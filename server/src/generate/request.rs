//! From a job to what the engine is asked: the request of a completion and those of texts to embed. Runs
//! beside the engine's thread, on threads that may block.

use ir_engine::error::Error;
use ir_engine::run::{ChatTurn, EmbedRequest, RankRequest, Request, embed_ids, rank_request};
use ir_engine::text::constrain::Constraint;

use super::job::{EmbedInput, EmbedJob, Job, RankJob};
use super::prompt;
use crate::engine::error::{ApiError, Kind};
use crate::models::loaded::Loaded;

/// A job's turn and the engine's request for it.
///
/// # Errors
/// A template that refuses the chat, a prompt that is empty or too long, values out of range, a grammar that cannot be
/// held to, what the model cannot do.
pub(crate) fn generate(loaded: &Loaded, job: &Job) -> Result<(ChatTurn, Request), ApiError> {
    let model = loaded.model();
    let context = job.model.load.context.map_or(loaded.context, |c| c.min(loaded.context));
    let seed = job.sampling.seed.unwrap_or_else(random_number);
    let turn = prompt::prepare(model, job, context, seed)?;
    let constraint = constraint(loaded, job, &turn)?;
    let room = context - turn.ids.len();
    let mut request = Request {
        max_tokens: Some(job.max_tokens.map_or(room, |n| n.min(room))),
        // The API's defaults, the file's recommendations over them, the client's values over both.
        sampling: job.sampling.applied(job.defaults.clone().recommended(model.meta()), seed),
        stop: job.stop.clone(),
        ignore_eos: job.ignore_eos,
        logprobs: job.logprobs,
        adapters: Some(adapters(loaded, job.lora.as_deref())?),
        ..turn.request(model.tokenizer(), constraint)
    };
    if request.constraint.is_none() {
        hold_calls(loaded, &turn, &mut request);
    }
    request.check(model.plan().n_vocab())?;
    Ok((turn, request))
}

/// The adapters that are used.
///
/// # Errors
/// One that the model does not have.
fn adapters(loaded: &Loaded, asked: Option<&[(usize, f32)]>) -> Result<Vec<(usize, f32)>, ApiError> {
    let Some(asked) = asked else { return Ok(loaded.lora().into_iter().enumerate().collect()) };
    loaded.check_lora(asked)?;
    Ok(asked.to_vec())
}

/// Holds the calls that the answer may begin to the tools given. Where that cannot be, they are as the model writes them.
fn hold_calls(loaded: &Loaded, turn: &ChatTurn, request: &mut Request) {
    let Some(grammar) = turn.begun_calls() else { return };
    match loaded.constrainer().map_err(|e| e.message).and_then(|c| c.compile(&grammar).map_err(|e| e.to_string())) {
        Ok(constraint) => turn.hold_calls(request, constraint, loaded.model().tokenizer()),
        Err(why) => tracing::info!(%why, "calls of these tools are not held to their schemas"),
    }
}

/// What a job's answer must conform to, if anything. Compiling takes milliseconds and more.
///
/// # Errors
/// A grammar or tools that cannot be held to; the error names the field.
fn constraint(loaded: &Loaded, job: &Job, turn: &ChatTurn) -> Result<Option<Constraint>, ApiError> {
    let calls = turn.demanded_calls().map_err(|e| refused("tool_choice", &e))?;
    let (field, grammar) = match (calls, &job.grammar) {
        (Some(calls), _) => ("tool_choice", calls),
        (None, Some(grammar)) => (job.grammar_field.unwrap_or("grammar"), turn.or_calls(grammar.clone())),
        (None, None) => return Ok(None),
    };
    loaded.constrainer()?.compile(&grammar).map(Some).map_err(|e| refused(field, &e))
}

fn refused(field: &str, error: &Error) -> ApiError {
    match error {
        Error::Request(_) | Error::Unsupported(_) | Error::Limit(_) => {
            ApiError::param(field, format!("{field}: {error}"))
        }
        _ => ApiError::new(Kind::Internal, error.to_string()),
    }
}

/// A number that nobody could guess: the standard library keys its hash tables with the system's randomness.
pub(crate) fn random_number() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

/// The requests of texts to embed, and how many texts were cut.
///
/// # Errors
/// A text that is empty or too long, token ids or dimensions that the model does not have.
pub(crate) fn embed(loaded: &Loaded, job: &EmbedJob) -> Result<(Vec<EmbedRequest>, usize), ApiError> {
    let (model, mut truncated) = (loaded.model(), 0);
    model.embeds(None).map_err(|e| ApiError::param("model", e.to_string()))?;
    let tokenizer = model.tokenizer();
    let context = job.model.load.context.map_or(loaded.context, |c| c.min(loaded.context));
    let mut requests = Vec::with_capacity(job.inputs.len());
    for input in &job.inputs {
        let mut prompt = match input {
            EmbedInput::Text(text) => embed_ids(tokenizer, text),
            EmbedInput::Tokens(ids) => ids.clone(),
        };
        if prompt.is_empty() {
            return Err(ApiError::param("input", "an input is empty: leave it out"));
        }
        if prompt.len() > context {
            if !job.truncate {
                let n = prompt.len();
                let what = format!("the input length exceeds the context length: {n} tokens, and {context} fit");
                return Err(ApiError::param("input", what));
            }
            // A model that ends texts with a token of its own reads the text's meaning there.
            let end = tokenizer.ends().filter(|_| matches!(input, EmbedInput::Text(_)));
            prompt.truncate(context - usize::from(end.is_some()));
            prompt.extend(end);
            truncated += 1;
        }
        let (dimensions, normalize) = (job.dimensions, job.normalize);
        let request = EmbedRequest {
            prompt,
            dimensions,
            normalize,
            adapters: Some(adapters(loaded, None)?),
            ..EmbedRequest::default()
        };
        request.check(model.plan().n_vocab(), model.plan().n_pooled())?;
        requests.push(request);
    }
    Ok((requests, truncated))
}

/// The pairs of a query and each text.
///
/// # Errors
/// A model that does not rank, a text that is too long with the query.
pub(crate) fn rank(loaded: &Loaded, job: &RankJob) -> Result<Vec<RankRequest>, ApiError> {
    let model = loaded.model();
    model.expect_ranking().map_err(|e| ApiError::param("model", e.to_string()))?;
    let pair = |(i, text): (usize, &String)| {
        let pair = rank_request(model, &job.query, text)?;
        if pair.prompt.len() > loaded.context {
            let (n, context) = (pair.prompt.len(), loaded.context);
            let what =
                format!("document {i} with the query has {n} tokens, and {context} fit: shorten it, or send its parts");
            return Err(ApiError::param("documents", what));
        }
        Ok(RankRequest { adapters: Some(adapters(loaded, None)?), ..pair })
    };
    job.documents.iter().enumerate().map(pair).collect()
}
