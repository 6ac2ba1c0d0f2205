//! SentencePiece byte-pair encoding by scores (`tokenizer.ggml.model` = `llama`): on characters, with `▁` for a space,
//! and byte tokens for what has no token.

use super::merge::{Merger, NONE, Pairs};
use super::vocab::{Kinds, Vocab};
use crate::error::{Error, Result};
use crate::meta::Meta;

/// The order of the tokens and what a text may be cut at.
#[derive(Debug)]
pub(super) struct Spm {
    /// Each token's order key: the smaller, the higher its score. Tokens that merging never makes have none.
    keys: Vec<Option<u32>>,
    /// The token of each byte, or [`NONE`].
    bytes: Box<[u32; 256]>,
    unknown: Option<u32>,
    boundary: Boundary,
}

/// Where a text with `▁` for spaces may be cut before merging without changing the result: before a `▁` behind a
/// character that no token has before a `▁`. Kept by the character's last byte.
#[derive(Debug)]
pub(super) struct Boundary {
    held: Box<[bool; 256]>,
}

/// The stand-in for a space, U+2581.
pub(super) const SPACE_MARK: &str = "\u{2581}";

impl Boundary {
    /// Looks through all tokens.
    pub(super) fn of(vocab: &Vocab) -> Boundary {
        let mut held = Box::new([false; 256]);
        for id in 0..vocab.len() {
            let text = vocab.text(id);
            for at in 1..text.len().saturating_sub(2) {
                if text[at..].starts_with(SPACE_MARK.as_bytes()) {
                    held[usize::from(text[at - 1])] = true;
                }
            }
        }
        // A run of spaces stays in one piece.
        held[usize::from(SPACE_MARK.as_bytes()[2])] = true;
        Boundary { held }
    }

    /// Hands out the parts of a text.
    pub(super) fn cut(&self, text: &str, mut emit: impl FnMut(&str)) {
        let mut start = 0;
        for (at, _) in text.match_indices(SPACE_MARK) {
            if at > start && !self.held[usize::from(text.as_bytes()[at - 1])] {
                emit(&text[start..at]);
                start = at;
            }
        }
        if start < text.len() {
            emit(&text[start..]);
        }
    }
}

struct Scored<'a> {
    spm: &'a Spm,
    vocab: &'a Vocab,
}

impl Pairs for Scored<'_> {
    fn pair(&self, text: &[u8], _: u32, _: u32) -> Option<(u32, u32)> {
        if text.len() > self.vocab.longest() {
            return None;
        }
        let id = self.vocab.id(text)?;
        Some((self.spm.keys[id as usize]?, id))
    }
}

impl Spm {
    /// Reads `tokenizer.ggml.scores`.
    pub(super) fn read(meta: &Meta, vocab: &Vocab, unknown: Option<u32>) -> Result<Spm> {
        let scores = meta.opt_array("tokenizer.ggml.scores")?;
        let n = vocab.len() as usize;
        if let Some(scores) = scores.filter(|s| s.len() < n) {
            return Err(Error::format(format!(
                "tokenizer.ggml.scores has {} entries for {n} tokens: the file is damaged",
                scores.len()
            )));
        }
        let mut scores = scores.iter().flat_map(|array| array.iter());
        let mergeable = Kinds::NORMAL.or(Kinds::USER).or(Kinds::UNUSED);
        let keys = (0..vocab.len()).map(|id| {
            let score = scores.next().and_then(|s| s.as_f64()).unwrap_or(0.0) as f32;
            (vocab.kinds(id).any(mergeable) && !vocab.kinds(id).any(Kinds::SPECIAL)).then_some(order_key(score))
        });
        let keys = keys.collect();
        let mut bytes = Box::new([NONE; 256]);
        for (byte, id) in bytes.iter_mut().enumerate() {
            let named = vocab.id(format!("<0x{byte:02X}>").as_bytes());
            *id = named.or_else(|| vocab.id(&[byte as u8])).unwrap_or(NONE);
        }
        Ok(Spm { keys, bytes, unknown, boundary: Boundary::of(vocab) })
    }

    /// Appends the ids of a text without special tokens; with a space in front where asked.
    pub(super) fn encode(&self, vocab: &Vocab, text: &str, prefix: bool, out: &mut Vec<u32>) {
        let mut merger = Merger::default();
        let text = [if prefix { SPACE_MARK } else { "" }, &text.replace(' ', SPACE_MARK)].concat();
        self.boundary.cut(&text, |piece| self.piece(vocab, piece, &mut merger, out));
    }

    fn piece(&self, vocab: &Vocab, piece: &str, merger: &mut Merger, out: &mut Vec<u32>) {
        merger.symbols.clear();
        piece.char_indices().for_each(|(at, _)| merger.push(at, NONE));
        merger.run(piece.as_bytes(), &Scored { spm: self, vocab });
        for (i, symbol) in merger.symbols.iter().enumerate() {
            let end = merger.symbols.get(i + 1).map_or(piece.len(), |s| s.start as usize);
            let text = &piece.as_bytes()[symbol.start as usize..end];
            let alone = || vocab.id(text).filter(|id| !vocab.kinds(*id).any(Kinds::SPECIAL));
            let known = if symbol.id != NONE { Some(symbol.id) } else { alone() };
            if let Some(id) = known {
                out.push(id);
                continue;
            }
            let before = out.len();
            out.extend(text.iter().map(|b| self.bytes[usize::from(*b)]).filter(|id| *id != NONE));
            if out.len() < before + text.len() {
                out.truncate(before);
                out.extend(self.unknown);
            }
        }
    }
}

/// Maps scores to integers so that the higher score has the smaller key. Not-a-number comes last.
fn order_key(score: f32) -> u32 {
    let bits = (if score.is_nan() { f32::NEG_INFINITY } else { score } + 0.0).to_bits();
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    (!ascending).min(u32::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn higher_scores_have_smaller_keys() {
        let scores = [f32::INFINITY, 1e9, 1.5, 1.0, 0.0, -0.5, -31739.0, f32::NEG_INFINITY];
        assert!(scores.map(order_key).is_sorted());
        assert_eq!(order_key(0.0), order_key(-0.0));
        assert_eq!(order_key(f32::NAN), order_key(f32::NEG_INFINITY));
    }
}
