//! `ir logits`: raw logits of a prompt and the greedy continuation, for comparing engines.

use ir_store::Place;

use crate::args::LogitsArgs;
use crate::compute::{self, Sequence};
use crate::failure::{Failure, Result};
use crate::models::{self, Opening, Recorded};
use crate::npy::NpyWriter;
use crate::term::Out;

/// Computes the prompt, writes its logits, generates, and prints the ids.
pub(crate) fn logits(args: &LogitsArgs) -> Result {
    let place = models::find(&args.model, &args.file)?;
    let model = place.record(&args.file, &args.lora)?;
    if !model.plan.has_head() {
        return Err(Failure::run("this model has no head of logits: `ir embed` or `ir rerank` is for it"));
    }
    if args.n > 0 {
        compute::expect_next(&model.plan)?;
    }
    let mut ids = ids(args, &place, &model)?;
    let source = source(args, &place, &model, &mut ids)?;
    let device = compute::device(&args.device, args.threads.threads)?;
    let kv = compute::kv_kind(args.device.kv_type);
    let n_context = context(args, model.spec.n_context, source.len() + ids.len())?;
    let n_vocab = model.plan.n_vocab();
    let max_tokens = compute::MAX_TOKENS.max(source.len());
    let mut sequence = Sequence::new(&device, &model.plan, kv, n_context, max_tokens)?;
    if !source.is_empty() {
        sequence.source(&source)?;
    }
    let mut greedy = Vec::with_capacity(args.n.min(n_context));
    let mut next = 0;
    if let Some(path) = &args.output {
        let failed = |e: std::io::Error| Failure::run(format!("cannot write {}: {e}", path.display()));
        let mut file = NpyWriter::create(path, ids.len(), n_vocab).map_err(failed)?;
        sequence.rows(&ids, &mut |row| {
            next = compute::argmax(row)?;
            file.row(row).map_err(failed)
        })?;
        file.finish().map_err(failed)?;
    } else if args.n > 0 {
        let (last, before) = (&ids[ids.len() - 1..], &ids[..ids.len() - 1]);
        sequence.skip(before)?;
        next = compute::argmax(sequence.step(last, 1)?.row(0))?;
    }
    for i in 0..args.n {
        greedy.push(next);
        if i + 1 < args.n {
            next = compute::argmax(sequence.step(&[next], 1)?.row(0))?;
        }
    }
    Out::new().line(serde_json::json!({ "ids": ids, "greedy": greedy }).to_string())
}

/// What an encoder reads: the prompt's `ids`, which those of the decoder replace. Nothing for a model without one.
fn source(args: &LogitsArgs, place: &Place, model: &Recorded, ids: &mut Vec<u32>) -> Result<Vec<u32>> {
    let Some(encoder) = &model.spec.encoder else {
        return match args.decoder_ids {
            Some(_) => Err(Failure::usage("--decoder-ids is for models with an encoder in front of their decoder")),
            None => Ok(Vec::new()),
        };
    };
    if args.ids.is_none() {
        place.tokenizer(model, &args.file)?.close(ids);
    }
    let given = args.decoder_ids.clone().unwrap_or_else(|| vec![encoder.start]);
    Ok(std::mem::replace(ids, compute::known_ids(&given, &model.plan)?))
}

/// The prompt's ids: given ones, or those of the text with special tokens parsed and BOS as the model says.
fn ids(args: &LogitsArgs, place: &Place, model: &Recorded) -> Result<Vec<u32>> {
    if let Some(ids) = &args.ids {
        return compute::known_ids(ids, &model.plan);
    }
    let tokenizer = place.tokenizer(model, &args.file)?;
    let text = match &args.prompt {
        Some(text) => text.clone(),
        None => crate::tokenize::read_text(None)?,
    };
    let ids = ir_engine::run::prompt_ids(&tokenizer, &text);
    if ids.is_empty() {
        return Err(Failure::usage("the prompt is empty, and the model puts nothing before it: give a text or --ids"));
    }
    Ok(ids)
}

/// Tokens that the cache has room for: those of `--ctx`, else those that are needed. `limit` is the model's own.
fn context(args: &LogitsArgs, limit: usize, n_prompt: usize) -> Result<usize> {
    let too_many = |what: &str| {
        let n = args.n;
        Failure::run(format!("{n_prompt} tokens of prompt and {n} generated exceed {what}"))
    };
    let total = n_prompt.saturating_add(args.n);
    match args.ctx {
        _ if total > limit => Err(too_many(&format!("the model's context of {limit}: shorten them"))),
        Some(n) if n > limit => {
            Err(Failure::usage(format!("--ctx {n} is beyond the model's context of {limit}: ask for at most that")))
        }
        Some(n) if total > n => Err(too_many(&format!("--ctx {n}: shorten them, or ask for more"))),
        given => Ok(given.unwrap_or(total)),
    }
}
