//! Byte-pair encoding by merge ranks: byte-level (GPT-2's printable stand-ins for bytes) and, for `gemma4`, on characters
//! with byte fallback. Pre-tokenization comes before, in `split.rs`.

use super::merge::{Merger, NONE, Pairs};
use super::pre::Pre;
use super::split::split;
use super::vocab::{Kinds, MAX_PROBES, Vocab, fold, strings};
use crate::error::{Error, Result};
use crate::meta::Meta;

/// The merges by the ids of their two sides, and the ids of single bytes.
#[derive(Debug)]
pub(super) struct Bpe {
    pub(super) pre: &'static Pre,
    /// Whether tokens spell bytes as GPT-2's stand-ins; if not, as UTF-8 with `▁` for a space and `<0x..>` for bytes.
    pub(super) byte_level: bool,
    /// Open addressing by both sides. An empty slot's left side is [`NONE`].
    merges: Vec<Merge>,
    /// The token of each byte, or [`NONE`].
    bytes: Box<[u32; 256]>,
}

#[derive(Debug, Clone, Copy)]
struct Merge {
    left: u32,
    right: u32,
    rank: u32,
    joined: u32,
}

impl Pairs for Bpe {
    #[inline]
    fn pair(&self, _: &[u8], left: u32, right: u32) -> Option<(u32, u32)> {
        if left == NONE || right == NONE {
            return None;
        }
        let mask = self.merges.len() - 1;
        let mut slot = slot(left, right) & mask;
        loop {
            let merge = &self.merges[slot];
            if merge.left == left && merge.right == right {
                return Some((merge.rank, merge.joined));
            }
            if merge.left == NONE {
                return None;
            }
            slot = (slot + 1) & mask;
        }
    }
}

fn slot(left: u32, right: u32) -> usize {
    fold(u64::from(left) << 32 | u64::from(right)) as usize
}

impl Bpe {
    /// Reads `tokenizer.ggml.merges`. A merge whose sides or result are no tokens is left out.
    pub(super) fn read(meta: &Meta, vocab: &Vocab, pre: &'static Pre, byte_level: bool) -> Result<Bpe> {
        let (starts, texts, _) = strings(meta, "tokenizer.ggml.merges")?;
        let empty = Merge { left: NONE, right: NONE, rank: 0, joined: 0 };
        let mut merges = vec![empty; (2 * starts.len()).next_power_of_two()];
        let mask = merges.len() - 1;
        let mut joined = Vec::new();
        for (rank, bounds) in starts.windows(2).enumerate() {
            let text = &texts[bounds[0] as usize..bounds[1] as usize - 8];
            let Some(space) = text.iter().skip(1).position(|b| *b == b' ').map(|n| n + 1) else { continue };
            let (left, right) = (&text[..space], &text[space + 1..]);
            joined.clear();
            joined.extend_from_slice(left);
            joined.extend_from_slice(right);
            let ids = (vocab.id(left), vocab.id(right), vocab.id(&joined));
            let (Some(left), Some(right), Some(joined)) = ids else { continue };
            let mut at = slot(left, right) & mask;
            let mut probes = 0;
            while merges[at].left != NONE && (merges[at].left, merges[at].right) != (left, right) {
                at = (at + 1) & mask;
                probes += 1;
                if probes > MAX_PROBES {
                    return Err(Error::format("the merges are made to collide: the file is not to be trusted"));
                }
            }
            if merges[at].left == NONE {
                merges[at] = Merge { left, right, rank: rank as u32, joined };
            }
        }
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
        merger.run(piece.as_bytes(), self);
        // A byte without a token has no way to be written.
        out.extend(merger.symbols.iter().map(|s| s.id).filter(|id| *id != NONE));
    }

    fn characters(&self, vocab: &Vocab, line: &str, merger: &mut Merger, out: &mut Vec<u32>) {
        merger.symbols.clear();
        for (at, c) in line.char_indices() {
            merger.push(at, vocab.id(&line.as_bytes()[at..at + c.len_utf8()]).unwrap_or(NONE));
        }
        merger.run(line.as_bytes(), self);
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
