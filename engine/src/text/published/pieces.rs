//! `tokenizer.model`: SentencePiece's own file, a protocol buffer of which the pieces and two settings are read.

use super::{BYTE, Vocabulary};
use crate::error::{Error, Result};

/// A field of a message: its number and what it holds.
enum Field<'a> {
    Number(u64),
    Fixed(u32),
    Bytes(&'a [u8]),
}

/// The fields of a message in order.
struct Fields<'a> {
    bytes: &'a [u8],
}

fn damaged() -> Error {
    Error::format("tokenizer.model is damaged: download it again")
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.bytes.split_first().ok_or_else(damaged)?;
            self.bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(damaged())
    }

    fn take(&mut self, n: u64) -> Result<&'a [u8]> {
        let n = usize::try_from(n).ok().filter(|n| *n <= self.bytes.len()).ok_or_else(damaged)?;
        let (taken, rest) = self.bytes.split_at(n);
        self.bytes = rest;
        Ok(taken)
    }

    /// The next field; `None` at the end.
    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Number(self.varint()?),
            1 => Field::Bytes(self.take(8)?),
            2 => {
                let len = self.varint()?;
                Field::Bytes(self.take(len)?)
            }
            5 => Field::Fixed(self.take(4)?.first_chunk().map_or(0, |b| u32::from_le_bytes(*b))),
            _ => return Err(damaged()),
        };
        Ok(Some((key >> 3, field)))
    }
}

/// The vocabulary of a `tokenizer.model`.
///
/// # Errors
/// [`Error::Format`] where it is damaged, [`Error::Unsupported`] for kinds that are not known.
pub(super) fn vocabulary(bytes: &[u8]) -> Result<Vocabulary> {
    let mut vocabulary = Vocabulary { model: "llama", scores: Some(Vec::new()), ..Vocabulary::default() };
    (vocabulary.space_prefix, vocabulary.squeeze_spaces) = (Some(true), true);
    let mut kind = 1;
    let mut fields = Fields { bytes };
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Bytes(piece)) => self::piece(&mut vocabulary, piece)?,
            // TrainerSpec: 3 is the kind of model.
            (2, Field::Bytes(spec)) => {
                let mut fields = Fields { bytes: spec };
                while let Some((number, field)) = fields.next()? {
                    if let (3, Field::Number(n)) = (number, field) {
                        kind = n;
                    }
                }
            }
            (3, Field::Bytes(spec)) => normalizer(&mut vocabulary, spec)?,
            _ => {}
        }
    }
    match kind {
        1 => vocabulary.model = "t5",
        2 => vocabulary.charsmap.clear(),
        n => {
            return Err(Error::unsupported(format!(
                "tokenizer.model is of SentencePiece's kind {n}, which is not known"
            )));
        }
    }
    if vocabulary.tokens.is_empty() {
        return Err(damaged());
    }
    vocabulary.pre = Some("default");
    Ok(vocabulary)
}

/// A piece: text, score, type. The types' numbers are GGUF's.
fn piece(vocabulary: &mut Vocabulary, bytes: &[u8]) -> Result<()> {
    let (mut text, mut score, mut kind) = (&[][..], 0f32, 1);
    let mut fields = Fields { bytes };
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Bytes(bytes)) => text = bytes,
            (2, Field::Fixed(bits)) => score = f32::from_bits(bits),
            (3, Field::Number(n)) => kind = n,
            _ => {}
        }
    }
    let kind = i32::try_from(kind).ok().filter(|k| (1..=BYTE).contains(k)).ok_or_else(damaged)?;
    vocabulary.tokens.push(text.to_vec());
    vocabulary.types.push(kind);
    if let Some(scores) = &mut vocabulary.scores {
        scores.push(score);
    }
    Ok(())
}

/// NormalizerSpec: 2 the map of characters, 3 a space in front, 4 runs of spaces made one.
fn normalizer(vocabulary: &mut Vocabulary, bytes: &[u8]) -> Result<()> {
    let mut fields = Fields { bytes };
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (2, Field::Bytes(map)) => vocabulary.charsmap = map.to_vec(),
            (3, Field::Number(n)) => vocabulary.space_prefix = Some(n != 0),
            (4, Field::Number(n)) => vocabulary.squeeze_spaces = n != 0,
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_and_every_cut_is_refused_or_shorter() {
        let mut file = Vec::new();
        for (text, score, kind) in [("<unk>", 0f32, 2u8), ("\u{2581}a", -1.5, 1), ("<0x41>", 0.0, 6)] {
            let mut piece = vec![0x0a, text.len() as u8];
            piece.extend(text.as_bytes());
            piece.push(0x15);
            piece.extend(score.to_le_bytes());
            piece.extend([0x18, kind]);
            file.extend([0x0a, piece.len() as u8]);
            file.extend(piece);
        }
        file.extend([0x12, 2, 0x18, 2]);
        file.extend([0x1a, 2, 0x18, 0]);
        let read = vocabulary(&file).unwrap();
        assert_eq!((read.model, read.tokens.len(), read.space_prefix), ("llama", 3, Some(false)));
        assert_eq!(read.types, [2, 1, 6]);
        assert_eq!(read.scores.unwrap()[1], -1.5);
        for end in 0..file.len() {
            if let Ok(part) = vocabulary(&file[..end]) {
                assert!(part.tokens.len() <= 3);
            }
        }
    }
}
