//! [`Vocab`]: a model's tokens, kept in the file's own bytes, with a hash table from text to id.
//! Merges, special tokens and how texts are cut are elsewhere.

use crate::bytes::Bytes;
use crate::error::{Error, Result};
use crate::meta::{Kind, Meta};

/// What a token is (GGUF's `tokenizer.ggml.token_type`), as a set: well-known texts may add [`Kinds::CONTROL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kinds(u8);

impl Kinds {
    pub(super) const NORMAL: Kinds = Kinds(1);
    pub(super) const UNKNOWN: Kinds = Kinds(2);
    pub(super) const CONTROL: Kinds = Kinds(4);
    pub(super) const USER: Kinds = Kinds(8);
    pub(super) const UNUSED: Kinds = Kinds(16);
    pub(super) const BYTE: Kinds = Kinds(32);
    /// What marks up a prompt, so that a text that spells it must not become it.
    pub(super) const MARKUP: Kinds = Kinds(64);
    /// What text never becomes unless special tokens are asked for.
    pub(super) const SPECIAL: Kinds = Kinds(2 | 4);

    fn from_type(id: i64) -> Kinds {
        match id {
            2 => Kinds::UNKNOWN,
            3 => Kinds::CONTROL,
            4 => Kinds::USER,
            5 => Kinds::UNUSED,
            6 => Kinds::BYTE,
            _ => Kinds::NORMAL,
        }
    }

    pub(super) const fn or(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }

    /// Whether any kind is in both sets.
    pub(super) fn any(self, other: Kinds) -> bool {
        self.0 & other.0 != 0
    }
}

/// A table may put this many keys behind one another before it is refused: a well-mixed one stays below a hundred.
pub(super) const MAX_PROBES: usize = 1024;

/// An array of texts, kept in the file's own bytes.
#[derive(Debug)]
pub(super) struct Strings {
    /// The array's elements as they are in the file: `u64` length and text, again and again.
    bytes: Bytes,
    /// Where each text starts in `bytes`; and the end of the last plus the 8 bytes that a length would take.
    starts: Vec<u32>,
    longest: usize,
}

impl Strings {
    /// The array of this key.
    pub(super) fn read(meta: &Meta, key: &str) -> Result<Strings> {
        let array = meta.array(key)?;
        if array.kind() != Kind::Str {
            return Err(Error::format(format!("{key} should be an array of strings, but holds {:?}", array.kind())));
        }
        let bytes = meta.array_bytes(key)?;
        if bytes.len() > u32::MAX as usize - 16 {
            return Err(Error::format(format!("{key} is larger than 4 GiB: the file is damaged")));
        }
        let data: &[u8] = &bytes;
        let mut starts = Vec::with_capacity(array.len().min(data.len() / 8) + 1);
        let (mut at, mut longest) = (0, 0);
        for _ in 0..array.len() {
            let len = data.get(at..).and_then(|b| b.first_chunk()).map(|b| u64::from_le_bytes(*b));
            let end = len.and_then(|n| usize::try_from(n).ok()).and_then(|n| n.checked_add(at + 8));
            let Some(end) = end.filter(|end| *end <= data.len()) else {
                return Err(Error::format(format!("{key} ends inside a string: the file is damaged")));
            };
            starts.push(at as u32 + 8);
            longest = longest.max(end - at - 8);
            at = end;
        }
        starts.push(at as u32 + 8);
        Ok(Strings { bytes, starts, longest })
    }

    /// Number of texts.
    pub(super) fn len(&self) -> u32 {
        (self.starts.len() - 1) as u32
    }

    /// A text; empty where there is none of this index.
    #[inline]
    pub(super) fn get(&self, index: u32) -> &[u8] {
        let index = index as usize;
        match (self.starts.get(index), self.starts.get(index + 1)) {
            (Some(start), Some(next)) => &self.bytes[*start as usize..*next as usize - 8],
            _ => &[],
        }
    }
}

/// The tokens of a model.
#[derive(Debug)]
pub(super) struct Vocab {
    texts: Strings,
    kinds: Vec<Kinds>,
    hashes: Vec<u64>,
    /// Open addressing by the text's hash: id + 1 and the hash's upper half. Holds no empty text; of equal texts the first.
    table: Vec<(u32, u32)>,
}

impl Vocab {
    /// Reads `tokenizer.ggml.tokens` and `.token_type`.
    pub(super) fn read(meta: &Meta) -> Result<Vocab> {
        let texts = Strings::read(meta, "tokenizer.ggml.tokens")?;
        let n = texts.len() as usize;
        let kinds = match meta.opt_array("tokenizer.ggml.token_type")? {
            None => vec![Kinds::NORMAL; n],
            Some(types) if types.len() < n => {
                return Err(Error::format(format!(
                    "tokenizer.ggml.token_type has {} entries for {n} tokens: the file is damaged",
                    types.len()
                )));
            }
            Some(types) => types.iter().take(n).map(|t| Kinds::from_type(t.as_i64().unwrap_or(0))).collect(),
        };
        let hashes = (0..texts.len()).map(|id| hash(texts.get(id))).collect();
        let mut vocab = Vocab { texts, kinds, hashes, table: vec![(0, 0); (2 * n).next_power_of_two()] };
        vocab.fill()?;
        Ok(vocab)
    }

    fn fill(&mut self) -> Result<()> {
        let mut table = std::mem::take(&mut self.table);
        let mask = table.len() - 1;
        for id in 0..self.len() {
            let text = self.text(id);
            if text.is_empty() {
                continue;
            }
            let hash = self.hash(id);
            let (mut slot, tag) = (hash as usize & mask, (hash >> 32) as u32);
            let mut probes = 0;
            while table[slot].0 != 0 && !(table[slot].1 == tag && self.text(table[slot].0 - 1) == text) {
                slot = (slot + 1) & mask;
                probes += 1;
                if probes > MAX_PROBES {
                    return Err(Error::format("the vocabulary is made to collide: the file is not to be trusted"));
                }
            }
            if table[slot].0 == 0 {
                table[slot] = (id + 1, tag);
            }
        }
        self.table = table;
        Ok(())
    }

    /// Number of tokens.
    pub(super) fn len(&self) -> u32 {
        self.texts.len()
    }

    /// The longest text in bytes.
    pub(super) fn longest(&self) -> usize {
        self.texts.longest
    }

    /// A token's text as the file has it; empty for ids out of range.
    #[inline]
    pub(super) fn text(&self, id: u32) -> &[u8] {
        self.texts.get(id)
    }

    /// The hash of a token's text.
    #[inline]
    pub(super) fn hash(&self, id: u32) -> u64 {
        self.hashes.get(id as usize).copied().unwrap_or(0)
    }

    /// A token's kinds; normal for ids out of range.
    pub(super) fn kinds(&self, id: u32) -> Kinds {
        self.kinds.get(id as usize).copied().unwrap_or(Kinds::NORMAL)
    }

    pub(super) fn set_kinds(&mut self, id: u32, kinds: Kinds) {
        if let Some(slot) = self.kinds.get_mut(id as usize) {
            *slot = kinds;
        }
    }

    /// The id of a text.
    pub(super) fn id(&self, text: &[u8]) -> Option<u32> {
        let mask = self.table.len() - 1;
        let hash = hash(text);
        let (mut slot, tag) = (hash as usize & mask, (hash >> 32) as u32);
        loop {
            match self.table[slot] {
                (0, _) => return None,
                (next, t) if t == tag && self.text(next - 1) == text => return Some(next - 1),
                _ => slot = (slot + 1) & mask,
            }
        }
    }
}

/// A fast hash of bytes, eight at a time by folded multiplication. Not against an adversary: tables bound their probes.
#[inline]
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut state = 0x9E37_79B9_7F4A_7C15 ^ bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        if let Some(word) = chunk.first_chunk() {
            state = fold(state ^ u64::from_le_bytes(*word));
        }
    }
    let last = chunks.remainder().iter().rev().fold(0u64, |word, b| word << 8 | u64::from(*b));
    fold(state ^ last)
}

/// Mixes 64 bits: the two halves of a 128-bit product, xored.
#[inline]
pub(super) fn fold(word: u64) -> u64 {
    let product = u128::from(word) * 0xE703_7ED1_A0B4_28DB;
    (product as u64) ^ (product >> 64) as u64
}
