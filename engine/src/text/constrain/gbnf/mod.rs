//! llama.cpp's grammars (GBNF) as Lark grammars: [`to_lark`] reads, finds out which rules are regular, and writes.
//!
//! What is regular becomes terminals, as large as they can be, for a lexer is fast and a terminal has no ambiguity. Rules
//! that recurse at their end only (`ws ::= ([ \t\n] ws)?`) are regular too. A terminal takes as much text as it can, so
//! where it could take what follows it, its end is written as rules of single characters: see [`apart`]. What remains:
//! of several terminals that may stand in one place the longest is taken, and a text that needs a shorter one is lost.
//! Nothing outside of the language is ever generated.
//!
//! llguidance has no reader of GBNF but a script. Without terminals (every item as it stands), or with terminals and nothing
//! apart, llama.cpp's own example of arithmetic loses texts: `gbnf_accepts_what_llama_cpp_does` in `tests/all/constrain`.

mod apart;
mod parse;
#[cfg(test)]
mod tests;
mod write;

use crate::error::Result;

/// A piece of a rule.
#[derive(Debug, Clone, PartialEq)]
enum Item {
    Text(String),
    /// Characters in (or, negated, outside of) these ranges.
    Class {
        ranges: Vec<(char, char)>,
        negated: bool,
    },
    Any,
    /// Another rule, by number.
    Rule(usize),
    Group(Vec<Sequence>),
    /// One token of the vocabulary as Lark writes it: `<think>`, `<[12]>`, `<[^12]>`.
    Token(String),
}

/// An item and how often it comes.
#[derive(Debug, Clone, PartialEq)]
struct Repeat {
    item: Item,
    min: u32,
    /// `None`: without an end.
    max: Option<u32>,
    /// Never part of a terminal.
    apart: bool,
}

impl Repeat {
    fn once(item: Item) -> Repeat {
        Repeat { item, min: 1, max: Some(1), apart: false }
    }

    fn is_once(&self) -> bool {
        self.min == 1 && self.max == Some(1)
    }
}

/// One alternative.
type Sequence = Vec<Repeat>;

/// All rules, the root first.
type Rules = Vec<Vec<Sequence>>;

/// The Lark grammar of the same language.
///
/// # Errors
/// What is malformed, with its line.
pub(super) fn to_lark(text: &str) -> Result<String> {
    let mut rules = parse::rules(text)?;
    let regular = apart::mark(&mut rules);
    Ok(write::grammar(&rules, &regular))
}

/// Tells which rules are regular, but for the barred; those that recurse at their end are rewritten as repetitions.
fn regular(rules: &mut Rules, barred: &[bool]) -> Vec<bool> {
    let mut known = vec![false; rules.len()];
    loop {
        let mut found = false;
        for i in 0..rules.len() {
            if known[i] || barred[i] {
                continue;
            }
            if all_known(&rules[i], &known) {
                known[i] = true;
            } else if let Some(flat) = unroll(i, &rules[i]).filter(|flat| all_known(flat, &known)) {
                rules[i] = flat;
                known[i] = true;
            }
            found |= known[i];
        }
        if !found {
            return known;
        }
    }
}

/// Whether nothing but rules known as regular is used.
fn all_known(alternatives: &[Sequence], known: &[bool]) -> bool {
    alternatives.iter().flatten().all(|repeat| is_known(repeat, known))
}

/// Whether an item may be part of a terminal.
fn is_known(repeat: &Repeat, known: &[bool]) -> bool {
    if repeat.apart {
        return false;
    }
    match &repeat.item {
        Item::Text(_) | Item::Class { .. } | Item::Any => true,
        Item::Rule(rule) => known[*rule],
        Item::Group(inner) => all_known(inner, known),
        Item::Token(_) => false,
    }
}

/// A rule that refers to itself at the end of alternatives as a repetition: with `A ::= x A | y`, `x* y`.
fn unroll(rule: usize, alternatives: &[Sequence]) -> Option<Vec<Sequence>> {
    // An alternative that is one optional group is the group's alternatives and nothing.
    let mut flat = Vec::new();
    for sequence in alternatives {
        match sequence.as_slice() {
            [Repeat { item: Item::Group(inner), min: 0, max: Some(1), apart: false }] => {
                flat.extend(inner.iter().cloned());
                flat.push(Vec::new());
            }
            [Repeat { item: Item::Group(inner), min: 1, max: Some(1), apart: false }] => {
                flat.extend(inner.iter().cloned())
            }
            _ => flat.push(sequence.clone()),
        }
    }
    let itself = Repeat::once(Item::Rule(rule));
    let (mut again, mut last) = (Vec::new(), Vec::new());
    for mut sequence in flat {
        if sequence.last() == Some(&itself) {
            sequence.pop();
            again.push(sequence);
        } else {
            last.push(sequence);
        }
    }
    again.retain(|sequence| !sequence.is_empty());
    if again.is_empty() || last.is_empty() {
        return None;
    }
    let again = Repeat { min: 0, max: None, ..Repeat::once(Item::Group(again)) };
    Some(vec![vec![again, Repeat::once(Item::Group(last))]])
}
