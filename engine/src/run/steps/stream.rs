//! [`Stream`]: what a sequence that generates is beside its tokens and pages: sampler, text, constraint, counts.

use crate::device::Picked;
use crate::error::Result;
use crate::run::held::Held;
use crate::run::request::Usage;
use crate::run::sampler::Sampler;
use crate::run::text::TextStream;
use crate::run::vocabulary::Vocabulary;

/// A sequence's side of the work: the scheduler has its tokens and pages.
pub(super) struct Stream {
    pub(super) sampler: Sampler,
    pub(super) text: TextStream,
    /// Tokens it may still generate.
    pub(super) remaining: usize,
    pub(super) ignore_eos: bool,
    pub(super) show_special: bool,
    pub(super) show: Vec<u32>,
    pub(super) n_logprobs: Option<usize>,
    pub(super) held: Option<Held>,
    pub(super) usage: Usage,
    pub(super) added: f64,
    pub(super) started: Option<f64>,
    pub(super) first: Option<f64>,
}

impl Stream {
    /// Whether it takes the whole row of logits, whatever its sampler could do with.
    pub(super) fn needs_row(&self) -> bool {
        if self.held.as_ref().is_some_and(Held::is_active) {
            return true;
        }
        self.n_logprobs.is_some()
    }

    /// Chooses the token that follows `tokens`.
    pub(super) fn choose(&mut self, row: Row, tokens: &[u32]) -> Result<u32> {
        let row = match row {
            Row::Logits(row) => row,
            Row::Picked(picked) => return self.sampler.finish(picked, tokens),
        };
        if let Some(held) = &mut self.held {
            return self.sampler.sample_among(row, tokens, held.allowed()?);
        }
        self.sampler.sample(row, tokens)
    }

    /// Goes on by a token. Says whether its text is complete by its constraint.
    pub(super) fn hold(&mut self, token: u32, vocabulary: &dyn Vocabulary, piece: &mut Vec<u8>) -> Result<bool> {
        let Some(held) = &mut self.held else { return Ok(false) };
        piece.clear();
        vocabulary.piece(token, true, piece);
        held.push(token, piece)
    }
}

/// What is known of a sequence's next token.
#[derive(Clone, Copy)]
pub(super) enum Row<'a> {
    Logits(&'a [f32]),
    Picked(&'a Picked),
}
