//! Standard output and standard error. What comes from a model or a file is escaped on a terminal, so that it cannot
//! move the cursor, set a title or paint. Colours are ours alone.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};

use crate::failure::{Failure, Result};

/// Whether a character acts on a terminal instead of being shown: controls, and overrides of the writing direction.
fn acts(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t')) || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with characters that would act on a terminal written out, as in `\x1b`.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\r' => out.push_str("\\r"),
            c if acts(c) && (c as u32) < 0x100 => write!(out, "\\x{:02x}", c as u32).unwrap_or_default(),
            c if acts(c) => write!(out, "\\u{{{:x}}}", c as u32).unwrap_or_default(),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// The text on one line: line breaks written out too.
pub(crate) fn one_line(text: &str) -> String {
    escaped(text).replace('\n', "\\n").replace('\t', "\\t")
}

/// At most `width` characters of a text, the cut marked.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().nth(width).is_none() {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// `1 token`, `2 tokens`.
pub(crate) fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Columns of the terminal; 100 where there is none.
pub(crate) fn width() -> usize {
    terminal_size::terminal_size().map_or(100, |(width, _)| usize::from(width.0).max(40))
}

fn may_paint() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// A kind of emphasis.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Style {
    /// Less important: reasoning, remarks.
    Dim,
    /// Headings.
    Bold,
}

impl Style {
    /// The escape sequence that begins it.
    fn code(self) -> &'static str {
        match self {
            Style::Dim => "\x1b[2m",
            Style::Bold => "\x1b[1m",
        }
    }
}

const PLAIN: &str = "\x1b[0m";

/// Standard output.
#[derive(Debug)]
pub(crate) struct Out {
    stdout: std::io::Stdout,
    terminal: bool,
    paint: bool,
}

impl Out {
    /// Looks whether standard output is a terminal.
    pub(crate) fn new() -> Out {
        let stdout = std::io::stdout();
        let terminal = stdout.is_terminal();
        Out { stdout, terminal, paint: terminal && may_paint() }
    }

    /// Writes a text, escaped on a terminal, and sends it on its way.
    pub(crate) fn text(&mut self, text: &str) -> Result {
        if text.is_empty() {
            return Ok(());
        }
        let text = if self.terminal { escaped(text) } else { Cow::Borrowed(text) };
        self.raw(text.as_bytes())
    }

    /// Writes a text and a line break.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) -> Result {
        self.text(&format!("{}\n", text.as_ref()))
    }

    /// Writes a list of JSON values, laid out for people.
    pub(crate) fn json(&mut self, list: &[serde_json::Value]) -> Result {
        self.line(serde_json::to_string_pretty(list).unwrap_or_default())
    }

    /// Writes an emphasised text.
    pub(crate) fn styled(&mut self, style: Style, text: &str) -> Result {
        if !self.paint || text.is_empty() {
            return self.text(text);
        }
        self.raw(format!("{}{}{PLAIN}", style.code(), escaped(text)).as_bytes())
    }

    /// Writes bytes as they are. For data that is ours.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result {
        self.stdout.write_all(bytes)?;
        self.stdout.flush()?;
        Ok(())
    }
}

/// Writes a remark to standard error, escaped and where possible dim. Errors are nobody's business.
pub(crate) fn remark(text: &str) {
    let mut stderr = std::io::stderr();
    let text = escaped(text);
    let line = if stderr.is_terminal() && may_paint() {
        format!("{}{text}{PLAIN}\n", Style::Dim.code())
    } else {
        format!("{text}\n")
    };
    let _ = stderr.write_all(line.as_bytes());
}

/// A remark for people alone: nothing if standard error is no terminal.
pub(crate) fn notice(text: Option<&str>) {
    if let Some(text) = text.filter(|_| std::io::stderr().is_terminal()) {
        remark(text);
    }
}

/// Says on standard error what went wrong, in one line.
pub(crate) fn complain(failure: &Failure) {
    if let Some(sentence) = failure.sentence() {
        let _ = writeln!(std::io::stderr(), "ir: {}", one_line(sentence));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_acts_reaches_a_terminal() {
        let cases = [
            ("plain é 🦀\n\tx", "plain é 🦀\n\tx"),
            ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
            ("a\rb\x08\x7f", "a\\rb\\x08\\x7f"),
            ("\u{9b}31m", "\\x9b31m"),
            ("\u{202e}gnp.exe", "\\u{202e}gnp.exe"),
        ];
        for (text, want) in cases {
            assert_eq!(escaped(text), want);
            assert!(!escaped(text).contains(acts));
        }
        assert_eq!(one_line("a\nb"), "a\\nb");
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("abcd", 4), "abcd");
    }
}
