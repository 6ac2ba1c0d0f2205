//! [`Decoder`]: token ids to text as they come, never splitting a UTF-8 character.

use super::tokenizer::Tokenizer;

/// Turns a stream of ids into text. Keeps the bytes of an unfinished character until the rest arrives.
#[derive(Debug, Clone, Default)]
pub struct Decoder {
    /// Bytes of a character that has begun but not ended: at most three.
    pending: Vec<u8>,
    /// Whether the next text is the first, whose leading space the tokenizer had put there.
    at_start: bool,
    special: bool,
}

impl Decoder {
    /// A decoder for ids that continue a text. `special` says whether control tokens are written out.
    pub fn new(special: bool) -> Decoder {
        Decoder { pending: Vec::new(), at_start: false, special }
    }

    /// A decoder for ids that begin a text: where the tokenizer puts a space before a text, that space is taken off.
    pub fn at_start(special: bool) -> Decoder {
        Decoder { pending: Vec::new(), at_start: true, special }
    }

    /// The text that this id completes; empty while a character is unfinished. Bytes that can be no part of UTF-8
    /// become U+FFFD.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        if !self.special && tokenizer.is_control(id) {
            return String::new();
        }
        let bytes = tokenizer.token_bytes(id);
        let mut bytes = &bytes[..];
        if self.at_start && tokenizer.add_space_prefix() {
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
        }
        self.at_start &= tokenizer.is_control(id);
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = &self.pending[..];
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    rest = after;
                    let Some(bad) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[bad..];
                }
            }
        }
        let done = self.pending.len() - rest.len();
        self.pending.drain(..done);
        text
    }

    /// What is left when no more ids come: U+FFFD where a character was never finished, otherwise nothing.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        text
    }
}
