//! `ir perplexity`: how well a model predicts a text, by the method of llama-perplexity, so that figures compare:
//! windows of `--ctx` tokens, of which the second half is counted.

use std::path::Path;
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
    let n_context = args.ctx as usize;
    let windows = windows(&model, &args.text_file, n_context, args.chunks)?;
    let device = compute::device(&args.device, args.threads.threads)?;
    let kv = compute::kv_kind(args.device.kv_type);
    let mut sequence = Sequence::new(&device, model.plan(), kv, n_context, compute::MAX_TOKENS)?;
    let (mut out, mut losses, started) = (Out::new(), Losses::default(), Instant::now());
    for (i, window) in windows.iter().enumerate() {
        measure(&mut sequence, window, &mut losses)?;
        if i == 0 && !args.json {
            remark(windows.len(), n_context, started);
        }
        if !args.json {
            out.text(&format!("[{}]{:.4},", i + 1, losses.perplexity().0))?;
        }
    }
    let (ppl, error) = losses.perplexity();
    if args.json {
        let figures = json!({ "perplexity": ppl, "error": error, "tokens": losses.n, "windows": windows.len(),
            "ctx": n_context });
        return out.line(figures.to_string());
    }
    out.line(format!("\nFinal estimate: PPL = {ppl:.4} +/- {error:.5}"))
}

/// How long the others take, after the first window.
pub(crate) fn remark(n_windows: usize, n_context: usize, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    let all = seconds * n_windows as f64;
    let n = term::counted(n_windows, "window");
    term::remark(&format!("{n} of {n_context} tokens; {seconds:.2} s each, about {all:.0} s in all"));
}

/// A text's windows of so many tokens, `most` at most. Each begins with the token that texts begin with, if there is one.
pub(crate) fn windows(model: &Model, text: &Path, n_context: usize, most: Option<usize>) -> Result<Vec<Vec<u32>>> {
    let text = crate::tokenize::read_text(Some(text))?;
    let tokens = model.tokenizer().encode(&text, true, false);
    let (n_vocab, limit) = (model.plan().n_vocab(), model.spec().n_context);
    if let Some(id) = tokens.iter().find(|id| **id as usize >= n_vocab) {
        return Err(Failure::run(format!(
            "the tokenizer gives id {id}, but the model knows {n_vocab} tokens: the file is damaged"
        )));
    }
    if n_context > limit {
        return Err(Failure::usage(format!("--ctx {n_context} exceeds the model's context of {limit} tokens")));
    }
    if tokens.len() < n_context {
        return Err(Failure::run(format!(
            "the text has {} tokens, less than one window of {n_context}: give a longer one or a smaller --ctx",
            tokens.len()
        )));
    }
    let windows = tokens.chunks_exact(n_context).take(most.unwrap_or(usize::MAX));
    Ok(windows.map(|window| begun(model, window.to_vec())).collect())
}

/// A window with the token that texts begin with, if there is one, in place of its first.
fn begun(model: &Model, mut window: Vec<u32>) -> Vec<u32> {
    let tokenizer = model.tokenizer();
    if let Some((first, bos)) = window.first_mut().zip(tokenizer.bos().filter(|_| tokenizer.add_bos())) {
        *first = bos;
    }
    window
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
