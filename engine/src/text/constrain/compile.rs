//! From a [`Grammar`] to a matcher of llguidance: bounds on time, memory and stack, and sentences for what goes wrong.

use llguidance::api::{GrammarWithLexer, ParserLimits, TopLevelGrammar};
use llguidance::{Matcher, ParserFactory, regex_to_lark};
use serde_json::json;

use super::trie::Marks;
use super::{Grammar, gbnf, lark, schema};
use crate::error::{Error, Result};

/// Bytes of a grammar's text at most.
pub(super) const MAX_TEXT: usize = 256 << 10;
/// Rules and terminals of a grammar at most; the compiler recurses from one to the next.
pub(super) const MAX_RULES: usize = 2000;
/// Stack of the compiler, for chains of so many rules or schemas.
#[cfg(not(target_arch = "wasm32"))]
const STACK: usize = 256 << 20;

/// What a grammar may cost. A mask's work is bounded by the steps: some 15 ms at most.
pub(super) fn limit(limits: &mut ParserLimits) {
    // A lexer's state takes one or two kilobytes.
    limits.max_lexer_states = 50_000;
    limits.verbose_errors = false;
}

/// Compiles a grammar.
pub(super) fn compile(factory: &ParserFactory, marks: &Marks, grammar: &Grammar) -> Result<Matcher> {
    let job = || {
        let top = prepare(marks, grammar)?;
        let parser = factory.create_parser(top).map_err(|e| refused(grammar, &e))?;
        let mut matcher = Matcher::new(Ok(parser));
        match matcher.get_error() {
            Some(error) => Err(refused(grammar, &error)),
            // The first mask shows whether there is anything to say at all.
            None => matcher.compute_mask_or_eos().map(|_| matcher).map_err(|e| first_mask(&e)),
        }
    };
    deep(job)
}

/// Runs a job with room for deep recursion.
#[cfg(not(target_arch = "wasm32"))]
fn deep<T: Send>(job: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new().name("grammar".into()).stack_size(STACK).spawn_scoped(scope, job);
        let worker = worker.map_err(|e| Error::limit(format!("no thread to compile the grammar on: {e}")))?;
        worker.join().unwrap_or_else(|_| Err(Error::unsupported(BROKEN)))
    })
}

/// A browser has no other stack: there a chain of rules that is too deep ends the module.
#[cfg(target_arch = "wasm32")]
fn deep<T>(job: impl FnOnce() -> Result<T>) -> Result<T> {
    job()
}

/// A grammar as llguidance takes it.
fn prepare(marks: &Marks, grammar: &Grammar) -> Result<TopLevelGrammar> {
    let within = |text: &str| match text.len() {
        n if n > MAX_TEXT => Err(Error::limit(format!("the grammar has {n} bytes: it may have {MAX_TEXT} at most"))),
        _ => Ok(()),
    };
    Ok(match grammar {
        Grammar::Json => TopLevelGrammar::from_json_schema(schema::prepare(&json!({"type": "object"}))?),
        Grammar::JsonSchema(schema) => TopLevelGrammar::from_json_schema(schema::prepare(schema)?),
        Grammar::Regex(regex) => {
            within(regex)?;
            TopLevelGrammar::from_lark(from_regex(regex))
        }
        Grammar::Lark(text) => {
            within(text)?;
            lark::check(text)?;
            TopLevelGrammar::from_lark(text.clone())
        }
        Grammar::Gbnf(text) => {
            within(text)?;
            TopLevelGrammar::from_lark(gbnf::to_lark(text)?)
        }
        Grammar::Tools(tools) => {
            let mut top = TopLevelGrammar::from_lark(tools.to_lark(marks));
            for other in tools.or().map(|or| prepare(marks, or)).transpose()?.into_iter().flat_map(|or| or.grammars) {
                top.grammars.push(GrammarWithLexer { name: Some("or".into()), ..other });
            }
            top
        }
    })
}

/// A grammar of one terminal. The whole text matches anyway, so anchors at both ends say nothing.
fn from_regex(regex: &str) -> String {
    let inner = regex.strip_prefix('^').unwrap_or(regex);
    let escaped = |text: &str| text.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1;
    let inner = inner.strip_suffix('$').filter(|rest| !escaped(rest)).unwrap_or(inner);
    if inner.is_empty() { "start: \"\"".into() } else { format!("start: /{}/", regex_to_lark(inner, "dw")) }
}

const BROKEN: &str = "the grammar is beyond what the grammar compiler can do: make it simpler";

/// What is wrong with a grammar, in a sentence.
fn refused(grammar: &Grammar, error: &dyn std::fmt::Display) -> Error {
    let (limit, reason) = reason(&error.to_string());
    let what = match grammar {
        Grammar::Json | Grammar::JsonSchema(_) => "the JSON schema cannot be used",
        Grammar::Regex(_) => "the regular expression cannot be used",
        Grammar::Lark(_) => "the Lark grammar cannot be used",
        Grammar::Gbnf(_) => "the GBNF grammar cannot be used",
        Grammar::Tools(_) => "calls of these tools cannot be enforced",
    };
    match (limit, reason) {
        (true, Some(reason)) => Error::limit(format!("{what}: {reason}")),
        (false, Some(reason)) => Error::request(format!("{what}: {reason}")),
        (_, None) => Error::unsupported(BROKEN),
    }
}

/// Of a message with places, source lines and traces: whether it tells of a limit, and the reason; `None` where there is
/// none but a panic.
fn reason(message: &str) -> (bool, Option<String>) {
    if message.contains("panic: ") {
        return (false, None);
    }
    // An expression's parser draws a picture and says what it means below.
    let drawn = message.lines().find_map(|line| line.strip_prefix("error: "));
    let first = message.lines().find(|line| !line.trim().is_empty()).unwrap_or("it is malformed").trim();
    let (place, first) = match first.strip_prefix("at ").unwrap_or(first).split_once("): ") {
        Some((place, rest)) => match place.split_once('(') {
            Some((line, column)) if line.parse::<u32>().is_ok() => (format!("line {line}, column {column}: "), rest),
            _ => (String::new(), first),
        },
        None => (String::new(), first),
    };
    let first: String = first.trim_end_matches(": regex parse error:").chars().take(300).collect();
    let limit = ["too big", "too large", "too many", "too complex", "too deep", "exceeded", "fuel"];
    let limit = limit.iter().any(|word| message.contains(word));
    let drawn = drawn.map(|d| format!(": {d}")).unwrap_or_default();
    (limit, Some(format!("{place}{first}{drawn}")))
}

fn first_mask(error: &dyn std::fmt::Display) -> Error {
    let message = error.to_string();
    if message.contains("NoExtension") { no_token() } else { failed(&message) }
}

/// What went wrong with a text under way.
pub(super) fn failed(error: &dyn std::fmt::Display) -> Error {
    let message = error.to_string();
    if message.contains("NoExtension") {
        return no_token();
    }
    match reason(&message).1 {
        Some(reason) => Error::limit(format!("the grammar cannot go on with this text ({reason}): make it simpler")),
        None => Error::unsupported(BROKEN),
    }
}

/// No token can come next.
pub(super) fn no_token() -> Error {
    Error::request("the grammar demands a text that this model's vocabulary cannot write: change the grammar")
}
