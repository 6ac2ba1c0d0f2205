//! Reads GBNF as llama.cpp does: rules, alternatives, repetitions, classes, escapes, comments.

use std::collections::HashMap;

use super::super::compile::MAX_RULES;
use super::{Item, Repeat, Rules, Sequence};
use crate::error::{Error, Result};

/// Parentheses in one another at most.
const MAX_DEPTH: usize = 16;
/// A repetition's counts at most.
const MAX_REPEAT: u32 = 100_000;

/// Reads a grammar; the root's rule comes first.
pub(super) fn rules(text: &str) -> Result<Rules> {
    let mut reader = Reader { text, at: 0, numbers: HashMap::new(), rules: Vec::new(), used: Vec::new() };
    reader.number("root");
    reader.space(true);
    while !reader.rest().is_empty() {
        reader.rule()?;
        reader.space(true);
    }
    let Reader { numbers, rules, used, .. } = reader;
    let name = |number: usize| numbers.iter().find(|n| *n.1 == number).map_or("", |n| n.0);
    if let Some(missing) = rules.iter().position(Option::is_none) {
        return Err(Error::request(match missing {
            0 => "the GBNF grammar has no rule named root: it is where the text begins".into(),
            other => {
                format!("the GBNF grammar, line {}: the rule {:?} is used and not defined", used[other], name(other))
            }
        }));
    }
    Ok(rules.into_iter().flatten().collect())
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Rules by name.
    numbers: HashMap<&'a str, usize>,
    rules: Vec<Option<Vec<Sequence>>>,
    /// The line where each rule was first named.
    used: Vec<usize>,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self, what: &str) -> bool {
        let there = self.rest().starts_with(what);
        self.at += if there { what.len() } else { 0 };
        there
    }

    fn line(&self) -> usize {
        self.text[..self.at].matches('\n').count() + 1
    }

    fn fault<T>(&self, what: impl std::fmt::Display) -> Result<T> {
        Err(Error::request(format!("the GBNF grammar, line {}: {what}", self.line())))
    }

    /// Skips spaces and comments, and line ends where they mean nothing.
    fn space(&mut self, lines: bool) {
        loop {
            match self.peek() {
                Some(' ' | '\t') => self.at += 1,
                Some('\r' | '\n') if lines => self.at += 1,
                Some('#') => self.at += self.rest().find(['\r', '\n']).unwrap_or(self.rest().len()),
                _ => return,
            }
        }
    }

    fn name(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let n = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').unwrap_or(rest.len());
        self.at += n;
        (n > 0).then(|| &rest[..n])
    }

    /// The number of a rule, which may not be defined yet.
    fn number(&mut self, name: &'a str) -> usize {
        let next = self.numbers.len();
        let number = *self.numbers.entry(name).or_insert(next);
        if number == next {
            self.rules.push(None);
            self.used.push(self.line());
        }
        number
    }

    fn rule(&mut self) -> Result<()> {
        let Some(name) = self.name() else { return self.fault("a rule's name should stand here") };
        let number = self.number(name);
        if self.rules.len() > MAX_RULES {
            return Err(Error::limit(format!("the GBNF grammar has too many rules: it may have {MAX_RULES} at most")));
        }
        self.space(false);
        if !self.take("::=") {
            return self.fault(format!("\"::=\" should follow the rule's name {name:?}"));
        }
        if self.rules[number].is_some() {
            return self.fault(format!("the rule {name:?} is defined twice"));
        }
        self.space(true);
        let body = self.alternatives(0)?;
        self.rules[number] = Some(body);
        match self.peek() {
            None | Some('\r' | '\n') => Ok(()),
            Some(c) => self.fault(format!("{c:?} stands where a rule should end: alternatives are parted by |")),
        }
    }

    fn alternatives(&mut self, depth: usize) -> Result<Vec<Sequence>> {
        if depth > MAX_DEPTH {
            return self.fault(format!("more than {MAX_DEPTH} parentheses in one another: use rules of their own"));
        }
        let mut all = vec![self.sequence(depth)?];
        while self.take("|") {
            self.space(true);
            all.push(self.sequence(depth)?);
        }
        Ok(all)
    }

    fn sequence(&mut self, depth: usize) -> Result<Sequence> {
        let mut sequence: Sequence = Vec::new();
        loop {
            match self.peek() {
                Some('*' | '+' | '?' | '{') => {
                    let (min, max) = self.repetition(depth)?;
                    let item = match sequence.pop() {
                        None => return self.fault("there is nothing to repeat"),
                        Some(last) if last.is_once() => last.item,
                        Some(last) => Item::Group(vec![vec![last]]),
                    };
                    let item = if max == Some(0) { Item::Text(String::new()) } else { item };
                    sequence.push(Repeat { min, max: max.map(|n| n.max(1)), ..Repeat::once(item) });
                }
                _ => match self.item(depth)? {
                    Some(item) => sequence.push(Repeat::once(item)),
                    None => return Ok(sequence),
                },
            }
            self.space(depth > 0);
        }
    }

    fn repetition(&mut self, depth: usize) -> Result<(u32, Option<u32>)> {
        if self.take("*") {
            return Ok((0, None));
        } else if self.take("+") {
            return Ok((1, None));
        } else if self.take("?") {
            return Ok((0, Some(1)));
        }
        self.take("{");
        self.space(depth > 0);
        let min = self.count()?;
        self.space(depth > 0);
        let max = if self.take(",") {
            self.space(depth > 0);
            let max = self.count()?;
            self.space(depth > 0);
            max
        } else if min.is_some() {
            min
        } else {
            return self.fault("a repetition has a count, as in {2} or {1,3}");
        };
        if !self.take("}") {
            return self.fault("a repetition ends with }");
        }
        let min = min.unwrap_or(0);
        if max.is_some_and(|max| max < min) {
            return self.fault("a repetition's second count is below its first");
        }
        Ok((min, max))
    }

    fn count(&mut self) -> Result<Option<u32>> {
        let rest = self.rest();
        let digits = &rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())];
        if digits.is_empty() {
            return Ok(None);
        }
        self.at += digits.len();
        match digits.parse().ok().filter(|n| *n <= MAX_REPEAT) {
            Some(n) => Ok(Some(n)),
            None => self.fault(format!("a repetition counts to {MAX_REPEAT} at most")),
        }
    }

    fn item(&mut self, depth: usize) -> Result<Option<Item>> {
        if self.take("\"") {
            let mut text = String::new();
            while !self.take("\"") {
                text.push(self.character("a text ends with \"")?);
            }
            return Ok(Some(Item::Text(text)));
        }
        if self.take("[") {
            return self.class().map(Some);
        }
        if self.take("(") {
            self.space(true);
            let inner = self.alternatives(depth + 1)?;
            if !self.take(")") {
                return self.fault("a parenthesis is not closed");
            }
            return Ok(Some(Item::Group(inner)));
        }
        if self.take(".") {
            return Ok(Some(Item::Any));
        }
        let negated = self.rest().starts_with("!<");
        if negated || self.rest().starts_with('<') {
            return self.token(negated).map(Some);
        }
        let name = self.name();
        Ok(name.map(|name| Item::Rule(self.number(name))))
    }

    fn class(&mut self) -> Result<Item> {
        const OPEN: &str = "a class of characters ends with ]";
        let negated = self.take("^");
        let mut ranges = Vec::new();
        while !self.take("]") {
            let first = self.character(OPEN)?;
            let range = self.rest().starts_with('-') && !self.rest().starts_with("-]");
            let last = if range && self.take("-") { self.character(OPEN)? } else { first };
            if last < first {
                return self.fault(format!("the range from {first:?} to {last:?} is empty"));
            }
            ranges.push((first, last));
        }
        match (ranges.is_empty(), negated) {
            (true, true) => Ok(Item::Any),
            (true, false) => self.fault("a class without characters matches nothing"),
            _ => Ok(Item::Class { ranges, negated }),
        }
    }

    /// A character, written as it is or escaped.
    fn character(&mut self, unfinished: &str) -> Result<char> {
        let Some(c) = self.peek() else { return self.fault(unfinished) };
        self.at += c.len_utf8();
        if c != '\\' {
            return Ok(c);
        }
        let Some(c) = self.peek() else { return self.fault(unfinished) };
        self.at += c.len_utf8();
        let digits = match c {
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            '\\' | '"' | '[' | ']' | '-' | '^' | '/' | '\'' => return Ok(c),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            other => return self.fault(format!("the escape \\{other} is not known")),
        };
        let code = self.rest().get(..digits).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(hex) = code else { return self.fault(format!("\\{c} takes {digits} hexadecimal digits")) };
        self.at += digits;
        match u32::from_str_radix(hex, 16).ok().and_then(char::from_u32) {
            Some(c) => Ok(c),
            None => self.fault(format!("\\{c}{hex} is no character")),
        }
    }

    /// `<think>`, `<[12]>`, or anything but such a token.
    fn token(&mut self, negated: bool) -> Result<Item> {
        self.at += usize::from(negated);
        let rest = self.rest();
        let Some(end) = rest.find('>').filter(|end| !rest[..*end].contains(char::is_whitespace)) else {
            return self.fault("a token ends with >");
        };
        let token = &rest[..=end];
        self.at += token.len();
        let id = token.strip_prefix("<[").and_then(|t| t.strip_suffix("]>"));
        match (id, negated) {
            (Some(id), _) if id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit()) => {
                self.fault(format!("{token} should hold a token's number"))
            }
            (Some(id), true) => Ok(Item::Token(format!("<[^{id}]>"))),
            (None, true) => self.fault(format!("!{token}: only numbers of tokens can be excluded, as in !<[12]>")),
            (_, false) => Ok(Item::Token(token.to_owned())),
        }
    }
}
