//! From a job to what the engine is asked: the request of a completion ([`Sequence`]) and those of texts to embed. Runs
//! beside the engine's thread, on threads that may block.

use ir_engine::run::{EmbedRequest, Request, embed_ids};
use ir_engine::text::tools::ToolFormat;

use crate::engine::error::ApiError;
use crate::generate::hold::{self, Hold};
use crate::generate::job::{EmbedInput, EmbedJob, Job, Prompt};
use crate::generate::prompt::{self, Prepared, Reader};
use crate::models::loaded::Loaded;

/// A completion ready for the engine.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) request: Request,
    pub(crate) reader: Reader,
    pub(crate) dropped_messages: usize,
}

/// A job's request.
///
/// # Errors
/// A template that refuses the chat, a prompt that is empty or too long, values out of range, a grammar that cannot be
/// held to, what the model cannot do.
pub(crate) fn generate(loaded: &Loaded, job: &Job) -> Result<Sequence, ApiError> {
    let model = loaded.model();
    let context = job.model.load.context.map_or(loaded.context, |c| c.min(loaded.context));
    let seed = job.sampling.seed.unwrap_or_else(random_number);
    let Prepared { ids, reader, dropped_messages, form } = prompt::prepare(model, job, context, seed)?;
    let Hold { constraint, begin } = hold::hold(loaded, job, form)?;
    let room = context - ids.len();
    let chat = matches!(job.prompt, Prompt::Chat(_) | Prompt::Continue { .. });
    let request = Request {
        prompt: ids,
        max_tokens: Some(job.max_tokens.map_or(room, |n| n.min(room))),
        // The API's defaults, the file's recommendations over them, the client's values over both.
        sampling: job.sampling.applied(job.defaults.clone().recommended(model.meta()), seed),
        stop: job.stop.clone(),
        ignore_eos: job.ignore_eos,
        show_special: false,
        show: if chat { ToolFormat::token_ids(model.tokenizer()) } else { Vec::new() },
        logprobs: job.logprobs,
        constraint,
        constrain_after: begin.after,
        constrain_opener: begin.opener,
    };
    request.check(model.plan().n_vocab())?;
    Ok(Sequence { request, reader, dropped_messages })
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
            let end = tokenizer.eos().filter(|_| tokenizer.add_eos() && matches!(input, EmbedInput::Text(_)));
            prompt.truncate(context - usize::from(end.is_some()));
            prompt.extend(end);
            truncated += 1;
        }
        let request = EmbedRequest { prompt, pooling: None, dimensions: job.dimensions, normalize: job.normalize };
        request.check(model.plan().n_vocab(), model.spec().width)?;
        requests.push(request);
    }
    Ok((requests, truncated))
}
