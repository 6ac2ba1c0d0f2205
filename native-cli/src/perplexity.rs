//! `ir perplexity`: how well a model predicts a text, by the method of llama-perplexity, so that figures compare:
//! windows of `--ctx` tokens, of which the second half is counted.

use std::time::Instant;

use ir_engine::model::Model;
use serde_json::json;

use crate::args::PerplexityArgs;
use crate::compute::{self, Sequence};
use crate::failure::{Failure, Result};
use crate::models::{self, Opening};
use crate::term::{self, Out};

/// Sums over counted tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Losses {
    n: u64,
    sum: f64,
    squares: f64,
}

impl Losses {
    fn add(&mut self, loss: f64) {
        self.n += 1;
        self.sum += loss;
        self.squares += loss * loss;
    }

    /// Perplexity and its standard error.
    fn perplexity(&self) -> (f64, f64) {
        let n = self.n as f64;
        let (mean, squares) = (self.sum / n, self.squares / n);
        let variance = (squares - mean * mean) / (n - 1.0).max(1.0);
        (mean.exp(), variance.max(0.0).sqrt() * mean.exp())
    }
}

/// Reads the text, computes its windows one by one and prints the running figure.
pub(crate) fn perplexity(args: &PerplexityArgs) -> Result {
    let model = models::find(&args.model, &args.file)?.open(&args.file)?;
    compute::expect_next(model.plan())?;
    let text = crate::tokenize::read_text(Some(&args.text_file))?;
    let tokens = model.tokenizer().encode(&text, true, false);
    let n_vocab = model.plan().n_vocab();
    if let Some(id) = tokens.iter().find(|id| **id as usize >= n_vocab) {
        return Err(Failure::run(format!(
            "the tokenizer gives id {id}, but the model knows {n_vocab} tokens: the file is damaged"
        )));
    }
    let n_context = window(args, &model, tokens.len())?;
    let n_windows = (tokens.len() / n_context).min(args.chunks.unwrap_or(usize::MAX));
    let device = compute::device(&args.device, args.threads.threads)?;
    let kv = compute::kv_kind(args.device.kv_type);
    let mut sequence = Sequence::new(&device, model.plan(), kv, n_context, compute::MAX_TOKENS)?;
    let bos = model.tokenizer().bos().filter(|_| model.tokenizer().add_bos());
    let (mut out, mut losses, started) = (Out::new(), Losses::default(), Instant::now());
    for (i, window) in tokens.chunks_exact(n_context).take(n_windows).enumerate() {
        let mut window = window.to_vec();
        if let Some(bos) = bos {
            window[0] = bos;
        }
        measure(&mut sequence, &window, &mut losses)?;
        if i == 0 && !args.json {
            let seconds = started.elapsed().as_secs_f64();
            let all = seconds * n_windows as f64;
            term::remark(&format!(
                "{}, {} of {n_context}; {seconds:.2} s each, about {all:.0} s in all",
                term::counted(tokens.len(), "token"),
                term::counted(n_windows, "window"),
            ));
        }
        if !args.json {
            out.text(&format!("[{}]{:.4},", i + 1, losses.perplexity().0))?;
        }
    }
    let (ppl, error) = losses.perplexity();
    if args.json {
        let figures = json!({ "perplexity": ppl, "error": error, "tokens": losses.n, "windows": n_windows,
            "ctx": n_context });
        return out.line(figures.to_string());
    }
    out.line(format!("\nFinal estimate: PPL = {ppl:.4} +/- {error:.5}"))
}

/// Tokens of a window, where model and text have so many.
fn window(args: &PerplexityArgs, model: &Model, n_tokens: usize) -> Result<usize> {
    let n_context = args.ctx as usize;
    let limit = model.spec().n_context;
    if n_context > limit {
        return Err(Failure::usage(format!("--ctx {n_context} exceeds the model's context of {limit} tokens")));
    }
    if n_tokens < n_context {
        return Err(Failure::run(format!(
            "the text has {n_tokens} tokens, less than one window of {n_context}: give a longer one or a smaller --ctx"
        )));
    }
    Ok(n_context)
}

/// Adds the losses of a window's second half. As llama-perplexity counts: the rows from the middle on, except the last,
/// each against the token that follows it.
fn measure(sequence: &mut Sequence, window: &[u32], losses: &mut Losses) -> Result {
    let first = window.len() / 2;
    sequence.reset();
    sequence.skip(&window[..first])?;
    let mut following = window[first + 1..].iter();
    sequence.rows(&window[first..window.len() - 1], &mut |row| {
        if let Some(next) = following.next() {
            losses.add(loss(row, *next));
        }
        Ok(())
    })
}

/// The negative logarithm of a token's probability.
fn loss(row: &[f32], token: u32) -> f64 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|x| f64::from(x - max).exp()).sum();
    sum.ln() - f64::from(row[token as usize] - max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uniform_model_is_as_perplexed_as_its_vocabulary_is_large() {
        let mut losses = Losses::default();
        (0..10).for_each(|i| losses.add(loss(&[0.5; 40], i)));
        let (ppl, error) = losses.perplexity();
        assert!((ppl - 40.0).abs() < 1e-9 && error < 1e-6, "{ppl} {error}");
        assert_eq!(loss(&[f32::NEG_INFINITY, 0.0], 1), 0.0);
    }
}
