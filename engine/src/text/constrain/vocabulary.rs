//! [`Vocabulary`]: what grammars need to know of a tokenizer, as plain data that can go to where they are compiled.

use crate::error::{Error, Result};
use crate::text::Tokenizer;

/// Bytes of a token at most; longer ones are never allowed in a constrained answer (the trie counts depth in ten bits).
const LONGEST: usize = 512;

/// What a token is to a grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text.
    Text,
    /// Text that its user named as a token.
    User,
    /// A control token: no text matches it.
    Control,
}

/// Every token's bytes and kind, and the tokens that end a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vocabulary {
    /// By token, one after another.
    bytes: Vec<u8>,
    /// By token: where its bytes end.
    ends: Vec<u32>,
    kinds: Vec<Kind>,
    eog: Vec<u32>,
}

impl Vocabulary {
    /// A tokenizer's.
    pub fn of(tokenizer: &Tokenizer) -> Vocabulary {
        let n = tokenizer.n_vocab();
        let mut vocabulary =
            Vocabulary { bytes: Vec::new(), ends: Vec::new(), kinds: Vec::new(), eog: tokenizer.eog().to_vec() };
        for id in 0..n {
            let bytes = tokenizer.token_bytes(id);
            if bytes.len() <= LONGEST {
                vocabulary.bytes.extend_from_slice(&bytes);
            }
            vocabulary.ends.push(vocabulary.bytes.len() as u32);
            vocabulary.kinds.push(match () {
                () if tokenizer.is_control(id) || tokenizer.is_eog(id) => Kind::Control,
                () if tokenizer.is_user(id) => Kind::User,
                () => Kind::Text,
            });
        }
        vocabulary
    }

    /// Bytes and kinds in the tokens' order.
    pub(super) fn tokens(&self) -> impl Iterator<Item = (&[u8], Kind)> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .zip(&self.kinds)
            .map(|((from, to), kind)| (&self.bytes[from as usize..*to as usize], *kind))
    }

    /// Tokens that end a generation.
    pub fn eog(&self) -> &[u32] {
        &self.eog
    }

    /// As bytes, for another module: the counts of tokens and of those that end, these, then by token a word (its length
    /// and, from bit 16 on, its kind), then all texts. Words are 32 bits, the lowest byte first.
    pub fn to_bytes(&self) -> Vec<u8> {
        let counts = [self.kinds.len() as u32, self.eog.len() as u32];
        let heads = self.tokens().map(|(bytes, kind)| bytes.len() as u32 | (kind as u32) << 16);
        let words = counts.into_iter().chain(self.eog.iter().copied()).chain(heads);
        let mut out: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
        out.extend_from_slice(&self.bytes);
        out
    }

    /// What [`Vocabulary::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`Error::Format`] for anything else.
    pub fn from_bytes(data: &[u8]) -> Result<Vocabulary> {
        let broken = || Error::format("this is no vocabulary");
        let (words, _) = data.as_chunks::<4>();
        let mut words = words.iter().map(|w| u32::from_le_bytes(*w));
        let (Some(n), Some(n_eog)) = (words.next(), words.next()) else { return Err(broken()) };
        let (n, n_eog) = (n as usize, n_eog as usize);
        if n.checked_add(n_eog).is_none_or(|all| all > words.len()) {
            return Err(broken());
        }
        let eog: Vec<u32> = words.by_ref().take(n_eog).collect();
        let mut vocabulary = Vocabulary { bytes: Vec::new(), ends: Vec::new(), kinds: Vec::new(), eog };
        let mut end = 0_u32;
        for head in words.take(n) {
            end = end.checked_add(head & 0xffff).ok_or_else(broken)?;
            vocabulary.ends.push(end);
            vocabulary.kinds.push(match head >> 16 {
                0 => Kind::Text,
                1 => Kind::User,
                2 => Kind::Control,
                _ => return Err(broken()),
            });
        }
        vocabulary.bytes = data[(2 + n_eog + n) * 4..].to_vec();
        if vocabulary.bytes.len() != end as usize || vocabulary.eog.iter().any(|id| *id as usize >= n) {
            return Err(broken());
        }
        Ok(vocabulary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Vocabulary {
        let kinds = vec![Kind::Text, Kind::Control, Kind::User, Kind::Text];
        Vocabulary { bytes: b"a</s><tool>".to_vec(), ends: vec![1, 5, 11, 11], kinds, eog: vec![1] }
    }

    #[test]
    fn bytes_come_back() {
        assert_eq!(Vocabulary::from_bytes(&small().to_bytes()).unwrap(), small());
    }

    #[test]
    fn damaged_bytes_are_refused_or_mean_another_vocabulary() {
        let whole = small().to_bytes();
        for n in 0..whole.len() {
            assert!(Vocabulary::from_bytes(&whole[..n]).is_err(), "cut to {n}");
        }
        for at in 0..whole.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = byte;
                if let Ok(other) = Vocabulary::from_bytes(&damaged) {
                    assert_eq!(other.tokens().count(), 4);
                }
            }
        }
    }
}
