//! [`Guard`]: JSON that every parser reads. A grammar allows numbers of any length and nesting of any depth, and parsers
//! do not: beyond these bounds the tokens are taken from the mask, unless nothing else is left.

use std::sync::Arc;

use llguidance::toktrie::{SimpleVob, TokTrie};

/// Characters of a number at most, and digits of its exponent: with both, no number is beyond a double.
const MAX_NUMBER: u8 = 128;
const MAX_EXPONENT: u8 = 2;
/// Objects and arrays in one another at most; serde_json reads 127, others at least 100.
const MAX_DEPTH: u16 = 100;

/// Where in JSON a text ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Between values.
    Between,
    /// In a word: a constant, or a name outside of JSON.
    Word,
    String,
    /// Behind a backslash.
    Escape,
    /// In a number: its characters so far, and the digits of its exponent.
    Number(u8, Option<u8>),
}

/// A reader that only knows where strings, numbers and brackets are.
#[derive(Debug, Clone, Copy)]
struct Reader {
    place: Place,
    depth: u16,
}

impl Reader {
    const START: Reader = Reader { place: Place::Between, depth: 0 };

    /// Reads a byte; `false` where a bound is passed.
    fn push(&mut self, byte: u8) -> bool {
        self.place = match (self.place, byte) {
            (Place::Escape, _) => Place::String,
            (Place::String, b'\\') => Place::Escape,
            (Place::String, b'"') => Place::Between,
            (Place::String, _) => Place::String,
            (Place::Number(n, None), b'e' | b'E') => Place::Number(n, Some(0)),
            (Place::Number(n, exponent), b'0'..=b'9' | b'.' | b'+' | b'-') => {
                let exponent = exponent.map(|e| e + u8::from(byte.is_ascii_digit()));
                if n >= MAX_NUMBER || exponent > Some(MAX_EXPONENT) {
                    return false;
                }
                Place::Number(n + 1, exponent)
            }
            (Place::Word, b'0'..=b'9' | b'.' | b'-') => Place::Word,
            (_, b'0'..=b'9' | b'-') => Place::Number(1, None),
            (_, b'"') => Place::String,
            (_, b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..) => Place::Word,
            (_, b'{' | b'[') => {
                self.depth += 1;
                Place::Between
            }
            (_, b'}' | b']') => {
                self.depth = self.depth.saturating_sub(1);
                Place::Between
            }
            _ => Place::Between,
        };
        self.depth <= MAX_DEPTH
    }

    fn reads(mut self, bytes: &[u8]) -> bool {
        bytes.iter().all(|b| self.push(*b))
    }
}

/// Tokens that could pass a bound from anywhere, and what the others could add at most.
#[derive(Debug, Default)]
pub(super) struct Risks {
    /// Tokens with a long number of their own, ascending.
    tokens: Vec<u32>,
    /// Most brackets that a token opens.
    opens: u16,
    /// Most bytes of a token that are no risk.
    longest: u8,
}

impl Risks {
    /// Looks through a vocabulary.
    pub(super) fn of(words: &[Vec<u8>]) -> Risks {
        let mut risks = Risks::default();
        for (id, word) in words.iter().enumerate().filter(|(_, w)| w.first() != Some(&TokTrie::SPECIAL_TOKEN_MARKER)) {
            let opens = word.iter().filter(|b| matches!(b, b'[' | b'{')).count();
            risks.opens = risks.opens.max(opens.min(usize::from(MAX_DEPTH)) as u16);
            let number = |b: &u8| matches!(b, b'0'..=b'9' | b'.' | b'+' | b'-' | b'e' | b'E');
            let run = word.split(|b| !number(b)).map(<[u8]>::len).max().unwrap_or(0);
            let exponent = word.windows(4).any(|w| matches!(w[0], b'e' | b'E') && w[1..].iter().all(number));
            if exponent || run >= usize::from(MAX_NUMBER / 2) {
                risks.tokens.push(id as u32);
            } else {
                risks.longest = risks.longest.max(run as u8);
            }
        }
        risks
    }
}

/// Holds one text to the bounds.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    reader: Reader,
    risks: Arc<Risks>,
}

impl Guard {
    /// A guard of a text that has not begun.
    pub(super) fn new(risks: Arc<Risks>) -> Guard {
        Guard { reader: Reader::START, risks }
    }

    /// Goes on by a token. Behind a control token the text begins anew.
    pub(super) fn push(&mut self, trie: &TokTrie, token: u32) {
        let bytes = trie.token(token);
        if trie.is_special_token(token) {
            self.reader = Reader::START;
        }
        for byte in bytes.iter().filter(|_| !trie.is_special_token(token)) {
            self.reader.push(*byte);
        }
    }

    /// Takes tokens that would pass a bound from the mask, unless no other is in it.
    pub(super) fn prune(&self, trie: &TokTrie, mask: &mut SimpleVob) {
        let near = match self.reader.place {
            Place::Number(_, Some(_)) => true,
            Place::Number(n, None) => n.saturating_add(self.risks.longest) > MAX_NUMBER,
            _ => false,
        };
        let passes = |token: u32| !trie.is_special_token(token) && !self.reader.reads(trie.token(token));
        let bad: Vec<u32> = if near || self.reader.depth + self.risks.opens > MAX_DEPTH {
            mask.iter().filter(|token| passes(*token)).collect()
        } else {
            self.risks.tokens.iter().copied().filter(|token| mask.is_allowed(*token) && passes(*token)).collect()
        };
        if bad.len() < mask.num_set() {
            bad.iter().for_each(|token| mask.disallow_token(*token));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_by_hand() {
        let reads = |text: &str| Reader::START.reads(text.as_bytes());
        let digits = |n: usize| "7".repeat(n);
        for good in [
            &digits(128),
            "[1e99, -1E-99]",
            "{\"a\": \"1e999\", \"b\": 1}",
            &format!("\"{}\"", digits(1000)),
            "\"\\\"[[\"",
            &"[".repeat(100),
            &format!("{}{}", "[".repeat(100), "]".repeat(1000)),
            &format!("f{}", digits(200)),
        ] {
            assert!(reads(good), "{good}");
        }
        for bad in [&digits(129), "1e100", "[1E+999]", "-1e-100", &"{".repeat(101), &format!("\"\\\\\"{}", digits(129))]
        {
            assert!(!reads(bad), "{bad}");
        }
    }

    #[test]
    fn what_a_guard_lets_through_is_read_by_serde_json() {
        let big = format!("-{}e99", "9".repeat(124));
        assert!(Reader::START.reads(big.as_bytes()));
        assert!(serde_json::from_str::<serde_json::Value>(&big).is_ok());
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        assert!(serde_json::from_str::<serde_json::Value>(&deep).is_ok());
    }
}
