//! `ir embed`: embeddings of texts, computed together and written in the texts' order.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ir_engine::device::KvKind;
use ir_engine::model::{Model, Pooling};
use ir_engine::plan::CacheLayout;
use ir_engine::run::{EmbedRequest, Engine, EngineOptions, Event, embed_ids, wait};
use serde_json::json;

use crate::args::EmbedArgs;
use crate::compute;
use crate::failure::{Failure, Result};
use crate::models::{self, Opening};
use crate::npy::NpyWriter;
use crate::term::{self, Out};

/// Texts that are computed together.
const MAX_SEQUENCES: usize = 16;
/// Memory that the cache may take where one text does not need more.
const KV_BUDGET: u64 = 2 << 30;

/// Computes the embeddings and writes them.
pub(crate) fn embed(args: &EmbedArgs) -> Result {
    let place = models::find(&args.model, &args.file)?;
    let model = Arc::new(place.open(&args.file, &args.lora)?);
    check(args, &model)?;
    let prompts = prompts(&model, &texts(args)?)?;
    let requests: Vec<EmbedRequest> = prompts.into_iter().map(|prompt| request(args, prompt)).collect();
    let device = compute::device(&args.device, args.threads.threads)?;
    let lengths: Vec<usize> = requests.iter().map(|r| r.prompt.len()).collect();
    let options = engine_options(&model, &lengths, compute::kv_kind(args.device.kv_type));
    let mut engine = Engine::new(Arc::clone(&model), &device, &options).map_err(|e| place.failure(&e))?;
    let (n, n_tokens) = (requests.len(), requests.iter().map(|r| r.prompt.len()).sum::<usize>());
    let mut sink = Sink::new(args, &model, &place.name(), n, n_tokens)?;
    let started = Instant::now();
    run(&mut engine, requests, &mut |values| sink.take(values), &|| started.elapsed().as_secs_f64())?;
    sink.finish()?;
    if args.verbose {
        let (seconds, texts, tokens) =
            (started.elapsed().as_secs_f64(), term::counted(n, "text"), term::counted(n_tokens, "token"));
        let rate = n_tokens as f64 / seconds.max(1e-9);
        term::remark(&format!("{texts}, {tokens} in {seconds:.2} s: {rate:.1} tokens/s on {}", device.name()));
    }
    Ok(())
}

/// The texts: arguments, or else the lines of a file or of standard input.
fn texts(args: &EmbedArgs) -> Result<Vec<String>> {
    if !args.texts.is_empty() {
        return Ok(args.texts.clone());
    }
    let lines = crate::tokenize::read_text(args.text_file.as_deref())?;
    let texts: Vec<String> = lines.lines().map(str::to_owned).collect();
    if texts.is_empty() {
        return Err(Failure::usage("there is no text: give texts as arguments, or one per line with -f or a pipe"));
    }
    Ok(texts)
}

/// The texts' token ids.
fn prompts(model: &Model, texts: &[String]) -> Result<Vec<Vec<u32>>> {
    let (limit, n_vocab) = (limit(model), model.plan().n_vocab());
    let ids = |(i, text): (usize, &String)| {
        let (ids, i) = (embed_ids(model.tokenizer(), text), i + 1);
        if ids.is_empty() {
            return Err(Failure::usage(format!(
                "text {i} is empty, and the model puts nothing around it: leave it out"
            )));
        }
        if ids.len() > limit {
            let n = ids.len();
            return Err(Failure::run(format!(
                "text {i} has {n} tokens and the model's context holds {limit}: shorten the text, or embed it in parts"
            )));
        }
        match ids.iter().find(|id| **id as usize >= n_vocab) {
            Some(id) => Err(Failure::run(format!(
                "the tokenizer gives id {id}, but the model knows {n_vocab} tokens: the file is damaged"
            ))),
            None => Ok(ids),
        }
    };
    texts.iter().enumerate().map(ids).collect()
}

/// Tokens that the model reads at most.
pub(crate) fn limit(model: &Model) -> usize {
    model.spec().n_context.min(model.plan().n_positions())
}

fn request(args: &EmbedArgs, prompt: Vec<u32>) -> EmbedRequest {
    let pooling = args.pooling.map(Into::into);
    let (dimensions, normalize) = (args.dimensions, !args.no_normalize);
    EmbedRequest { prompt, pooling, dimensions, normalize, ..EmbedRequest::default() }
}

/// Refuses flags that do not fit the model, before it is loaded.
fn check(args: &EmbedArgs, model: &Model) -> Result {
    model.embeds(args.pooling.map(Into::into))?;
    request(args, Vec::new())
        .check(model.plan().n_vocab(), model.plan().n_pooled())
        .map_err(|e| Failure::usage(e.to_string()))
}

/// How the engine pools, in words.
fn pooling(args: &EmbedArgs, model: &Model) -> &'static str {
    match args.pooling.map_or(model.spec().pooling, Into::into) {
        Pooling::None => Pooling::Last.name(),
        pooling => pooling.name(),
    }
}

/// Room for the longest text, and for as many together as the budget allows.
pub(crate) fn engine_options(model: &Model, lengths: &[usize], kv: KvKind) -> EngineOptions {
    let longest = lengths.iter().copied().max().unwrap_or(0).max(2);
    let max_sequences = lengths.len().clamp(1, MAX_SEQUENCES);
    let options = EngineOptions { context: Some(longest), kv, max_sequences, ..EngineOptions::default() };
    let one = CacheLayout::of(model.plan(), kv).sequence_bytes(longest, options.chunk);
    let kv_budget = one.saturating_mul(max_sequences as u64 + 1).min(KV_BUDGET.max(one));
    EngineOptions { kv_budget, ..options }
}

/// Computes all requests and hands their embeddings on in order.
fn run(
    engine: &mut Engine,
    requests: Vec<EmbedRequest>,
    take: &mut dyn FnMut(Vec<f32>) -> Result,
    clock: &dyn Fn() -> f64,
) -> Result {
    let add = |request| engine.embed(request, clock());
    let ids = requests.into_iter().map(add).collect::<ir_engine::Result<Vec<_>>>()?;
    let mut next = ids.into_iter().peekable();
    let mut done = BTreeMap::new();
    while !engine.is_idle() {
        for event in wait(engine.step(clock))? {
            match event {
                Event::Embedding { seq, values, .. } => _ = done.insert(seq, values),
                Event::Error { error, .. } => return Err(error.into()),
                Event::Token { .. } | Event::Done { .. } => {}
            }
        }
        while let Some(values) = next.peek().and_then(|id| done.remove(id)) {
            next.next();
            take(values)?;
        }
    }
    Ok(())
}

/// Where embeddings go.
enum Sink<'a> {
    /// A line for each: a JSON array.
    Lines(Out),
    /// One JSON object; what comes before the next embedding.
    Json(Out, String),
    /// NumPy's format.
    File(NpyWriter, &'a Path),
    /// A table of their cosines.
    Table(Out, Vec<Vec<f32>>),
}

fn unwritten(path: &Path) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::run(format!("cannot write {}: {error}", path.display()))
}

/// The shortest digits that read back as the same numbers.
fn array(values: &[f32]) -> Result<String> {
    serde_json::to_string(values).map_err(|e| Failure::run(format!("the embedding cannot be written: {e}")))
}

impl Sink<'_> {
    fn new<'a>(args: &'a EmbedArgs, model: &Model, name: &str, n: usize, n_tokens: usize) -> Result<Sink<'a>> {
        let dimensions = args.dimensions.unwrap_or(model.plan().n_pooled());
        if let Some(path) = &args.output {
            return Ok(Sink::File(NpyWriter::create(path, n, dimensions).map_err(unwritten(path))?, path));
        }
        if args.similarity {
            return Ok(Sink::Table(Out::new(), Vec::new()));
        }
        if !args.json {
            return Ok(Sink::Lines(Out::new()));
        }
        let head = json!({ "model": name, "pooling": pooling(args, model), "dimensions": dimensions,
            "prompt_tokens": n_tokens });
        let head = head.to_string();
        Ok(Sink::Json(Out::new(), format!("{},\"embeddings\":[", head.trim_end_matches('}'))))
    }

    fn take(&mut self, values: Vec<f32>) -> Result {
        match self {
            Sink::Lines(out) => out.line(array(&values)?),
            Sink::Json(out, before) => {
                let text = format!("{before}{}", array(&values)?);
                *before = ",".to_owned();
                out.text(&text)
            }
            Sink::File(file, path) => file.row(&values).map_err(unwritten(path)),
            Sink::Table(_, all) => {
                all.push(values);
                Ok(())
            }
        }
    }

    fn finish(self) -> Result {
        match self {
            Sink::Lines(_) => Ok(()),
            Sink::Json(mut out, _) => out.line("]}"),
            Sink::File(file, path) => file.finish().map_err(unwritten(path)),
            Sink::Table(mut out, all) => {
                for a in &all {
                    let cosines: Vec<String> = all.iter().map(|b| format!("{:7.4}", cosine(a, b))).collect();
                    out.line(cosines.join(" "))?;
                }
                Ok(())
            }
        }
    }
}

/// The cosine of the angle between two vectors; 0 where one has no direction.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_of_known_angles() {
        assert!((cosine(&[1.0, 0.0], &[3.0, 3.0]) - 0.5f64.sqrt()).abs() < 1e-12);
        assert_eq!(cosine(&[1.0, 2.0], &[-2.0, 1.0]), 0.0);
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 1.0]), 0.0);
    }
}
