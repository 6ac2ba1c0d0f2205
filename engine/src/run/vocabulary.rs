//! What the engine needs to know of a vocabulary, and what is said of a token's likelihood.

use std::sync::Arc;

use super::request::{Logprob, Logprobs};
use super::sampler::logprobs;
use crate::model::Model;

/// What the engine needs to know of a vocabulary.
pub(crate) trait Vocabulary: Send + Sync {
    /// Tokens in it: the width of a row of logits.
    fn n_vocab(&self) -> usize;
    /// Whether generation ends with this token.
    fn is_end(&self, id: u32) -> bool;
    /// Appends what a token stands for; control tokens only where `special` asks for them.
    fn piece(&self, id: u32, special: bool, out: &mut Vec<u8>);
}

/// A model's vocabulary as the engine needs it.
pub(crate) struct ModelVocabulary {
    model: Arc<Model>,
    /// Control tokens that are written out all the same: the tags around reasoning.
    visible: [Option<u32>; 2],
}

impl ModelVocabulary {
    pub(crate) fn new(model: Arc<Model>) -> Self {
        let tags = model.template().and_then(|t| t.think_tags());
        let id = |text: Option<&str>| text.and_then(|text| model.tokenizer().id_of(text));
        let visible = [id(tags.map(|t| t.open)), id(tags.map(|t| t.close))];
        Self { model, visible }
    }
}

impl Vocabulary for ModelVocabulary {
    fn n_vocab(&self) -> usize {
        self.model.plan().n_vocab()
    }

    fn is_end(&self, id: u32) -> bool {
        self.model.tokenizer().is_eog(id)
    }

    fn piece(&self, id: u32, special: bool, out: &mut Vec<u8>) {
        let tokenizer = self.model.tokenizer();
        if special || !tokenizer.is_control(id) || self.visible.contains(&Some(id)) {
            out.extend_from_slice(&tokenizer.token_bytes(id));
        }
    }
}

/// The log-probabilities of a token that was chosen from a row of logits, and of the `n` likeliest.
pub(super) fn describe(vocabulary: &dyn Vocabulary, row: &[f32], token: u32, n: usize) -> Logprobs {
    let (chosen, top) = logprobs(row, token, n);
    let entry = |(id, logprob): (u32, f32)| {
        let mut bytes = Vec::new();
        vocabulary.piece(id, true, &mut bytes);
        Logprob { id, logprob, bytes }
    };
    Logprobs { chosen: entry(chosen), top: top.into_iter().map(entry).collect() }
}
