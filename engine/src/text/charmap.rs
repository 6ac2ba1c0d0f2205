//! [`Charmap`]: SentencePiece's normalizer, from the map that it keeps in a model: which run of bytes becomes which text.

use crate::error::{Error, Result};
use crate::meta::{Kind, Meta};

/// A map from byte strings to texts: a double array (Aoe 1989) over bytes, whose leaves are places of texts. Empty if the
/// model has none, and nothing is changed then.
#[derive(Debug, Default)]
pub(super) struct Charmap {
    units: Vec<u32>,
    /// Texts, each ending with a zero byte.
    texts: Vec<u8>,
}

impl Charmap {
    /// Reads `tokenizer.ggml.precompiled_charsmap`: the length of the array in bytes, the array, the texts.
    pub(super) fn read(meta: &Meta) -> Result<Charmap> {
        const KEY: &str = "tokenizer.ggml.precompiled_charsmap";
        let Some(array) = meta.opt_array(KEY)?.filter(|array| !array.is_empty()) else { return Ok(Charmap::default()) };
        if !matches!(array.kind(), Kind::U8 | Kind::I8) {
            return Err(Error::format(format!("{KEY} should be an array of bytes, but holds {:?}", array.kind())));
        }
        let bytes = meta.array_bytes(KEY)?;
        let damaged = || Error::format(format!("{KEY} is no map of characters: the file is damaged"));
        let (head, rest) = bytes.split_first_chunk().ok_or_else(damaged)?;
        let n = u32::from_le_bytes(*head) as usize;
        if !n.is_multiple_of(4) || n > rest.len() {
            return Err(damaged());
        }
        let (units, texts) = rest.split_at(n);
        let units =
            units.chunks_exact(4).map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]])).collect();
        Ok(Charmap { units, texts: texts.to_vec() })
    }

    /// What a text begins with and becomes: the longest run that the map knows, else one character, which stays.
    pub(super) fn next<'a>(&'a self, text: &'a str) -> (&'a str, usize) {
        let found = self.longest(text.as_bytes()).and_then(|(len, at)| {
            let texts = self.texts.get(at..)?;
            let end = texts.iter().position(|b| *b == 0).unwrap_or(texts.len());
            // A run that ends within a character is none.
            text.is_char_boundary(len).then_some((std::str::from_utf8(&texts[..end]).ok()?, len))
        });
        found.unwrap_or_else(|| {
            let len = text.chars().next().map_or(0, char::len_utf8);
            (&text[..len], len)
        })
    }

    /// The longest key that the bytes begin with: its length and value.
    fn longest(&self, bytes: &[u8]) -> Option<(usize, usize)> {
        let offset = |unit: u32| ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize;
        let mut at = offset(*self.units.first()?);
        let mut found = None;
        for (i, byte) in bytes.iter().enumerate() {
            at ^= usize::from(*byte);
            let Some(unit) = self.units.get(at) else { break };
            if unit & (1 << 31 | 0xff) != u32::from(*byte) {
                break;
            }
            at ^= offset(*unit);
            if unit >> 8 & 1 == 1
                && let Some(leaf) = self.units.get(at)
            {
                found = Some((i + 1, (leaf & 0x7fff_ffff) as usize));
            }
        }
        found
    }
}
