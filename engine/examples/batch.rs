//! Answers many prompts at once: one step computes a row of each.
//!
//! `cargo run --release -p ir-engine --example batch -- MODEL.gguf "One day" "The dog" "It was"`
#![allow(clippy::print_stdout, reason = "an example's output is its point")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ir_engine::cpu::{Cpu, CpuOptions};
use ir_engine::device::Device;
use ir_engine::model::{Model, ModelOptions};
use ir_engine::run::{Engine, EngineOptions, Event, Request, Sampling, prompt_ids, wait};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: batch MODEL.gguf PROMPT...")?;
    let model = Arc::new(Model::open(Path::new(&path), &ModelOptions::default())?);
    let device = Device::Cpu(Arc::new(Cpu::new(&CpuOptions::default())?));
    let mut engine = Engine::new(Arc::clone(&model), &device, &EngineOptions::default())?;

    let start = Instant::now();
    let clock = move || start.elapsed().as_secs_f64();
    let mut texts = BTreeMap::new();
    for text in args {
        let prompt = prompt_ids(model.tokenizer(), &text);
        let request = Request { prompt, sampling: Sampling::greedy(), max_tokens: Some(60), ..Request::default() };
        texts.insert(engine.add(request, clock())?, text);
    }
    let (mut n_tokens, mut n_steps) = (0, 0);
    while !engine.is_idle() {
        n_steps += 1;
        for event in wait(engine.step(&clock))? {
            match event {
                Event::Token { seq, text, .. } => {
                    n_tokens += 1;
                    texts.entry(seq).or_default().push_str(&text);
                }
                Event::Done { .. } | Event::Embedding { .. } => {}
                Event::Error { error, .. } => return Err(error.into()),
            }
        }
    }
    for text in texts.values() {
        println!("{text}\n---");
    }
    println!("{n_tokens} tokens in {n_steps} steps, {:.1} tokens/s", n_tokens as f64 / clock());
    Ok(())
}
