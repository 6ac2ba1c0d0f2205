//! Pre-tokenization: cuts a text into the pieces that BPE merges run within, by hand-written scanners that stand for the
//! regular expressions of the models' `tokenizer.json`. Linear in the text. Which name means which rules is in `pre.rs`.
//!
//! A pre-tokenizer is a list of stages. Each cuts the pieces of the one before into matches and what lies between them.

use super::category::{CASELESS, LETTER, LOWER, MARK, NUMBER, PUNCTUATION, SPACE, SYMBOL, Set, TITLE, UPPER, peek};

/// One stage. The regular expression each stands for is given with it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stage {
    /// GPT-2: `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    Gpt2,
    /// The family that began with cl100k; see [`Words`].
    Words(&'static Words),
    /// DeepSeek-V3's words: ``[!-/:-@[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*``
    /// and white space as in [`Words`]; if not true, without newlines behind symbols, each of which is a piece then.
    DeepseekWords(bool),
    /// `\p{N}{1,n}`
    Numbers(usize),
    /// `[0-9][0-9][0-9]`
    ThreeDigits,
    /// `\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))`: threes from the right; if true, only in front of the end of a word (`\b`).
    Threes(bool),
    /// `[\r\n]`
    OneNewline,
    /// `[^\n]+|\n+`
    Lines,
    /// `\s+$`
    SpaceAtEnd,
    /// `(optional \s)[set]+`, where the set is given by classes.
    SpacedRun(Set),
    /// `(optional \s)[ranges]+`
    SpacedRanges(&'static [(char, char)]),
    /// `[ranges]+`
    Ranges(&'static [(char, char)]),
    /// `[\p{P}$+<=>^~|]+`, with the grave accent too where true.
    Punctuation(bool),
    /// ``[\p{P}!-/:-@\[-`{-~]``
    OnePunctuation,
    /// Chameleon's tokens and white space: `<sentinel:[0-9]+>`, then `IMGIMG[A-I]{1,4}Z`, then `[\t\n]|    |  `
    Sentinel,
    /// As said there.
    Image,
    /// As said there.
    TabsAndPairs,
    /// Bloom: ` ?[^(\s|.,!?…。，、।۔،)]+`
    Bloom,
}

/// `contraction | word | \p{N}{1,numbers} | ?[^\s\p{L}\p{N}]+[tail]* | \s*[\r\n]+ | \s+(?!\S) | \s+`, where
/// contraction is `(?i:'s|'t|'re|'ve|'m|'ll|'d)` and word is `[^\r\n\p{L}\p{N}]?\p{L}+` or what [`Case`] says.
#[derive(Debug)]
pub(super) struct Words {
    /// Whether contractions are pieces of their own.
    pub(super) contractions: bool,
    /// Whether marks count as letters: `[\p{L}\p{M}]+`, and are no symbols.
    pub(super) marks: bool,
    /// Whether a word ends where lower case ends.
    pub(super) case: Case,
    /// The longest run of numbers.
    pub(super) numbers: usize,
    /// What is taken along behind symbols.
    pub(super) tail: &'static str,
    /// Whether at most one of these is.
    pub(super) tail_once: bool,
    /// Whether words joined by single spaces are one piece: `[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+`.
    pub(super) phrases: bool,
    /// Whether runs of Han are pieces of their own, and no letters elsewhere.
    pub(super) han: bool,
    /// Whether white space goes by powers of two: `\s{512}(?!\S)|...|\s{4}(?!\S)|\s{1,2}(?!\S)|\s`.
    pub(super) powers: bool,
}

/// How letters of different case part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    /// Not at all.
    Ignored,
    /// `P?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+` or else
    /// `P?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*`, with `P` = `[^\r\n\p{L}\p{N}]`.
    Parts,
    /// The same with an optional contraction behind.
    PartsWithContraction,
}

/// Cuts a text by all stages in order and hands out the pieces.
pub(super) fn split(stages: &[Stage], text: &str, emit: &mut dyn FnMut(&str)) {
    let Some((stage, rest)) = stages.split_first() else { return emit(text) };
    let mut at = 0;
    while at < text.len() {
        let end = stage.piece(text, at);
        match rest {
            [] => emit(&text[at..end]),
            _ => split(rest, &text[at..end], emit),
        }
        at = end;
    }
}

impl Stage {
    /// Where the piece that starts at `at` ends: a match, or all up to the next match.
    fn piece(&self, text: &str, at: usize) -> usize {
        if let Some(end) = self.find(text, at) {
            return end;
        }
        let mut end = at;
        loop {
            end += self.skip(text, end);
            if end >= text.len() || self.find(text, end).is_some() {
                return end;
            }
        }
    }

    /// How far to go on where nothing matches: a character, or a run that cannot hold the start of a match.
    fn skip(&self, text: &str, at: usize) -> usize {
        match self {
            Stage::SpaceAtEnd => run(text, at, SPACE).max(at + peek(text, at).2) - at,
            Stage::Threes(_) => run(text, at, NUMBER).max(at + peek(text, at).2) - at,
            _ => peek(text, at).2,
        }
    }

    /// The end of the match that starts at `at`. Never empty.
    fn find(&self, text: &str, at: usize) -> Option<usize> {
        let (c, class, len) = peek(text, at);
        let some = |end| if end > at { Some(end) } else { None };
        let spaced = if class & SPACE != 0 { at + len } else { at };
        match self {
            Stage::Gpt2 => Some(gpt2(text, at)),
            Stage::Words(words) => Some(words.find(text, at)),
            Stage::DeepseekWords(newlines) => deepseek_words(text, at, *newlines),
            Stage::Numbers(longest) => some(run_of(text, at, NUMBER, *longest)),
            Stage::ThreeDigits => {
                let digits = text.as_bytes().get(at..at + 3)?;
                digits.iter().all(u8::is_ascii_digit).then_some(at + 3)
            }
            Stage::Threes(in_front_of_end) => threes(text, at, *in_front_of_end),
            Stage::OnePunctuation => (class & PUNCTUATION != 0 || c.is_ascii_punctuation()).then_some(at + len),
            Stage::Sentinel => {
                let digits = at + text[at..].strip_prefix("<sentinel:").map(|rest| text[at..].len() - rest.len())?;
                let end = until(text, digits, |d| !d.is_ascii_digit());
                (end > digits && text[end..].starts_with('>')).then_some(end + 1)
            }
            Stage::Image => {
                let letters = at + text[at..].strip_prefix("IMGIMG").map(|_| 6)?;
                let n = text[letters..].bytes().take_while(|b| (b'A'..=b'I').contains(b)).count();
                (matches!(n, 1..=4) && text[letters + n..].starts_with('Z')).then_some(letters + n + 1)
            }
            Stage::TabsAndPairs => match c {
                '\t' | '\n' => Some(at + 1),
                _ => ["    ", "  "].iter().find(|run| text[at..].starts_with(**run)).map(|run| at + run.len()),
            },
            Stage::OneNewline => (c == '\r' || c == '\n').then_some(at + 1),
            Stage::Lines => some(until(text, at, |d| (c == '\n') != (d == '\n'))),
            Stage::SpaceAtEnd => some(run(text, at, SPACE)).filter(|end| *end == text.len()),
            Stage::SpacedRun(set) => Some(run(text, spaced, *set)).filter(|end| *end > spaced),
            Stage::SpacedRanges(ranges) => {
                // A space that is in the ranges itself may also be matched as one of them.
                let end = until(text, spaced, |d| !within(ranges, d));
                if end > spaced { Some(end) } else { some(until(text, at, |d| !within(ranges, d))) }
            }
            Stage::Ranges(ranges) => some(until(text, at, |d| !within(ranges, d))),
            Stage::Punctuation(grave) => some(until(text, at, |d| {
                !(peek_class(d) & PUNCTUATION != 0 || "$+<=>^~|".contains(d) || *grave && d == '`')
            })),
            Stage::Bloom => {
                let from = if c == ' ' { at + 1 } else { at };
                let end = until(text, from, |d| peek_class(d) & SPACE != 0 || "(|.,!?…。，、।۔،)".contains(d));
                (end > from).then_some(end)
            }
        }
    }
}

fn peek_class(c: char) -> Set {
    super::category::class(c)
}

/// Where the run of characters from `at` on ends that `stop` does not stop.
fn until(text: &str, at: usize, stop: impl Fn(char) -> bool) -> usize {
    text[at..].find(stop).map_or(text.len(), |n| at + n)
}

/// Where the run of characters in these classes ends.
fn run(text: &str, at: usize, set: Set) -> usize {
    run_of(text, at, set, usize::MAX)
}

fn run_of(text: &str, mut at: usize, set: Set, longest: usize) -> usize {
    for _ in 0..longest {
        let (_, class, len) = peek(text, at);
        if class & set == 0 {
            break;
        }
        at += len;
    }
    at
}

/// Whether sorted, disjoint ranges hold a character.
fn within(ranges: &[(char, char)], c: char) -> bool {
    let after = ranges.partition_point(|r| r.0 <= c);
    after > 0 && c <= ranges[after - 1].1
}

/// The end of `'s 't 're 've 'm 'll 'd` at `at`, in any ASCII case or in lower case only.
fn contraction(text: &str, at: usize, any_case: bool) -> Option<usize> {
    let [b'\'', rest @ ..] = text.as_bytes().get(at..)? else { return None };
    let lower = |i: usize| rest.get(i).map(|b| if any_case { b.to_ascii_lowercase() } else { *b });
    match (lower(0)?, lower(1)) {
        (b's' | b't' | b'm' | b'd', _) => Some(at + 2),
        (b'r' | b'v', Some(b'e')) | (b'l', Some(b'l')) => Some(at + 3),
        _ => None,
    }
}

fn gpt2(text: &str, at: usize) -> usize {
    if let Some(end) = contraction(text, at, false) {
        return end;
    }
    let from = if text.as_bytes()[at] == b' ' { at + 1 } else { at };
    let (_, class, _) = peek(text, from);
    let set = match class {
        c if c & LETTER != 0 => LETTER,
        c if c & NUMBER != 0 => NUMBER,
        c if c & SPACE == 0 && c != 0 => !(SPACE | LETTER | NUMBER),
        _ => return space(text, at),
    };
    run(text, from, set)
}

/// `\s+(?!\S)|\s+`: all of a run of white space but its last character, which goes with what follows; or all of it.
fn space(text: &str, at: usize) -> usize {
    let end = run(text, at, SPACE);
    match text[at..end].chars().next_back() {
        Some(last) if end < text.len() && end - last.len_utf8() > at => end - last.len_utf8(),
        _ => end,
    }
}

/// `\s*[\r\n]+`: up to the last newline in a run of white space.
fn newlines(text: &str, at: usize) -> Option<usize> {
    let end = run(text, at, SPACE);
    text[at..end].rfind(['\r', '\n']).map(|n| at + n + 1)
}

/// `\s{512}(?!\S)|\s{256}(?!\S)|...|\s{4}(?!\S)|\s{1,2}(?!\S)|\s`
fn space_by_powers(text: &str, at: usize) -> usize {
    let mut run = text[at..].char_indices().take_while(|(_, c)| peek_class(*c) & SPACE != 0).take(513);
    let ends: Vec<usize> = run.by_ref().map(|(i, c)| at + i + c.len_utf8()).collect();
    // How many of them have no character other than white space behind them.
    let free = ends.iter().filter(|end| **end == text.len() || peek(text, **end).1 & SPACE != 0).count();
    let n = [512, 256, 128, 64, 32, 16, 8, 4, 2, 1].into_iter().find(|n| *n <= free).unwrap_or(1);
    ends.get(n - 1).copied().unwrap_or(at)
}

/// One to three numbers of a run, so that threes are left.
fn threes(text: &str, at: usize, in_front_of_end: bool) -> Option<usize> {
    if peek(text, at).1 & NUMBER == 0 {
        return None;
    }
    // Behind a number the run has been counted.
    if text[..at].chars().next_back().is_some_and(|c| peek_class(c) & NUMBER != 0) {
        return Some(run_of(text, at, NUMBER, 3));
    }
    let end = run(text, at, NUMBER);
    let (next, class, _) = peek(text, end);
    if in_front_of_end && (class & (LETTER | MARK) != 0 || next == '_') {
        return None;
    }
    let n = text[at..end].chars().count();
    Some(run_of(text, at, NUMBER, if n.is_multiple_of(3) { 3 } else { n % 3 }))
}

fn deepseek_words(text: &str, at: usize, newlines_behind: bool) -> Option<usize> {
    let (c, class, len) = peek(text, at);
    let next = at + len;
    if c.is_ascii_punctuation() && text.as_bytes().get(next).is_some_and(u8::is_ascii_alphabetic) {
        return Some(until(text, next, |d| !d.is_ascii_alphabetic()));
    }
    let letters = LETTER | MARK;
    if c != '\r' && c != '\n' && class & (LETTER | PUNCTUATION | SYMBOL) == 0 && peek(text, next).1 & letters != 0 {
        return Some(run(text, next, letters));
    }
    if class & letters != 0 {
        return Some(run(text, at, letters));
    }
    let from = if c == ' ' { next } else { at };
    let end = run(text, from, PUNCTUATION | SYMBOL);
    if end > from {
        return Some(if newlines_behind { until(text, end, |d| d != '\r' && d != '\n') } else { end });
    }
    if class & SPACE == 0 {
        return None;
    }
    if !newlines_behind {
        return Some(if c == '\r' || c == '\n' { next } else { space(text, at) });
    }
    newlines(text, at).or_else(|| Some(space(text, at)))
}

impl Words {
    fn find(&self, text: &str, at: usize) -> usize {
        if self.contractions
            && let Some(end) = contraction(text, at, true)
        {
            return end;
        }
        if self.han && is_han(peek(text, at).0) {
            return until(text, at, |d| !is_han(d));
        }
        if let Some(end) = self.word(text, at) {
            return end;
        }
        let (c, class, _) = peek(text, at);
        if class & NUMBER != 0 {
            return run_of(text, at, NUMBER, self.numbers);
        }
        let from = if c == ' ' { at + 1 } else { at };
        let none = SPACE | LETTER | NUMBER | if self.marks { MARK } else { 0 };
        let end = run(text, from, !none);
        if end > from {
            let tail = until(text, end, |d| !self.tail.contains(d));
            return if self.tail_once { tail.min(end + 1) } else { tail };
        }
        if let Some(end) = newlines(text, at) {
            return end;
        }
        if self.powers { space_by_powers(text, at) } else { space(text, at) }
    }

    /// A word with at most one character before it that is neither letter, number nor newline.
    fn word(&self, text: &str, at: usize) -> Option<usize> {
        let (c, class, len) = peek(text, at);
        let before = c != '\r' && c != '\n' && class & (LETTER | NUMBER) == 0;
        if self.case != Case::Ignored {
            let part = |at: usize, lower: bool| part(text, at, lower, self.han);
            let end = (before.then(|| part(at + len, true)).flatten())
                .or_else(|| part(at, true))
                .or_else(|| before.then(|| part(at + len, false)).flatten())
                .or_else(|| part(at, false))?;
            let suffix = || contraction(text, end, true).unwrap_or(end);
            return Some(if self.case == Case::PartsWithContraction { suffix() } else { end });
        }
        if self.phrases {
            let first = if before && peek(text, at + len).1 & LETTER != 0 { at + len } else { at };
            return (peek(text, first).1 & LETTER != 0).then(|| phrase(text, first));
        }
        let letters = LETTER | if self.marks { MARK } else { 0 };
        if before && peek(text, at + len).1 & letters != 0 {
            return Some(run(text, at + len, letters));
        }
        (class & letters != 0).then(|| run(text, at, letters))
    }
}

/// Letters with their marks, and single spaces between such.
fn phrase(text: &str, mut at: usize) -> usize {
    loop {
        at = run(text, at + peek(text, at).2, MARK);
        let (c, class, _) = peek(text, at);
        if class & LETTER == 0 {
            if c != ' ' || peek(text, at + 1).1 & LETTER == 0 {
                return at;
            }
            at += 1;
        }
    }
}

/// Whether a character's script is Han.
fn is_han(c: char) -> bool {
    within(&HAN, c)
}

/// Han (Unicode 16).
#[rustfmt::skip]
static HAN: [(char, char); 21] = [
    ('\u{2e80}', '\u{2e99}'), ('\u{2e9b}', '\u{2ef3}'), ('\u{2f00}', '\u{2fd5}'), ('\u{3005}', '\u{3005}'),
    ('\u{3007}', '\u{3007}'), ('\u{3021}', '\u{3029}'), ('\u{3038}', '\u{303b}'), ('\u{3400}', '\u{4dbf}'),
    ('\u{4e00}', '\u{9fff}'), ('\u{f900}', '\u{fa6d}'), ('\u{fa70}', '\u{fad9}'), ('\u{16fe2}', '\u{16fe3}'),
    ('\u{16ff0}', '\u{16ff1}'), ('\u{20000}', '\u{2a6df}'), ('\u{2a700}', '\u{2b739}'), ('\u{2b740}', '\u{2b81d}'),
    ('\u{2b820}', '\u{2cea1}'), ('\u{2ceb0}', '\u{2ebe0}'), ('\u{2ebf0}', '\u{2ee5d}'), ('\u{2f800}', '\u{2fa1d}'),
    ('\u{30000}', '\u{323af}'),
];

/// `U*L+` (where `lower`) or `U+L*`, with `U` all letters but lower case, `L` all but upper and title case, marks in both.
fn part(text: &str, at: usize, lower: bool, but_han: bool) -> Option<usize> {
    let both = CASELESS | MARK;
    let run = |at: usize, set: Set| until(text, at, |c| peek_class(c) & set == 0 || but_han && is_han(c));
    let upper_end = run(at, UPPER | TITLE | both);
    let end = run(upper_end, LOWER | both);
    if end > upper_end || !lower {
        return (if lower { end > upper_end } else { upper_end > at }).then_some(end);
    }
    // No lower case behind: the last character that is in both sets can stand for it.
    let (last, c) = text[at..upper_end].char_indices().rfind(|(_, c)| peek_class(*c) & both != 0)?;
    Some(at + last + c.len_utf8())
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
