//! The `ir` command: parses the command line, calls the command, turns its failure into an exit code.

mod args;
mod bench;
mod check;
mod completions;
mod compute;
mod config;
mod devices;
mod embed;
mod failure;
mod grammar;
mod info;
mod list;
mod logits;
mod memory;
mod models;
mod npy;
mod perplexity;
mod profile;
mod repl;
mod run;
mod serve;
mod synthetic;
mod talk;
mod term;
mod tokenize;

use std::process::ExitCode;

use args::Command;

fn main() -> ExitCode {
    let result = config::parse().and_then(|cli| match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Serve(args) => serve::serve(args),
        Command::List(args) => list::list(&args),
        Command::Info(args) => info::info(&args),
        Command::Tokenize(args) => tokenize::tokenize(&args),
        Command::Logits(args) => logits::logits(&args),
        Command::Embed(args) => embed::embed(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::Perplexity(args) => perplexity::perplexity(&args),
        Command::Check(args) => check::check(&args),
        Command::Devices(args) => devices::devices(&args),
        Command::Config(args) => config::config(&args),
        Command::Completions(args) => completions::completions(&args),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            term::complain(&failure);
            ExitCode::from(failure.code())
        }
    }
}
