//! Talks: each line of standard input is a turn. What the model has read stays in its cache.
//!
//! `cargo run --release -p ir-engine --example chat -- MODEL.gguf`
#![allow(clippy::print_stdout, reason = "an example's output is its point")]

use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ir_engine::cpu::{Cpu, CpuOptions};
use ir_engine::device::Device;
use ir_engine::model::{Model, ModelOptions};
use ir_engine::run::{Engine, EngineOptions, Part, Session, wait};
use ir_engine::text::chat::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: chat MODEL.gguf")?;
    let model = Arc::new(Model::open(Path::new(&path), &ModelOptions::default())?);
    let device = Device::Cpu(Arc::new(Cpu::new(&CpuOptions::default())?));
    let options = EngineOptions { max_sequences: 1, ..EngineOptions::default() };
    let engine = Engine::new(model, &device, &options)?;

    let start = Instant::now();
    let mut session = Session::new(engine, Box::new(move || start.elapsed().as_secs_f64()));
    print!("> ");
    std::io::stdout().flush()?;
    for line in std::io::stdin().lock().lines() {
        session.say(Message::new("user", line?));
        session.start()?;
        while let Some(parts) = wait(session.next())? {
            for part in parts {
                match part {
                    Part::Text(text) | Part::Thinking(text) => print!("{text}"),
                    Part::CallEnd { call, .. } => println!("{}({})", call.name, call.arguments),
                    Part::CallStart { .. } | Part::CallArguments { .. } | Part::CallBroken { .. } => {}
                }
            }
            std::io::stdout().flush()?;
        }
        if let Some((reason, usage)) = session.usage() {
            let (cached, all) = (usage.cached_tokens, usage.prompt_tokens);
            println!("\n[{}; {cached} of {all} prompt tokens were in the cache]", reason.name());
        }
        print!("> ");
        std::io::stdout().flush()?;
    }
    Ok(())
}
