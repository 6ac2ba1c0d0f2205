//! Writes rules as Lark: terminals for what is regular, rules for the rest. No reading here.

use std::fmt::Write;

use super::{Item, Repeat, Rules, Sequence};

/// The Lark grammar of these rules.
pub(super) fn grammar(rules: &Rules, regular: &[bool]) -> String {
    let mut writer = Writer { regular, out: String::new(), runs: String::new(), n_runs: 0 };
    let root = writer.name(0);
    let _ = writeln!(writer.out, "start: {root}");
    for (i, rule) in rules.iter().enumerate() {
        let body = if regular[i] { terminal(rule) } else { writer.rule(rule) };
        let name = writer.name(i);
        let _ = writeln!(writer.out, "{name}: {body}");
    }
    writer.out + &writer.runs
}

struct Writer<'a> {
    regular: &'a [bool],
    out: String,
    /// Terminals of regular runs within rules.
    runs: String,
    n_runs: usize,
}

impl Writer<'_> {
    fn name(&self, rule: usize) -> String {
        format!("{}{rule}", if self.regular[rule] { 'T' } else { 'r' })
    }

    /// The body of a rule that is not regular.
    fn rule(&mut self, alternatives: &[Sequence]) -> String {
        let all: Vec<String> = alternatives.iter().map(|sequence| self.sequence(sequence)).collect();
        all.join(" | ")
    }

    fn sequence(&mut self, sequence: &[Repeat]) -> String {
        let mut parts = Vec::new();
        let is_regular = |repeat: &Repeat| super::is_known(repeat, self.regular);
        let runs: Vec<&[Repeat]> = sequence.chunk_by(|a, b| is_regular(a) && is_regular(b)).collect();
        let kinds: Vec<bool> = runs.iter().map(|run| is_regular(&run[0])).collect();
        for (run, regular) in runs.into_iter().zip(kinds) {
            parts.push(match run {
                _ if regular => self.run(run),
                [repeat] => {
                    let item = match &repeat.item {
                        Item::Group(inner) => format!("({})", self.rule(inner)),
                        Item::Rule(rule) => self.name(*rule),
                        Item::Token(token) => token.clone(),
                        other => self.run(&[Repeat::once(other.clone())]),
                    };
                    item + &counts(repeat)
                }
                _ => continue,
            });
        }
        parts.join(" ")
    }

    /// A terminal for a regular run.
    fn run(&mut self, run: &[Repeat]) -> String {
        if let [Repeat { item: Item::Rule(rule), .. }] = run
            && run[0].is_once()
        {
            return self.name(*rule);
        }
        let name = format!("X{}", self.n_runs);
        self.n_runs += 1;
        let _ = writeln!(self.runs, "{name}: {}", terminal(&[run.to_vec()]));
        name
    }
}

/// The body of a terminal.
fn terminal(alternatives: &[Sequence]) -> String {
    let sequence = |sequence: &Sequence| {
        let parts: Vec<String> = sequence.iter().map(|repeat| atom(&repeat.item) + &counts(repeat)).collect();
        if parts.is_empty() { "\"\"".to_owned() } else { parts.join(" ") }
    };
    alternatives.iter().map(sequence).collect::<Vec<_>>().join(" | ")
}

/// An item of a terminal.
fn atom(item: &Item) -> String {
    match item {
        Item::Text(text) if text.is_empty() => "\"\"".into(),
        Item::Text(text) => {
            let escaped: String = text.chars().map(escaped).collect();
            format!("/(?:{escaped})/")
        }
        Item::Class { ranges, negated } => {
            let ranges: String = ranges.iter().map(|(a, b)| format!("{}-{}", escaped(*a), escaped(*b))).collect();
            format!("/[{}{ranges}]/", if *negated { "^" } else { "" })
        }
        Item::Any => "/(?s:.)/".into(),
        Item::Rule(rule) => format!("T{rule}"),
        Item::Group(inner) => format!("({})", terminal(inner)),
        Item::Token(token) => token.clone(),
    }
}

/// A character within an expression.
fn escaped(c: char) -> String {
    if c.is_ascii_alphanumeric() { c.to_string() } else { format!("\\x{{{:x}}}", u32::from(c)) }
}

fn counts(repeat: &Repeat) -> String {
    match (repeat.min, repeat.max) {
        (1, Some(1)) => String::new(),
        (0, Some(1)) => "?".into(),
        (0, None) => "*".into(),
        (1, None) => "+".into(),
        (min, None) => format!("{{{min},}}"),
        (min, Some(max)) => format!("{{{min},{max}}}"),
    }
}
