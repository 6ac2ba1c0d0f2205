//! [`Embedding`]: a text's embedding while its rows are computed, and the token ids of a text to embed. The scheduler
//! chooses the rows, the device gives their means; here chunks come together and the result is cut and normalised.

use super::request::{EmbedRequest, RankRequest, Usage};
use super::scheduler::Part;
use super::turn::prompt_ids;
use crate::error::{Error, Result};
use crate::model::{Model, Ranking};
use crate::text::Tokenizer;

/// The token ids of a text to embed: special tokens are parsed, and BOS and EOS (or a separator) stand around it as the model wants.
/// Neither is doubled where the text brings it.
pub fn embed_ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let mut ids = prompt_ids(tokenizer, text);
    tokenizer.close(&mut ids);
    ids
}

/// A query and a text, joined as a model wants to see them that ranks: by its template if the file has one
/// (`tokenizer.chat_template.rerank`, where `{query}` and `{document}` stand for the two), else with the tokens between
/// them that stand around a text. All adapters are used, as the model was opened.
///
/// # Errors
/// A model that does not rank.
pub fn rank_request(model: &Model, query: &str, text: &str) -> Result<RankRequest> {
    model.expect_ranking()?;
    let tokenizer = model.tokenizer();
    if let Some(template) = model.meta().opt_str("tokenizer.chat_template.rerank")? {
        // In one go, so that a query that spells the other place out stays what it is.
        let filled = template.split("{query}").map(|part| part.split("{document}").collect::<Vec<_>>().join(text));
        let prompt = embed_ids(tokenizer, &filled.collect::<Vec<_>>().join(query));
        return Ok(RankRequest { prompt, ..RankRequest::default() });
    }
    let ends = tokenizer.ends();
    let between = tokenizer.add_eos() && tokenizer.add_separator();
    let mut ids = Vec::new();
    if tokenizer.add_bos() {
        ids.extend(tokenizer.bos());
    }
    ids.extend(tokenizer.encode(query, false, false));
    ids.extend(ends);
    ids.extend(tokenizer.separator().filter(|_| between));
    let second = Some(ids.len());
    ids.extend(tokenizer.encode(text, false, false));
    ids.extend(ends);
    Ok(RankRequest { prompt: ids, second, adapters: None })
}

/// The score that a row of labels' logits stands for.
fn score(logits: &[f64], ranking: Ranking) -> f64 {
    let first = logits.first().copied().unwrap_or_default();
    if !ranking.softmax {
        return first;
    }
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (first - most).exp() / logits.iter().map(|x| (x - most).exp()).sum::<f64>()
}

/// A sequence that ends with an embedding.
#[derive(Debug)]
pub(crate) struct Embedding {
    dimensions: Option<usize>,
    normalize: bool,
    /// Whether the numbers are logits of labels, of which a score is to be made.
    ranking: Option<Ranking>,
    /// Sum of the rows so far, and their number.
    sum: Vec<f64>,
    n: u32,
    usage: Usage,
    added: f64,
    started: Option<f64>,
}

impl Embedding {
    pub(crate) fn new(request: &EmbedRequest, now: f64) -> Embedding {
        let EmbedRequest { dimensions, normalize, .. } = *request;
        Embedding { dimensions, normalize, ..Embedding::of(request.prompt.len(), now) }
    }

    /// The same for a pair of texts that is to be scored.
    pub(crate) fn ranked(request: &RankRequest, ranking: Ranking, now: f64) -> Embedding {
        Embedding { ranking: Some(ranking), ..Embedding::of(request.prompt.len(), now) }
    }

    fn of(prompt_tokens: usize, now: f64) -> Embedding {
        Embedding {
            dimensions: None,
            normalize: false,
            ranking: None,
            sum: Vec::new(),
            n: 0,
            usage: Usage { prompt_tokens, ..Usage::default() },
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

    /// The mean of all rows, cut and normalised; or the score.
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
        if let Some(ranking) = self.ranking {
            return Ok(vec![score(&self.sum, ranking) as f32]);
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
