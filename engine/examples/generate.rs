//! Continues a text, with the sampling that the model's file recommends.
//!
//! `cargo run --release -p ir-engine --example generate -- MODEL.gguf "Once upon a time"`
#![allow(clippy::print_stdout, reason = "an example's output is its point")]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ir_engine::cpu::{Cpu, CpuOptions};
use ir_engine::device::Device;
use ir_engine::model::{Model, ModelOptions};
use ir_engine::run::{Engine, EngineOptions, Event, Request, Sampling, prompt_ids, wait};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: generate MODEL.gguf [TEXT]")?;
    let text = args.next().unwrap_or_else(|| "Once upon a time".into());

    let model = Arc::new(Model::open(Path::new(&path), &ModelOptions::default())?);
    let device = Device::Cpu(Arc::new(Cpu::new(&CpuOptions::default())?));
    let mut engine = Engine::new(Arc::clone(&model), &device, &EngineOptions::default())?;

    let start = Instant::now();
    let clock = move || start.elapsed().as_secs_f64();
    let prompt = prompt_ids(model.tokenizer(), &text);
    let sampling = Sampling { seed: 1, ..Sampling::from_meta(model.meta()) };
    engine.add(Request { prompt, sampling, max_tokens: Some(200), ..Request::default() }, clock())?;

    print!("{text}");
    while !engine.is_idle() {
        for event in wait(engine.step(&clock))? {
            match event {
                Event::Token { text, .. } => print!("{text}"),
                Event::Done { reason, usage, .. } => println!(
                    "\n[{}: {} prompt tokens in {:.2} s, {} tokens in {:.2} s]",
                    reason.name(),
                    usage.prompt_tokens,
                    usage.prompt,
                    usage.completion_tokens,
                    usage.generation
                ),
                Event::Embedding { .. } => {}
                Event::Error { error, .. } => return Err(error.into()),
            }
            std::io::stdout().flush()?;
        }
    }
    Ok(())
}
