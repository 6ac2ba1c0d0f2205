//! PLaMo-2's tokenizer (`tokenizer.ggml.model` = `plamo2`): of all ways to cut a text into tokens, the one with the largest sum
//! of scores, in whole ten-thousandths; found from the end, of equal ones with the longest token first.

use super::merge::NONE;
use super::prefixes::Prefixes;
use super::vocab::{Kinds, Vocab};
use crate::error::{Error, Result};
use crate::meta::Meta;

/// What a character without a token costs.
const UNKNOWN: i64 = 10_000_000;
/// Scores from here down make a token unusable.
const INVALID: i64 = -20_000_000;

/// The costs of the tokens.
#[derive(Debug)]
pub(super) struct Plamo2 {
    costs: Vec<i64>,
    prefixes: Prefixes,
    /// The token of each byte.
    bytes: Box<[u32; 256]>,
    unknown: Option<u32>,
}

impl Plamo2 {
    /// Reads scores and byte tokens.
    pub(super) fn read(meta: &Meta, vocab: &Vocab, unknown: Option<u32>) -> Result<Plamo2> {
        let n = vocab.len() as usize;
        let scores = meta.array("tokenizer.ggml.scores")?;
        if scores.len() < n {
            return Err(Error::format(format!(
                "tokenizer.ggml.scores has {} entries for {n} tokens: the file is damaged",
                scores.len()
            )));
        }
        let score = |s: f64| {
            if s.is_finite() { (f64::from(s as f32) * 1e4).round().clamp(-1e12, 1e12) as i64 } else { INVALID }
        };
        let costs: Vec<i64> = scores.iter().take(n).map(|s| -score(s.as_f64().unwrap_or(0.0))).collect();
        let usable = |id: &u32| !vocab.kinds(*id).any(Kinds::SPECIAL.or(Kinds::BYTE)) && costs[*id as usize] < -INVALID;
        let prefixes = Prefixes::of((0..vocab.len()).filter(usable), |id| vocab.text(id));
        let mut bytes = Box::new([NONE; 256]);
        for (byte, id) in bytes.iter_mut().enumerate() {
            *id = vocab.id(format!("<0x{byte:02X}>").as_bytes()).unwrap_or(NONE);
        }
        Ok(Plamo2 { costs, prefixes, bytes, unknown })
    }

    /// Appends the ids of a text without special tokens.
    pub(super) fn encode(&self, vocab: &Vocab, text: &str, out: &mut Vec<u32>) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut cost = vec![0i64; text.len() + 1];
        let mut path = vec![(0u32, NONE); text.len()];
        let mut found = Vec::new();
        for (at, c) in text.char_indices().rev() {
            found.clear();
            self.prefixes.each(
                &text.as_bytes()[at..],
                |id| vocab.text(id),
                |len, id| {
                    found.push((len, id, self.costs[id as usize]));
                },
            );
            found.reverse();
            found.push((c.len_utf8(), NONE, UNKNOWN));
            let mut least = i64::MAX;
            for (len, id, own) in &found {
                let total = cost[at + len].saturating_add(*own);
                if text.is_char_boundary(at + len) && total < least {
                    least = total;
                    path[at] = (*len as u32, *id);
                }
            }
            cost[at] = least;
        }
        let mut at = 0;
        while at < text.len() {
            let (len, id) = path[at];
            let end = at + len as usize;
            if id != NONE {
                out.push(id);
            } else {
                let bytes = text.as_bytes()[at..end].iter().map(|b| self.bytes[usize::from(*b)]);
                out.extend(bytes.filter_map(|id| if id == NONE { self.unknown } else { Some(id) }));
            }
            at = end;
        }
    }
}
