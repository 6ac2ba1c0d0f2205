//! WordPiece (`tokenizer.ggml.model` = `bert`): words of a normalized text, cut greedily into the longest tokens.
//! GGUF vocabularies write `▁` before a token that starts a word and nothing before one that goes on.

use super::category::{CONTROL, MARK, PUNCTUATION, SPACE, SYMBOL, class, without_accents};
use super::spm::SPACE_MARK;
use super::vocab::Vocab;
use crate::error::Result;
use crate::meta::Meta;

/// Tokens longer than this many bytes are not looked for in words, so that looking stays linear.
const LONGEST: usize = 256;

/// BERT's normalizer options.
#[derive(Debug)]
pub(super) struct WordPiece {
    lowercase: bool,
    strip_accents: bool,
    unknown: Option<u32>,
    longest: usize,
}

impl WordPiece {
    /// Reads `tokenizer.ggml.normalizer.*`; lower case and no accents where the file does not say.
    pub(super) fn read(meta: &Meta, vocab: &Vocab, unknown: Option<u32>) -> Result<WordPiece> {
        let lowercase = meta.opt_bool("tokenizer.ggml.normalizer.lowercase")?.unwrap_or(true);
        let strip_accents = meta.opt_bool("tokenizer.ggml.normalizer.strip_accents")?.unwrap_or(lowercase);
        Ok(WordPiece { lowercase, strip_accents, unknown, longest: vocab.longest().min(LONGEST) })
    }

    /// Appends the ids of a text without special tokens.
    pub(super) fn encode(&self, vocab: &Vocab, text: &str, out: &mut Vec<u32>) {
        let mut word = String::from(SPACE_MARK);
        for c in text.chars() {
            let of = class(c);
            if of & SPACE != 0 {
                self.finish(vocab, &mut word, out);
            } else if c == '\0' || c == '\u{fffd}' || of & CONTROL != 0 {
                // Dropped without ending the word.
            } else if of & PUNCTUATION != 0 || c.is_ascii() && of & SYMBOL != 0 || is_han(c) {
                self.finish(vocab, &mut word, out);
                self.normalize(c, &mut word);
                self.finish(vocab, &mut word, out);
            } else {
                self.normalize(c, &mut word);
            }
        }
        self.finish(vocab, &mut word, out);
    }

    fn normalize(&self, c: char, word: &mut String) {
        let mut lower = |c: char| if self.lowercase { word.extend(c.to_lowercase()) } else { word.push(c) };
        if !self.strip_accents {
            return lower(c);
        }
        without_accents(c, |c| {
            if class(c) & MARK == 0 {
                lower(c);
            }
        });
    }

    /// Cuts the word, if there is one, and starts the next.
    fn finish(&self, vocab: &Vocab, word: &mut String, out: &mut Vec<u32>) {
        if word.len() == SPACE_MARK.len() {
            return;
        }
        let (before, bytes) = (out.len(), word.as_bytes());
        let mut at = 0;
        while at < bytes.len() {
            let longest = (at + self.longest).min(bytes.len());
            let found = (at + 1..=longest).rev().find_map(|end| Some((end, vocab.id(&bytes[at..end])?)));
            let Some((end, id)) = found else {
                // One part without a token makes the whole word unknown.
                out.truncate(before);
                out.extend(self.unknown);
                break;
            };
            out.push(id);
            at = end;
        }
        word.truncate(SPACE_MARK.len());
    }
}

/// Ideographs that BERT treats as words of their own.
fn is_han(c: char) -> bool {
    matches!(c, '\u{4E00}'..='\u{9FFF}' | '\u{3400}'..='\u{4DBF}' | '\u{20000}'..='\u{2A6DF}' | '\u{2A700}'..='\u{2B73F}'
        | '\u{2B740}'..='\u{2B81F}' | '\u{2B820}'..='\u{2CEAF}' | '\u{F900}'..='\u{FAFF}' | '\u{2F800}'..='\u{2FA1F}')
}
