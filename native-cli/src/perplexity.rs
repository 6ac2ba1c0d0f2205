//! `ir perplexity`: how well a model predicts a text, by the method of llama-perplexity, so that figures compare:
//! windows of `--ctx` tokens, of which the second half is counted.

use std::path::Path;
use std::time::Instant;

use ir_engine::model::Model;
use serde_json::json;

use crate::args::PerplexityArgs;
use crate::compute::{self, Sequence};
use crate::divergence::{Divergences, Figures, Header, Keeper, Kept};
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
    let model = models::find(&args.model, &args.file)?.open(&args.file, &args.lora)?;
    compute::expect_next(model.plan())?;
    if let Some(kept) = &args.kl_base {
        return compare(args, &model, Kept::open(kept)?);
    }
    let n_context = args.ctx as usize;
    let text = args.text_file.as_deref().unwrap_or(Path::new("-"));
    let windows = windows(&model, text, n_context, args.chunks)?;
    let header = Header { n_context, n_vocab: model.plan().n_vocab(), tokens: windows.concat() };
    let mut keeper = args.save_all_logits.as_ref().map(|path| Keeper::new(path, &header)).transpose()?;
    let device = compute::device(&args.device, args.threads.threads)?;
    let kv = compute::kv_kind(args.device.kv_type);
    let mut sequence = Sequence::new(&device, model.plan(), kv, n_context, compute::MAX_TOKENS)?;
    let (mut out, mut losses, started) = (Out::new(), Losses::default(), Instant::now());
    for (i, window) in windows.iter().enumerate() {
        measure(&mut sequence, window, &mut |row, next| {
            losses.add(loss(row, next));
            keeper.as_mut().map_or(Ok(()), |keeper| keeper.add(row))
        })?;
        if i == 0 && !args.json {
            remark(windows.len(), n_context, started);
        }
        if !args.json {
            out.text(&format!("[{}]{:.4},", i + 1, losses.perplexity().0))?;
        }
    }
    keeper.map_or(Ok(()), Keeper::finish)?;
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

/// Gives the rows of a window's second half with the tokens that follow them, as llama-perplexity counts: those from the middle
/// on, except the last.
fn measure(sequence: &mut Sequence, window: &[u32], each: &mut dyn FnMut(&[f32], u32) -> Result) -> Result {
    let first = window.len() / 2;
    sequence.reset();
    sequence.skip(&window[..first])?;
    let mut following = window[first + 1..].iter();
    sequence.rows(&window[first..window.len() - 1], &mut |row| following.next().map_or(Ok(()), |next| each(row, *next)))
}

/// Compares the model's predictions with those that were kept.
fn compare(args: &PerplexityArgs, model: &Model, mut kept: Kept) -> Result {
    let Header { n_context, n_vocab, tokens } = kept.header.clone();
    let (known, limit) = (model.plan().n_vocab(), model.spec().n_context);
    if n_vocab != known || tokens.iter().any(|id| *id as usize >= n_vocab) {
        return Err(Failure::run(format!(
            "the kept predictions are of {n_vocab} tokens, the model's of {known}: only models of one vocabulary compare"
        )));
    }
    if n_context > limit {
        return Err(Failure::run(format!(
            "the kept windows of {n_context} tokens exceed the model's context of {limit}"
        )));
    }
    let device = compute::device(&args.device, args.threads.threads)?;
    let kv = compute::kv_kind(args.device.kv_type);
    let mut sequence = Sequence::new(&device, model.plan(), kv, n_context, compute::MAX_TOKENS)?;
    let n_windows = (tokens.len() / n_context).min(args.chunks.unwrap_or(usize::MAX));
    let (mut losses, mut base, mut divergences) = (Losses::default(), Losses::default(), Divergences::default());
    let started = Instant::now();
    for (i, window) in tokens.chunks_exact(n_context).take(n_windows).enumerate() {
        measure(&mut sequence, &begun(model, window.to_vec()), &mut |row, next| {
            let kept = kept.next()?;
            losses.add(loss(row, next));
            base.add(-f64::from(kept[next as usize]));
            divergences.add(&kept, row, next);
            Ok(())
        })?;
        if i == 0 && !args.json {
            remark(n_windows, n_context, started);
        }
    }
    show(args, (losses, base), &divergences.figures())
}

/// Prints what a comparison came to.
fn show(args: &PerplexityArgs, (losses, base): (Losses, Losses), figures: &Figures) -> Result {
    let ((ppl, error), (base, base_error)) = (losses.perplexity(), base.perplexity());
    let Figures { mean, max, at_99, median, same_top, loss, rms } = *figures;
    let mut out = Out::new();
    if args.json {
        let all = json!({ "perplexity": ppl, "error": error, "base_perplexity": base, "tokens": losses.n,
            "kld": mean.0, "kld_error": mean.1, "kld_max": max, "kld_99": at_99, "kld_median": median,
            "same_top": same_top, "loss_above": loss.0, "loss_above_error": loss.1, "probability_rms": rms });
        return out.line(all.to_string());
    }
    out.line(format!("Kept predictions: PPL = {base:.4} +/- {base_error:.5}"))?;
    out.line(format!("This model:       PPL = {ppl:.4} +/- {error:.5}, ln(PPL) {:+.5} +/- {:.5}", loss.0, loss.1))?;
    out.line(format!("KL divergence:    {:.6} +/- {:.6} on the mean", mean.0, mean.1))?;
    out.line(format!("                  {median:.6} median, {at_99:.6} at 99 %, {max:.6} at most"))?;
    let (same, rms) = (100.0 * same_top, 100.0 * rms);
    out.line(format!("Most likely token: the same in {same:.2} %"))?;
    out.line(format!("Right token's probability: changed by {rms:.3} % (RMS)"))
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
