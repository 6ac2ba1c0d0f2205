//! `ir rerank`: how well texts answer a query, by a model made to rank.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use ir_engine::model::Model;
use ir_engine::run::{Engine, Event, RankRequest, rank_request, wait};
use serde_json::json;

use crate::args::RerankArgs;
use crate::compute;
use crate::embed;
use crate::failure::{Failure, Result};
use crate::models::{self, Opening};
use crate::term::{self, Out};

/// Scores the documents and writes them: with `--json` in the order given, for people the best first.
pub(crate) fn rerank(args: &RerankArgs) -> Result {
    let place = models::find(&args.model, &args.file)?;
    let model = Arc::new(place.open(&args.file, &args.lora)?);
    model.expect_ranking()?;
    let documents = documents(args)?;
    let pairs = pairs(&model, &args.query, &documents)?;
    let device = compute::device(&args.device, args.threads.threads)?;
    let lengths: Vec<usize> = pairs.iter().map(|pair| pair.prompt.len()).collect();
    let options = embed::engine_options(&model, &lengths, compute::kv_kind(args.device.kv_type));
    let mut engine = Engine::new(Arc::clone(&model), &device, &options).map_err(|e| place.failure(&e))?;
    let started = Instant::now();
    let scores = run(&mut engine, pairs, &|| started.elapsed().as_secs_f64())?;
    let n_tokens: usize = lengths.iter().sum();
    if args.verbose {
        let (seconds, texts, tokens) = (
            started.elapsed().as_secs_f64(),
            term::counted(documents.len(), "document"),
            term::counted(n_tokens, "token"),
        );
        let rate = n_tokens as f64 / seconds.max(1e-9);
        term::remark(&format!("{texts}, {tokens} in {seconds:.2} s: {rate:.1} tokens/s on {}", device.name()));
    }
    write(args, &place.name(), &documents, &scores, n_tokens)
}

/// The documents: arguments, or else the lines of a file or of standard input.
fn documents(args: &RerankArgs) -> Result<Vec<String>> {
    if !args.documents.is_empty() {
        return Ok(args.documents.clone());
    }
    let lines = crate::tokenize::read_text(args.text_file.as_deref())?;
    let documents: Vec<String> = lines.lines().map(str::to_owned).collect();
    if documents.is_empty() {
        return Err(Failure::usage(
            "there is nothing to rank: give documents after the query, or one per line with -f or a pipe",
        ));
    }
    Ok(documents)
}

/// Each document joined with the query.
fn pairs(model: &Model, query: &str, documents: &[String]) -> Result<Vec<RankRequest>> {
    let (limit, n_vocab) = (embed::limit(model), model.plan().n_vocab());
    let pair = |(i, document): (usize, &String)| {
        let (pair, i) = (rank_request(model, query, document)?, i + 1);
        if pair.prompt.len() > limit {
            let n = pair.prompt.len();
            return Err(Failure::run(format!(
                "document {i} with the query has {n} tokens and the model reads {limit} at most: shorten it, or rank its parts"
            )));
        }
        match pair.prompt.iter().find(|id| **id as usize >= n_vocab) {
            Some(id) => Err(Failure::run(format!(
                "the tokenizer gives id {id}, but the model knows {n_vocab} tokens: the file is damaged"
            ))),
            None => Ok(pair),
        }
    };
    documents.iter().enumerate().map(pair).collect()
}

/// The scores in the order of the pairs.
fn run(engine: &mut Engine, pairs: Vec<RankRequest>, clock: &dyn Fn() -> f64) -> Result<Vec<f32>> {
    let mut scores = vec![0.0; pairs.len()];
    let mut places = HashMap::new();
    for (place, pair) in pairs.into_iter().enumerate() {
        places.insert(engine.rank(pair, clock())?, place);
    }
    while !engine.is_idle() {
        for event in wait(engine.step(clock))? {
            match event {
                Event::Embedding { seq, values, .. } => {
                    if let (Some(place), Some(score)) = (places.get(&seq), values.first()) {
                        scores[*place] = *score;
                    }
                }
                Event::Error { error, .. } => return Err(error.into()),
                Event::Token { .. } | Event::Done { .. } => {}
            }
        }
    }
    Ok(scores)
}

fn write(args: &RerankArgs, model: &str, documents: &[String], scores: &[f32], n_tokens: usize) -> Result {
    let mut out = Out::new();
    if args.json {
        let results: Vec<_> =
            scores.iter().enumerate().map(|(index, score)| json!({ "index": index, "score": score })).collect();
        let all = json!({ "model": model, "prompt_tokens": n_tokens, "results": results });
        return out.line(all.to_string());
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    for i in order {
        let line: String = documents[i].chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        out.line(format!("{:9.4}  {:>4}  {line}", scores[i], i + 1))?;
    }
    Ok(())
}
