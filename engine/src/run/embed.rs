//! [`Embedding`]: a text's embedding while its rows are computed, and the token ids of a text to embed. The scheduler
//! chooses the rows, the device gives their means; here chunks come together and the result is cut and normalised.

use super::request::{EmbedRequest, Usage};
use super::scheduler::Part;
use super::turn::prompt_ids;
use crate::error::{Error, Result};
use crate::text::Tokenizer;

/// The token ids of a text to embed: special tokens are parsed, and BOS and EOS stand around it as the model wants.
/// Neither is doubled where the text brings it.
pub fn embed_ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let mut ids = prompt_ids(tokenizer, text);
    if tokenizer.add_eos() && ids.last().copied() != tokenizer.eos() {
        ids.extend(tokenizer.eos());
    }
    ids
}

/// A sequence that ends with an embedding.
#[derive(Debug)]
pub(crate) struct Embedding {
    dimensions: Option<usize>,
    normalize: bool,
    /// Sum of the rows so far, and their number.
    sum: Vec<f64>,
    n: u32,
    usage: Usage,
    added: f64,
    started: Option<f64>,
}

impl Embedding {
    pub(crate) fn new(request: &EmbedRequest, now: f64) -> Embedding {
        Embedding {
            dimensions: request.dimensions,
            normalize: request.normalize,
            sum: Vec::new(),
            n: 0,
            usage: Usage { prompt_tokens: request.prompt.len(), ..Usage::default() },
            added: now,
            started: None,
        }
    }

    /// A step begins to work on it.
    pub(crate) fn start(&mut self, now: f64) {
        self.started.get_or_insert(now);
    }

    /// Adds what a step computed: the mean of `rows` rows. A sequence that was preempted begins anew.
    pub(crate) fn add(&mut self, part: &Part, mean: &[f32], rows: u32) {
        if part.start == 0 || self.sum.len() != mean.len() {
            (self.sum, self.n) = (vec![0.0; mean.len()], 0);
        }
        self.sum.iter_mut().zip(mean).for_each(|(sum, x)| *sum += f64::from(*x) * f64::from(rows));
        self.n += rows;
    }

    /// The mean of all rows, cut and normalised.
    ///
    /// # Errors
    /// Where a number is not finite.
    pub(crate) fn finish(mut self) -> Result<Vec<f32>> {
        self.sum.truncate(self.dimensions.unwrap_or(usize::MAX));
        let n = f64::from(self.n.max(1));
        self.sum.iter_mut().for_each(|x| *x /= n);
        let length = self.sum.iter().map(|x| x * x).sum::<f64>().sqrt();
        if !length.is_finite() {
            return Err(Error::Device(
                "the embedding holds values that are no numbers: the model file is damaged or the device computed wrongly"
                    .into(),
            ));
        }
        let scale = if self.normalize && length > 0.0 { 1.0 / length } else { 1.0 };
        Ok(self.sum.iter().map(|x| (x * scale) as f32).collect())
    }

    /// What it took until now.
    pub(crate) fn usage(&self, cached_tokens: usize, now: f64) -> Usage {
        let started = self.started.unwrap_or(now);
        Usage { cached_tokens, queued: started - self.added, prompt: now - started, ..self.usage }
    }
}
