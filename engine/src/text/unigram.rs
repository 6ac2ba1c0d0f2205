//! Unigram tokenizers of SentencePiece (`tokenizer.ggml.model` = `t5`; Kudo 2018): of all ways to cut a normalized text into
//! tokens, the one with the largest sum of scores.

use super::charmap::Charmap;
use super::merge::NONE;
use super::prefixes::Prefixes;
use super::spm::SPACE_MARK;
use super::vocab::{Kinds, Vocab};
use crate::error::{Error, Result};
use crate::meta::Meta;

/// How far below the lowest score a character without a token lies.
const UNKNOWN: f64 = 10.0;

/// The scores of the tokens and the normalizer.
#[derive(Debug)]
pub(super) struct Unigram {
    map: Charmap,
    scores: Vec<f32>,
    prefixes: Prefixes,
    unknown: Option<u32>,
    unknown_score: f64,
    /// The token of each byte, if there is one for every byte: characters without a token become those.
    bytes: Option<Box<[u32; 256]>>,
    /// Whether spaces at both ends are dropped, and runs of them made one.
    merges_spaces: bool,
}

/// The best way to a place of the text.
#[derive(Debug, Clone, Copy)]
struct Best {
    score: f64,
    /// Where the last token of it starts; [`NONE`] as long as there is no way.
    start: u32,
    /// That token, or [`NONE`] for a character without one.
    id: u32,
}

impl Unigram {
    /// Reads scores and the keys of the normalizer.
    pub(super) fn read(meta: &Meta, vocab: &Vocab, unknown: Option<u32>) -> Result<Unigram> {
        let n = vocab.len() as usize;
        let array = meta.array("tokenizer.ggml.scores")?;
        if array.len() < n {
            return Err(Error::format(format!(
                "tokenizer.ggml.scores has {} entries for {n} tokens: the file is damaged",
                array.len()
            )));
        }
        let scores: Vec<f32> = array.iter().take(n).map(|s| s.as_f64().unwrap_or(0.0) as f32).collect();
        let usable = Kinds::NORMAL.or(Kinds::USER).or(Kinds::UNUSED);
        let ids = (0..vocab.len()).filter(|id| {
            let kinds = vocab.kinds(*id);
            kinds.any(usable) && !kinds.any(Kinds::SPECIAL)
        });
        let prefixes = Prefixes::of(ids, |id| vocab.text(id));
        let normal = (0..vocab.len()).filter(|id| vocab.kinds(*id).any(Kinds::NORMAL));
        let lowest = normal.map(|id| scores[id as usize]).filter(|s| s.is_finite()).fold(f32::INFINITY, f32::min);
        let lowest = if lowest.is_finite() { f64::from(lowest) } else { 0.0 };
        let mut bytes = Box::new([NONE; 256]);
        for (byte, id) in bytes.iter_mut().enumerate() {
            let named = vocab.id(format!("<0x{byte:02X}>").as_bytes());
            *id = named.filter(|id| vocab.kinds(*id).any(Kinds::BYTE)).unwrap_or(NONE);
        }
        let bytes = (!bytes.contains(&NONE)).then_some(bytes);
        let merges_spaces = meta.opt_bool("tokenizer.ggml.remove_extra_whitespaces")?.unwrap_or(true);
        let unknown_score = lowest - UNKNOWN;
        Ok(Unigram { map: Charmap::read(meta)?, scores, prefixes, unknown, unknown_score, bytes, merges_spaces })
    }

    /// Appends the ids of a text without special tokens; with a space in front where asked.
    pub(super) fn encode(&self, vocab: &Vocab, text: &str, prefix: bool, out: &mut Vec<u32>) {
        let text = self.normalized(text, prefix);
        let best = self.ways(vocab, &text);
        let mut tokens = Vec::new();
        let mut at = text.len();
        while at > 0 {
            let Best { start, id, .. } = best[at];
            tokens.push((start as usize, at, id));
            at = start as usize;
        }
        let mut after_unknown = false;
        for (start, end, id) in tokens.into_iter().rev() {
            match (&self.bytes, id) {
                (Some(bytes), NONE) => out.extend(text.as_bytes()[start..end].iter().map(|b| bytes[usize::from(*b)])),
                // A run of characters without tokens is one unknown token.
                (None, NONE) if !after_unknown => out.extend(self.unknown),
                (None, NONE) => {}
                _ => out.push(id),
            }
            after_unknown = id == NONE;
        }
    }

    /// The best way to every place of a text.
    fn ways(&self, vocab: &Vocab, text: &str) -> Vec<Best> {
        let mut best = vec![Best { score: 0.0, start: NONE, id: NONE }; text.len() + 1];
        let reach = |best: &mut [Best], at: usize, end: usize, id: u32, score: f64| {
            let total = best[at].score + score;
            if best[end].start == NONE || total > best[end].score {
                best[end] = Best { score: total, start: at as u32, id };
            }
        };
        for (at, c) in text.char_indices() {
            let mut alone = false;
            self.prefixes.each(
                &text.as_bytes()[at..],
                |id| vocab.text(id),
                |len, id| {
                    alone |= len == c.len_utf8();
                    reach(&mut best, at, at + len, id, f64::from(self.scores[id as usize]));
                },
            );
            if !alone {
                reach(&mut best, at, at + c.len_utf8(), NONE, self.unknown_score);
            }
        }
        best
    }

    /// The text as the map has it, with `▁` for spaces.
    fn normalized(&self, text: &str, prefix: bool) -> String {
        let mut rest = text;
        while self.merges_spaces && !rest.is_empty() {
            let (" ", len) = self.map.next(rest) else { break };
            rest = &rest[len..];
        }
        let mut out = String::with_capacity(text.len() + text.len() / 2);
        if prefix && !rest.is_empty() {
            out.push_str(SPACE_MARK);
        }
        let mut behind_space = self.merges_spaces;
        while !rest.is_empty() {
            let (mut piece, len) = self.map.next(rest);
            if behind_space {
                piece = piece.trim_start_matches(' ');
            }
            for c in piece.chars() {
                if c == ' ' { out.push_str(SPACE_MARK) } else { out.push(c) }
            }
            if !piece.is_empty() {
                behind_space = piece.ends_with(' ');
            }
            behind_space &= self.merges_spaces;
            rest = &rest[len..];
        }
        if self.merges_spaces {
            out.truncate(out.trim_end_matches(SPACE_MARK).len());
        }
        out
    }
}
