//! Byte-pair encoding by merge ranks: byte-level (GPT-2's printable stand-ins for bytes) and, for `gemma4`, on characters
//! with byte fallback. Pre-tokenization comes before, in `split.rs`.

use super::merge::{Merger, NONE, Pairs};
use super::pre::Pre;
use super::split::split;
use super::vocab::{Kinds, MAX_PROBES, Strings, Vocab, fold, hash};
use crate::error::{Error, Result};
use crate::meta::Meta;

/// The merges, kept in the file's own bytes, and the ids of single bytes.
#[derive(Debug)]
pub(super) struct Bpe {
    pub(super) pre: &'static Pre,
    /// Whether tokens spell bytes as GPT-2's stand-ins; if not, as UTF-8 with `▁` for a space and `<0x..>` for bytes.
    pub(super) byte_level: bool,
    merges: Merges,
    /// The token of each byte, or [`NONE`].
    bytes: Box<[u32; 256]>,
}

/// Merges by rank: texts of the form `left right`.
#[derive(Debug)]
struct Merges {
    texts: Strings,
    /// The token that each merge makes, or [`NONE`].
    joined: Vec<u32>,
    /// Open addressing by the hashes of both sides: rank + 1 and the mixed hash's upper half. Of equal pairs, the one
    /// of lower rank comes first. Sides are compared as texts when a pair is looked up, which makes opening a file fast.
    table: Vec<(u32, u32)>,
}

/// Merges with the tokens they are about.
struct Ranked<'a> {
    merges: &'a Merges,
    vocab: &'a Vocab,
}

impl Pairs for Ranked<'_> {
    #[inline]
    fn pair(&self, _: &[u8], left: u32, right: u32) -> Option<(u32, u32)> {
        if left == NONE || right == NONE {
            return None;
        }
        let Merges { texts, joined, table } = self.merges;
        let key = mix(self.vocab.hash(left), self.vocab.hash(right));
        let (mask, tag) = (table.len() - 1, (key >> 32) as u32);
        let mut slot = key as usize & mask;
        loop {
            match table[slot] {
                (0, _) => return None,
                (next, t) if t == tag => {
                    let (left, right) = (self.vocab.text(left), self.vocab.text(right));
                    let rest = texts.get(next - 1).strip_prefix(left).and_then(|rest| rest.strip_prefix(b" "));
                    if rest == Some(right) {
                        return Some((next - 1, joined[next as usize - 1]));
                    }
                }
                _ => {}
            }
            slot = (slot + 1) & mask;
        }
    }
}

/// The hash of a pair from its sides' hashes.
fn mix(left: u64, right: u64) -> u64 {
    fold(left ^ right.rotate_left(29))
}

impl Merges {
    /// Reads `tokenizer.ggml.merges`. A merge whose result is no token is left out.
    fn read(meta: &Meta, vocab: &Vocab) -> Result<Merges> {
        let texts = Strings::read(meta, "tokenizer.ggml.merges")?;
        let mut table = vec![(0, 0); (2 * texts.len() as usize).next_power_of_two()];
        let mask = table.len() - 1;
        let mut all_joined = vec![NONE; texts.len() as usize];
        let (mut scratch, mut last) = (Vec::new(), 0);
        for rank in 0..texts.len() {
            let text = texts.get(rank);
            let Some(space) = text.iter().skip(1).position(|b| *b == b' ').map(|n| n + 1) else { continue };
            let (left, right) = (&text[..space], &text[space + 1..]);
            scratch.clear();
            scratch.extend_from_slice(left);
            scratch.extend_from_slice(right);
            // Merges mostly make their tokens in the order of ids.
            let near = [last, last + 1].into_iter().find(|id| vocab.text(*id) == scratch);
            let Some(joined) = near.or_else(|| vocab.id(&scratch)) else { continue };
            last = joined;
            all_joined[rank as usize] = joined;
            let key = mix(hash(left), hash(right));
            let (mut slot, mut probes) = (key as usize & mask, 0);
            while table[slot].0 != 0 {
                slot = (slot + 1) & mask;
                probes += 1;
                if probes > MAX_PROBES {
                    return Err(Error::format("the merges are made to collide: the file is not to be trusted"));
                }
            }
            table[slot] = (rank + 1, (key >> 32) as u32);
        }
        Ok(Merges { texts, joined: all_joined, table })
    }
}

impl Bpe {
    /// Reads `tokenizer.ggml.merges` and looks up the tokens of single bytes.
    pub(super) fn read(meta: &Meta, vocab: &Vocab, pre: &'static Pre, byte_level: bool) -> Result<Bpe> {
        let merges = Merges::read(meta, vocab)?;
        let mut bytes = Box::new([NONE; 256]);
        for (byte, id) in bytes.iter_mut().enumerate() {
            let name = if byte_level { byte_char(byte as u8).to_string() } else { format!("<0x{byte:02X}>") };
            *id = vocab.id(name.as_bytes()).unwrap_or(NONE);
        }
        Ok(Bpe { pre, byte_level, merges, bytes })
    }

    /// Appends the ids of a text without special tokens.
    pub(super) fn encode(&self, vocab: &Vocab, text: &str, out: &mut Vec<u32>) {
        let mut merger = Merger::default();
        let mut spelled = String::new();
        if self.byte_level {
            split(self.pre.stages, text, &mut |piece| self.piece(vocab, piece, &mut merger, &mut spelled, out));
        } else {
            let text = text.replace(' ', "\u{2581}");
            split(self.pre.stages, &text, &mut |line| {
                if line.starts_with('\n')
                    && let Some(id) = vocab.id(line.as_bytes())
                {
                    return out.push(id);
                }
                self.characters(vocab, line, &mut merger, out);
            });
        }
    }

    fn piece(&self, vocab: &Vocab, piece: &str, merger: &mut Merger, spelled: &mut String, out: &mut Vec<u32>) {
        if self.pre.ignore_merges && piece.len() <= vocab.longest() {
            spelled.clear();
            spelled.extend(piece.bytes().map(byte_char));
            let id = vocab.id(spelled.as_bytes());
            if let Some(id) = id.filter(|id| !vocab.kinds(*id).any(Kinds::SPECIAL)) {
                return out.push(id);
            }
        }
        merger.symbols.clear();
        for (at, byte) in piece.bytes().enumerate() {
            merger.push(at, self.bytes[usize::from(byte)]);
        }
        merger.run(piece.as_bytes(), &Ranked { merges: &self.merges, vocab });
        // A byte without a token has no way to be written.
        out.extend(merger.symbols.iter().map(|s| s.id).filter(|id| *id != NONE));
    }

    fn characters(&self, vocab: &Vocab, line: &str, merger: &mut Merger, out: &mut Vec<u32>) {
        merger.symbols.clear();
        for (at, c) in line.char_indices() {
            merger.push(at, vocab.id(&line.as_bytes()[at..at + c.len_utf8()]).unwrap_or(NONE));
        }
        merger.run(line.as_bytes(), &Ranked { merges: &self.merges, vocab });
        for (i, symbol) in merger.symbols.iter().enumerate() {
            if symbol.id != NONE {
                out.push(symbol.id);
                continue;
            }
            let end = merger.symbols.get(i + 1).map_or(line.len(), |s| s.start as usize);
            let bytes = line.as_bytes()[symbol.start as usize..end].iter();
            out.extend(bytes.map(|b| self.bytes[usize::from(*b)]).filter(|id| *id != NONE));
        }
    }
}

/// The printable character that stands for a byte in a byte-level vocabulary (GPT-2's `bytes_to_unicode`).
pub(super) fn byte_char(byte: u8) -> char {
    let code = u32::from(byte);
    let code = match byte {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => code,
        0..=0x20 => 0x100 + code,
        0x7F..=0xA0 => 0x100 + 0x21 + code - 0x7F,
        0xAD => 0x143,
    };
    char::from_u32(code).unwrap_or('\u{fffd}')
}

/// The byte that a character stands for in a byte-level vocabulary.
pub(super) fn char_byte(c: char) -> Option<u8> {
    let code = c as u32;
    Some(match code {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => code as u8,
        0x100..=0x120 => (code - 0x100) as u8,
        0x121..=0x142 => (code - 0x121 + 0x7F) as u8,
        0x143 => 0xAD,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_their_characters() {
        let mut seen = std::collections::BTreeSet::new();
        for byte in 0..=255 {
            assert_eq!(char_byte(byte_char(byte)), Some(byte));
            assert!(seen.insert(byte_char(byte)));
        }
        assert_eq!((byte_char(b' '), byte_char(b'\n'), byte_char(0xAD)), ('Ġ', 'Ċ', 'Ń'));
    }
}
