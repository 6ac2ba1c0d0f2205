//! The chat in the terminal: reads lines, streams answers, and knows a few commands that begin with a slash.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use ir_engine::run::Session;
use ir_engine::text::chat::Message;
use ir_store::Place;

use crate::args::Think;
use crate::failure::{Failure, Result};
use crate::run::state_folder;
use crate::talk::Talk;
use crate::term;

/// What to know about the built-in model.
pub(crate) const TINY: &str = "ir-tiny is a toy with 3 million parameters: it tells small stories and knows little \
    else.\nLoad a real model with `ir run FILE.gguf`, or put GGUF files where `ir list` looks.";

const HELP: &str = "\
Type a question and press Enter. A question of several lines begins and ends with \"\"\".
  /reset            forget the conversation
  /system [TEXT]    show or set the instructions before the chat; /system none clears them; both begin anew
  /set NAME VALUE   temp, top-k, top-p, min-p, repeat-penalty, seed, n, think
  /show             model, settings and conversation
  /save FILE        write the conversation to a file (settings are not kept)
  /load FILE        go on with a saved conversation
  /exit             leave (so does Ctrl-D)
Ctrl-C stops an answer.";

/// Lines of history that are kept.
const HISTORY: usize = 1000;

/// A line that was read.
enum Line {
    Text(String),
    /// Ctrl-C, or a line that could not be read.
    Nothing,
    End,
}

/// A path with `~/` as the user's home.
fn expanded(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), etcetera::home_dir()) {
        (Some(rest), Ok(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

/// Whether a file is a saved conversation, by its first bytes.
fn is_saved(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(64).read_to_end(&mut start));
    read.is_ok() && Session::is_saved(&start)
}

struct Repl {
    talk: Talk,
    name: String,
    editor: DefaultEditor,
    stop: Arc<AtomicUsize>,
}

/// Chats until the user leaves.
pub(crate) fn chat(talk: Talk, place: &Place) -> Result {
    let stop = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&stop);
    crate::interrupt::on(move || {
        // The first stops the answer; who presses three times has waited long enough.
        if counter.fetch_add(1, Ordering::Relaxed) >= 2 {
            std::process::exit(i32::from(Failure::Interrupted.code()));
        }
    });
    let config = rustyline::Config::builder().max_history_size(HISTORY).map(|b| b.build());
    let editor = config.and_then(DefaultEditor::with_config);
    let editor = editor.map_err(|e| Failure::run(format!("the terminal cannot be used: {e}")))?;
    let mut repl = Repl { talk, name: place.name(), editor, stop };
    repl.greet(place);
    let history = state_folder().map(|folder| folder.join("history"));
    if let Some(history) = &history {
        let _ = history.parent().map(std::fs::create_dir_all);
        let _ = repl.editor.load_history(history);
    }
    let left = repl.talk_until_end();
    if let Some(history) = &history {
        let _ = repl.editor.save_history(history);
    }
    left
}

impl Repl {
    fn greet(&self, place: &Place) {
        if matches!(place, Place::Builtin) {
            term::remark(TINY);
        }
        if self.talk.can_chat() {
            term::remark(&format!("{}: type /help for what can be done, Ctrl-D to leave.", self.name));
        } else {
            term::remark(&format!(
                "{} has no chat template: what you type is continued as it stands. /help, or Ctrl-D to leave.",
                self.name
            ));
        }
    }

    fn talk_until_end(&mut self) -> Result {
        loop {
            let text = match self.read()? {
                Line::End => return Ok(()),
                Line::Nothing => continue,
                Line::Text(text) => text,
            };
            if text.trim().is_empty() {
                continue;
            }
            let done = match text.strip_prefix('/') {
                Some(command) if !text.contains('\n') => match self.command(command.trim_end()) {
                    Ok(true) => return Ok(()),
                    other => other.map(|_| ()),
                },
                _ => self.ask(&text),
            };
            match done {
                // A failure here ends the turn, not the chat.
                Err(Failure::Quiet) => return Err(Failure::Quiet),
                Err(failure) => term::complain(&failure),
                Ok(()) => {}
            }
        }
    }

    fn ask(&mut self, text: &str) -> Result {
        self.stop.store(0, Ordering::Relaxed);
        let asked = self.talk.ask(text, &self.stop);
        self.stop.store(0, Ordering::Relaxed);
        asked?;
        self.talk.out.text("\n")
    }

    /// Reads a question: one line, or several within `"""`.
    fn read(&mut self) -> Result<Line> {
        let first = match self.line(">>> ")? {
            Line::Text(text) => text,
            Line::Nothing => {
                term::remark("Ctrl-D or /exit leaves.");
                return Ok(Line::Nothing);
            }
            Line::End => return Ok(Line::End),
        };
        let Some(start) = first.trim_start().strip_prefix("\"\"\"") else {
            let _ = self.editor.add_history_entry(first.as_str());
            return Ok(Line::Text(first));
        };
        let mut text = start.to_owned();
        while !text.trim_end().ends_with("\"\"\"") {
            match self.line("... ")? {
                Line::Text(line) => text.extend(["\n", line.as_str()]),
                Line::Nothing | Line::End => {
                    term::remark("The text was dropped.");
                    return Ok(Line::Nothing);
                }
            }
        }
        let text = text.trim_end().trim_end_matches("\"\"\"").trim_matches('\n').to_owned();
        let _ = self.editor.add_history_entry(format!("\"\"\"{text}\"\"\""));
        Ok(Line::Text(text))
    }

    fn line(&mut self, prompt: &str) -> Result<Line> {
        match self.editor.readline(prompt) {
            Ok(line) => Ok(Line::Text(line)),
            Err(ReadlineError::Eof) => Ok(Line::End),
            Err(ReadlineError::Interrupted) => Ok(Line::Nothing),
            Err(e) => Err(Failure::run(format!("cannot read from the terminal: {e}"))),
        }
    }

    /// Does what a command asks; true where it is to leave.
    fn command(&mut self, line: &str) -> Result<bool> {
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match name {
            "exit" | "quit" | "bye" => return Ok(true),
            "help" | "?" => self.talk.out.line(HELP)?,
            "reset" | "clear" => {
                self.talk.session.reset();
                term::remark("The conversation is forgotten.");
            }
            "system" => self.system(rest)?,
            "set" => self.set(rest)?,
            "show" => self.show()?,
            "save" => self.save(rest)?,
            "load" => self.load(rest)?,
            other => {
                let other = term::cut(other, 40);
                return Err(Failure::usage(format!("there is no command /{other}: /help lists them")));
            }
        }
        Ok(false)
    }

    fn system(&mut self, text: &str) -> Result {
        if !self.talk.can_chat() {
            return Err(Failure::usage("text is continued as it stands here: there is no place for a system prompt"));
        }
        if text.is_empty() {
            match &self.talk.system {
                Some(system) => self.talk.out.line(system)?,
                None => term::remark("No system prompt is set: the model's own is used, if it has one."),
            }
            return Ok(());
        }
        let none = text == "none";
        self.talk.system = (!none).then(|| text.to_owned());
        self.talk.session.reset();
        term::remark(if none {
            "The system prompt is the model's own again, and the conversation begins anew."
        } else {
            "The system prompt is set, and the conversation begins anew."
        });
        Ok(())
    }

    fn set(&mut self, rest: &str) -> Result {
        let Some((name, value)) = rest.split_once(char::is_whitespace) else {
            return self.talk.out.line(self.settings());
        };
        let value = value.trim();
        let wrong = || Failure::usage(format!("{value:?} is no value for {name}"));
        fn number<T: std::str::FromStr>(value: &str, wrong: impl Fn() -> Failure) -> Result<T> {
            value.parse().map_err(|_| wrong())
        }
        let options = &mut self.talk.session.options;
        let mut sampling = options.sampling.clone();
        match name {
            "temp" | "temperature" => sampling.temperature = number(value, wrong)?,
            "top-k" | "top_k" if value == "-1" => sampling.top_k = 0,
            "top-k" | "top_k" => sampling.top_k = number(value, wrong)?,
            "top-p" | "top_p" => sampling.top_p = number(value, wrong)?,
            "min-p" | "min_p" => sampling.min_p = number(value, wrong)?,
            "repeat-penalty" | "repeat_penalty" => sampling.repeat_penalty = number(value, wrong)?,
            "seed" if value == "random" || value == "-1" => self.talk.fixed_seed = false,
            "seed" => {
                sampling.seed = number(value, wrong)?;
                self.talk.fixed_seed = true;
            }
            "n" if value == "all" || value == "-1" => options.max_tokens = None,
            "n" => options.max_tokens = Some(number(value, wrong)?),
            "think" => {
                let think = match value {
                    "on" => Think::On,
                    "off" => Think::Off,
                    "hide" => Think::Hide,
                    _ => return Err(wrong()),
                };
                self.talk.set_think(think);
                return Ok(());
            }
            other => {
                let other = term::cut(other, 40);
                return Err(Failure::usage(format!("there is no setting {other}: /set lists them")));
            }
        }
        let n_vocab = self.talk.session.engine().model().plan().n_vocab();
        sampling.check(n_vocab)?;
        self.talk.session.options.sampling = sampling;
        Ok(())
    }

    fn settings(&self) -> String {
        let (options, talk) = (&self.talk.session.options, &self.talk);
        let s = &options.sampling;
        let seed = if talk.fixed_seed { s.seed.to_string() } else { "random".into() };
        let n = options.max_tokens.map_or_else(|| "all".to_owned(), |n| n.to_string());
        let think = match talk.think {
            None => "the model's own",
            Some(Think::On) => "on",
            Some(Think::Off) => "off",
            Some(Think::Hide) => "hide",
        };
        format!(
            "temp {}\ntop-k {}\ntop-p {}\nmin-p {}\nrepeat-penalty {}\nseed {seed}\nn {n}\nthink {think}",
            s.temperature, s.top_k, s.top_p, s.min_p, s.repeat_penalty
        )
    }

    fn show(&mut self) -> Result {
        let session = &self.talk.session;
        let (used, context) = (session.tokens().len(), session.engine().context());
        let mut text = format!("model {} ({used} of {context} tokens used)\n{}\n", self.name, self.settings());
        if let Some(system) = &self.talk.system {
            text.push_str(&format!("system: {system}\n"));
        }
        if self.talk.can_chat() {
            for message in session.messages() {
                let content = message.content.as_deref().unwrap_or("");
                text.push_str(&format!("\n[{}] {content}\n", message.role));
            }
        } else {
            text.push_str(&format!("\n{}\n", session.engine().model().tokenizer().decode(session.tokens(), true)));
        }
        self.talk.out.text(&text)
    }

    fn save(&mut self, path: &str) -> Result {
        if path.is_empty() {
            return Err(Failure::usage("say where to: /save FILE"));
        }
        let file = expanded(path);
        if file.exists() && !is_saved(&file) {
            return Err(Failure::usage(format!("{path} exists and is no saved conversation: choose another name")));
        }
        // Before the first question the system prompt is not part of the conversation, but is to come back with it.
        let session = &mut self.talk.session;
        let waiting = self.talk.system.as_ref().filter(|_| session.messages().is_empty() && !self.talk.raw);
        if let Some(system) = waiting {
            session.say(Message::new("system", system));
        }
        let bytes = session.save();
        if waiting.is_some() {
            session.unsay();
        }
        std::fs::write(file, bytes?).map_err(|e| Failure::run(format!("cannot write {path}: {e}")))?;
        term::remark(&format!("The conversation is in {path}."));
        Ok(())
    }

    fn load(&mut self, path: &str) -> Result {
        if path.is_empty() {
            return Err(Failure::usage("say which: /load FILE"));
        }
        let file = expanded(path);
        std::fs::File::open(&file).map_err(|e| Failure::run(format!("cannot read {path}: {e}")))?;
        if !is_saved(&file) {
            return Err(Failure::usage(format!("{path} is no saved conversation: /save FILE writes one")));
        }
        let bytes = std::fs::read(file).map_err(|e| Failure::run(format!("cannot read {path}: {e}")))?;
        let before = self.talk.session.save()?;
        self.talk.session.restore(&bytes).map_err(|e| Failure::run(format!("{path}: {e}")))?;
        let chat = !self.talk.session.messages().is_empty();
        let empty = self.talk.session.tokens().is_empty() && !chat;
        if !empty && chat == self.talk.raw {
            self.talk.session.restore(&before)?;
            let (it, here) = if chat { ("a chat", "continues text") } else { ("a text", "is a chat") };
            return Err(Failure::usage(format!(
                "{path} holds {it}, but this {here}: start `ir run` the other way (--raw)"
            )));
        }
        let messages = self.talk.session.messages();
        let system = messages.first().filter(|m| m.role == "system").and_then(|m| m.content.clone());
        let n = messages.len();
        if n == 1 && system.is_some() {
            // Set, but not asked with: the first question brings it.
            self.talk.session.unsay();
        }
        self.talk.system = system;
        let tokens = term::counted(self.talk.session.tokens().len(), "token");
        term::remark(&format!("The conversation is back: {}, {tokens}.", term::counted(n, "message")));
        Ok(())
    }
}
