//! `ir completions`: scripts that complete commands and flags in a shell.

use clap::CommandFactory;
use clap_complete::aot;

use crate::args::{Cli, CompletionsArgs, Shell};
use crate::failure::Result;
use crate::term::Out;

/// Prints the script for a shell.
pub(crate) fn completions(args: &CompletionsArgs) -> Result {
    let shell = match args.shell {
        Shell::Bash => aot::Shell::Bash,
        Shell::Zsh => aot::Shell::Zsh,
        Shell::Fish => aot::Shell::Fish,
        Shell::Powershell => aot::Shell::PowerShell,
    };
    let mut script = Vec::new();
    aot::generate(shell, &mut Cli::command(), "ir", &mut script);
    Out::new().raw(&script)
}
