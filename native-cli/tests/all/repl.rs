//! The chat as a person types it, on a terminal that util-linux's `script` makes.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use crate::common::{scratch, skipped, write};

/// Ctrl-C and Ctrl-D as a terminal sends them.
const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";

/// What a terminal is told (to mark what is pasted) when a line is about to be read.
const READY: &str = "\x1b[?2004h";

/// What a terminal shows of `ir run ARGS` while these lines are typed; `None`, said on stderr, without `script`.
fn chat(args: &str, lines: &[&str]) -> Option<String> {
    let home = scratch().join("chat-home");
    std::fs::create_dir_all(&home).unwrap();
    let mut command = Command::new("script");
    command.args(["-qec", &format!("{} run {args}", env!("CARGO_BIN_EXE_ir")), "/dev/null"]);
    command.env("HOME", &home).env("TERM", "xterm").env("NO_COLOR", "1").current_dir(scratch());
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let Ok(mut child) = spawned else {
        skipped("no `script` on this machine to make a terminal");
        return None;
    };
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut seen = String::new();
    for (i, line) in lines.iter().chain(&["/exit"]).enumerate() {
        let mut buffer = [0; 4096];
        // Each line waits for its own prompt.
        while seen.matches(READY).count() <= i {
            let n = stdout.read(&mut buffer).unwrap();
            assert!(n > 0, "the chat ended before {line:?}: {seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
        let end = if [CTRL_C, CTRL_D].contains(line) { "" } else { "\r" };
        stdin.write_all(format!("{line}{end}").as_bytes()).unwrap();
    }
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    child.wait().unwrap();
    seen.push_str(&String::from_utf8_lossy(&rest));
    Some(seen)
}

#[test]
fn conversations_are_saved_and_loaded_and_nothing_else_is_overwritten() {
    let other = write("letter.txt", b"Dear Ada");
    let saved = scratch().join("chat-home/saved.json");
    let _ = std::fs::remove_file(&saved);
    let lines = ["/save letter.txt", "/load letter.txt", "/system Be a fox.", "/system", "/save ~/saved.json"];
    let more = ["/save ~/saved.json", "/system none", "/system", "/load ~/saved.json", "/show", "/set n -1", "/set"];
    let Some(seen) = chat("ir-tiny", &[&lines[..], &more].concat()) else { return };
    assert_eq!(std::fs::read(&other).unwrap(), b"Dear Ada");
    let words = ["choose another name", "no saved conversation: /save", "No system prompt is set", "0 tokens", "n all"];
    for word in words.iter().chain(&["conversation is in ~/saved.json", "1 message,", "system: Be a fox."]) {
        assert!(seen.contains(word), "{word}: {seen}");
    }
    assert!(std::fs::read_to_string(saved).unwrap().contains("Be a fox."));
}

#[test]
fn a_text_of_several_lines_is_dropped_and_a_full_chat_says_so() {
    let typed = ["\"\"\"one", CTRL_C, "\"\"\"two", CTRL_D, "Hello!", "Hello! Tell me a story. Who are you?"];
    let Some(seen) = chat("ir-tiny --temp 0 --ctx 48", &typed) else { return };
    assert_eq!(seen.matches("The text was dropped.").count(), 2, "{seen}");
    assert!(seen.contains("How can I help you?"), "{seen}");
    assert!(seen.contains("no longer fits the context of 48: /reset"), "{seen}");
}
