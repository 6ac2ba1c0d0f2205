//! What a source asks of the stack of a parser and a compiler, measured in its tokens before either runs: they recurse
//! over operators, brackets and blocks, and over most of them without a limit of their own. Also takes the tags out that
//! mean nothing here.

use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Error, ErrorKind};

/// Blocks may nest this deep, each `elif` of an open one counted.
const MAX_BLOCKS: usize = 100;

/// Words may stand in a tag between two commas, with those around the brackets that are open.
const MAX_WORDS: usize = 400;

/// Brackets and signs may nest this deep within a tag.
const MAX_BRACKETS: usize = 48;

/// A tag may hold this many words; the hub's largest holds some hundreds.
const MAX_TAG: usize = 20_000;

/// A source may have so many lines, and a line so many bytes: the lexer counts both in 16 bits.
const MAX_LINES: usize = 65_000;

/// Tags that a matching `end` closes; `set` without a value is another.
const BLOCKS: [&str; 7] = ["if", "for", "macro", "call", "filter", "with", "generation"];

/// The words of a tag so far.
#[derive(Default)]
struct Tag<'a> {
    words: usize,
    /// Words since the last comma, for the tag and each open bracket in it.
    levels: Vec<usize>,
    /// Signs and `not`s that follow each other.
    signs: usize,
    /// Its name, where it has one.
    name: Option<&'a str>,
    assigns: bool,
}

/// The source that is parsed: with line ends of one kind, without the tags that mark what a trainer learns from, and with
/// the line end behind `{% raw %}`, which Jinja keeps and the lexer drops.
///
/// # Errors
/// Where it nests too deep, or is cut into no tokens.
pub(super) fn checked(source: &str, syntax: SyntaxConfig) -> Result<String, Error> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    if source.lines().count() > MAX_LINES || source.lines().any(|line| line.len() > MAX_LINES) {
        return Err(too_much(format!("it has more than {MAX_LINES} lines, or bytes in one of them")));
    }
    let (mut tag, mut blocks, mut edits) = (Tag::default(), Vec::new(), Vec::new());
    for token in tokenize(&source, false, syntax) {
        let (token, span) = token?;
        let place = span.start_offset as usize..span.end_offset as usize;
        match token {
            Token::TemplateData(_) if begins_raw(&source, place.start) => edits.push((place.start..place.start, "\n")),
            Token::TemplateData(_) => {}
            Token::VariableStart => tag = Tag { levels: vec![0], name: Some(""), ..Tag::default() },
            Token::BlockStart => tag = Tag { levels: vec![0], ..Tag::default() },
            Token::BlockEnd => nest(&mut blocks, &tag)?,
            Token::Ident(name) if tag.name.is_none() => {
                tag.name = Some(name);
                match name {
                    "generation" => edits.push((place, "if true")),
                    "endgeneration" => edits.push((place, "endif")),
                    _ => {}
                }
            }
            token => tag.take(&token)?,
        }
    }
    let mut text = source.clone();
    edits.into_iter().rev().for_each(|(place, other)| text.replace_range(place, other));
    Ok(text)
}

/// Whether a `{% raw %}` ends here and a line behind it.
fn begins_raw(source: &str, at: usize) -> bool {
    let (before, behind) = source.split_at(at);
    let tag = before.rfind("{%").map_or("", |start| &before[start + 2..]);
    behind.starts_with('\n') && tag.ends_with("%}") && tag.trim_matches(['-', '+', '%', '}', ' ']) == "raw"
}

impl Tag<'_> {
    fn take(&mut self, token: &Token) -> Result<(), Error> {
        self.words += 1;
        self.signs = match token {
            Token::Plus | Token::Minus | Token::Ident("not") => self.signs + 1,
            _ => 0,
        };
        match token {
            Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => {
                self.levels.last_mut().into_iter().for_each(|words| *words += 1);
                self.levels.push(0);
            }
            Token::ParenClose | Token::BracketClose | Token::BraceClose if self.levels.len() > 1 => {
                self.levels.pop();
            }
            Token::Comma => self.levels.last_mut().into_iter().for_each(|words| *words = 0),
            Token::Assign if self.levels.len() == 1 => self.assigns = true,
            _ => {}
        }
        self.levels.last_mut().into_iter().for_each(|words| *words += 1);
        if self.levels.len() > MAX_BRACKETS || self.signs > MAX_BRACKETS {
            return Err(too_much(format!("an expression nests more than {MAX_BRACKETS} deep")));
        }
        if self.levels.iter().sum::<usize>() > MAX_WORDS || self.words > MAX_TAG {
            return Err(too_much(format!("an expression has more than {MAX_WORDS} words")));
        }
        Ok(())
    }
}

/// Follows a tag into its block, or out of one. `blocks` has the `elif`s of each that is open.
fn nest(blocks: &mut Vec<usize>, tag: &Tag) -> Result<(), Error> {
    match tag.name {
        Some("elif") => blocks.last_mut().into_iter().for_each(|elifs| *elifs += 1),
        Some("set") if tag.assigns => {}
        Some(name) if name == "set" || BLOCKS.contains(&name) => blocks.push(0),
        Some(name) if name.starts_with("end") => drop(blocks.pop()),
        _ => {}
    }
    if blocks.len() + blocks.iter().sum::<usize>() > MAX_BLOCKS {
        return Err(too_much(format!("blocks nest more than {MAX_BLOCKS} deep")));
    }
    Ok(())
}

fn too_much(what: String) -> Error {
    Error::new(ErrorKind::SyntaxError, what)
}
