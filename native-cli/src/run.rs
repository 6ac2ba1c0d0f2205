//! `ir run`: one question, or a chat where there is a terminal and no question.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;

use ir_engine::builtin;
use ir_store::Place;

use crate::args::RunArgs;
use crate::failure::{Failure, Result};
use crate::models;
use crate::talk::Talk;
use crate::{interrupt, repl, term, tokenize};

/// Answers the prompt, or chats.
pub(crate) fn run(args: &RunArgs) -> Result {
    let name = args.model.as_deref().unwrap_or(builtin::NAME);
    let place = models::find_or_pull(name, &args.file)?;
    let interactive = std::io::stdin().is_terminal() && args.prompt.is_none();
    if interactive && !std::io::stdout().is_terminal() {
        return Err(Failure::usage("the output is not a terminal, so no chat can begin: give a prompt"));
    }
    if interactive {
        let talk = Talk::new(&place, args)?;
        return repl::chat(talk, &place);
    }
    let prompt = prompt(args)?;
    introduce(&place);
    // One question ends at once with Ctrl-C; the system takes the memory back.
    interrupt::on(|| {
        if std::io::stdout().is_terminal() {
            eprint_newline();
        }
        std::process::exit(i32::from(Failure::Interrupted.code()));
    });
    let mut talk = Talk::new(&place, args)?;
    talk.ask(&prompt, &AtomicUsize::new(0))
}

fn eprint_newline() {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), b"\n");
}

/// The argument and what is piped in, joined by a blank line.
fn prompt(args: &RunArgs) -> Result<String> {
    let piped = if std::io::stdin().is_terminal() { String::new() } else { tokenize::read_text(None)? };
    let piped = piped.trim_end_matches(['\n', '\r']);
    let parts: Vec<&str> =
        [args.prompt.as_deref().unwrap_or(""), piped].into_iter().filter(|p| !p.is_empty()).collect();
    if parts.is_empty() {
        let name = args.model.as_deref().unwrap_or(builtin::NAME);
        return Err(Failure::usage(format!("the prompt is empty: ask as in `ir run {name} \"Who are you?\"`")));
    }
    Ok(parts.join("\n\n"))
}

/// On first use, says what the built-in model is.
fn introduce(place: &Place) {
    if !matches!(place, Place::Builtin) {
        return;
    }
    let mark = state_folder().map(|folder| folder.join("met-ir-tiny"));
    if mark.as_deref().is_some_and(|m| m.exists()) {
        return;
    }
    term::remark(repl::TINY);
    if let Some(mark) = mark {
        // Where this cannot be written, the remark comes again: no harm.
        let _ = mark.parent().map(std::fs::create_dir_all);
        let _ = std::fs::write(mark, "");
    }
}

/// Where this program keeps what it remembers from one time to the next.
pub(crate) fn state_folder() -> Option<PathBuf> {
    use etcetera::BaseStrategy;
    let base = etcetera::choose_base_strategy().ok()?;
    Some(base.state_dir().unwrap_or_else(|| base.data_dir()).join("ir"))
}
