//! The `ir` command: parses the command line, calls the command, turns its failure into an exit code.

mod args;
mod bench;
mod check;
mod client;
mod completions;
mod compute;
mod config;
mod devices;
mod divergence;
mod embed;
mod failure;
mod fit;
mod grammar;
mod imatrix;
mod info;
mod interrupt;
mod launch;
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
mod rerank;
mod run;
mod running;
mod serve;
mod show;
mod split;
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
        Command::Launch(args) => launch::launch(&args),
        Command::Ps(args) => running::ps(&args),
        Command::Stop(args) => running::stop(&args),
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
        Command::Rerank(args) => rerank::rerank(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::Perplexity(args) => perplexity::perplexity(&args),
        Command::Imatrix(args) => imatrix::imatrix(&args),
        Command::Quantize(args) => quantize::quantize(&args),
        Command::Convert(args) => quantize::convert(&args),
        Command::Split(args) => split::split(&args),
        Command::Merge(args) => split::merge(&args),
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
