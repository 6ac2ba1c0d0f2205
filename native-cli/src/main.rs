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
mod interrupt;
mod list;
mod logits;
mod memory;
mod models;
mod npy;
mod perplexity;
mod profile;
mod pull;
mod quantize;
mod recipe;
mod repl;
mod run;
mod serve;
mod show;
mod stored;
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
        Command::Pull(args) => pull::pull(&args),
        Command::Show(args) => show::show(&args),
        Command::Cp(args) => stored::cp(&args),
        Command::Rm(args) => stored::rm(&args),
        Command::Create(args) => stored::create(&args),
        Command::Push(args) => stored::push(&args),
        Command::Search(args) => stored::search(&args),
        Command::Verify(args) => stored::verify(&args),
        Command::Gc(args) => stored::gc(&args),
        Command::Tokenize(args) => tokenize::tokenize(&args),
        Command::Logits(args) => logits::logits(&args),
        Command::Embed(args) => embed::embed(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::Perplexity(args) => perplexity::perplexity(&args),
        Command::Quantize(args) => quantize::quantize(&args),
        Command::Convert(args) => quantize::convert(&args),
        Command::Split(args) => quantize::split(&args),
        Command::Merge(args) => quantize::merge(&args),
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
