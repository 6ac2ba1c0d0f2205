//! How far a model's predictions are from those of another that were kept in a file, as llama-perplexity has both: the file of
//! `--save-all-logits`, and the figures of `--kl-divergence`.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use crate::failure::{Failure, Result};

const MAGIC: &[u8; 8] = b"_logits_";
/// Less likely tokens than this factor of e are all the same.
const DEPTH: f32 = 16.0;

/// What is known of a file of kept predictions in front of its rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Header {
    /// Tokens of a window.
    pub(crate) n_context: usize,
    pub(crate) n_vocab: usize,
    /// The windows' tokens, one after the other.
    pub(crate) tokens: Vec<u32>,
}

/// Numbers of 16 bits that a row takes: two floats, and one for each token of an even vocabulary.
fn row_len(n_vocab: usize) -> usize {
    n_vocab.next_multiple_of(2) + 4
}

/// Writes predictions.
#[derive(Debug)]
pub(crate) struct Keeper {
    out: BufWriter<File>,
    name: String,
}

impl Keeper {
    /// Creates the file.
    pub(crate) fn new(path: &Path, header: &Header) -> Result<Keeper> {
        let name = path.display().to_string();
        let file = File::create(path).map_err(|e| Failure::run(format!("cannot create {name}: {e}")))?;
        let mut keeper = Keeper { out: BufWriter::with_capacity(1 << 20, file), name };
        let n_windows = header.tokens.len() / header.n_context;
        let counts = [header.n_context, header.n_vocab, n_windows].map(|n| n as u32);
        let words = counts.iter().chain(&header.tokens);
        let bytes: Vec<u8> = MAGIC.iter().copied().chain(words.flat_map(|n| n.to_le_bytes())).collect();
        keeper.write(&bytes)?;
        Ok(keeper)
    }

    fn write(&mut self, bytes: &[u8]) -> Result {
        self.out.write_all(bytes).map_err(|e| Failure::run(format!("cannot write {}: {e}", self.name)))
    }

    /// Keeps a row of logits.
    pub(crate) fn add(&mut self, logits: &[f32]) -> Result {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let min = logits.iter().copied().fold(f32::INFINITY, f32::min).max(max - DEPTH);
        let (scale, least) = ((max - min) / 65535.0, min - max - log_sum(logits, max));
        let step = |x: f32| if scale > 0.0 && x > min { ((x - min) / scale).round() as u16 } else { 0 };
        let mut bytes: Vec<u8> = [scale, least].iter().flat_map(|x| x.to_le_bytes()).collect();
        bytes.extend(logits.iter().flat_map(|x| step(*x).to_le_bytes()));
        bytes.resize(2 * row_len(logits.len()), 0);
        self.write(&bytes)
    }

    /// Everything is written.
    pub(crate) fn finish(mut self) -> Result {
        self.out.flush().map_err(|e| Failure::run(format!("cannot write {}: {e}", self.name)))
    }
}

/// Reads predictions.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) header: Header,
    file: BufReader<File>,
    name: String,
}

impl Kept {
    /// Opens a file, whose length must be what it says.
    pub(crate) fn open(path: &Path) -> Result<Kept> {
        let name = path.display().to_string();
        let failed = |e| Failure::run(format!("cannot read {name}: {e}"));
        let opened = File::open(path).map_err(failed)?;
        let len = opened.metadata().map_err(failed)?.len();
        let mut file = BufReader::with_capacity(1 << 20, opened);
        let none = || Failure::run(format!("{name} keeps no predictions: make it with --save-all-logits"));
        let mut start = [0; 20];
        file.read_exact(&mut start).map_err(|_| none())?;
        let count = |at: usize| start[at..].first_chunk().map_or(0, |n| u64::from(u32::from_le_bytes(*n)));
        let (n_context, n_vocab, n_windows) = (count(8), count(12), count(16));
        if start[..8] != *MAGIC || n_context < 2 || n_vocab == 0 || n_windows == 0 || n_vocab > i32::MAX as u64 {
            return Err(none());
        }
        let row = 2 * row_len(n_vocab as usize) as u64;
        let window = (n_context - 1 - n_context / 2).checked_mul(row).and_then(|rows| rows.checked_add(4 * n_context));
        let wanted = window.and_then(|window| window.checked_mul(n_windows)).and_then(|all| all.checked_add(20));
        if wanted != Some(len) {
            return Err(Failure::run(format!(
                "{name} has {len} bytes, which are not those of its {n_windows} windows"
            )));
        }
        let mut bytes = vec![0; 4 * (n_windows * n_context) as usize];
        file.read_exact(&mut bytes).map_err(failed)?;
        let tokens = bytes.as_chunks().0.iter().map(|n| u32::from_le_bytes(*n)).collect();
        let header = Header { n_context: n_context as usize, n_vocab: n_vocab as usize, tokens };
        Ok(Kept { header, file, name })
    }

    /// The next row: the logarithms of all tokens' probabilities.
    pub(crate) fn next(&mut self) -> Result<Vec<f32>> {
        let mut bytes = vec![0; 2 * row_len(self.header.n_vocab)];
        self.file.read_exact(&mut bytes).map_err(|e| Failure::run(format!("cannot read {}: {e}", self.name)))?;
        let float = |at: usize| bytes[at..].first_chunk().map_or(0.0, |x| f32::from_le_bytes(*x));
        let (scale, least) = (float(0), float(4));
        let steps = bytes[8..].as_chunks().0.iter().take(self.header.n_vocab);
        Ok(steps.map(|step| scale * f32::from(u16::from_le_bytes(*step)) + least).collect())
    }
}

/// The logarithm of the sum of `exp(x - max)`.
fn log_sum(logits: &[f32], max: f32) -> f32 {
    logits.iter().map(|x| f64::from(x - max).exp()).sum::<f64>().ln() as f32
}

/// Comparisons of rows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Divergences {
    each: Vec<f64>,
    same_top: u64,
    ratios: Vec<f64>,
    squares: f64,
}

/// What comparisons come to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// The mean divergence and its standard error.
    pub(crate) mean: (f64, f64),
    pub(crate) max: f64,
    pub(crate) at_99: f64,
    pub(crate) median: f64,
    /// The share of rows whose most likely token is the same.
    pub(crate) same_top: f64,
    /// The mean of how much larger the loss is than that of the kept predictions, and its standard error.
    pub(crate) loss: (f64, f64),
    /// The root of the mean square by which the right token's probability changed.
    pub(crate) rms: f64,
}

impl Divergences {
    /// Compares a row of logits with what was kept; `token` is the one that follows.
    pub(crate) fn add(&mut self, base: &[f32], logits: &[f32], token: u32) {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let all = max + log_sum(logits, max);
        let likely = base.iter().zip(logits).filter(|(base, _)| **base > -DEPTH);
        let part = |(base, x): (&f32, &f32)| f64::from(base.exp()) * f64::from(base - (x - all));
        self.each.push(likely.map(part).sum());
        self.same_top += u64::from(top(base) == top(logits));
        let (base, own) = (f64::from(base[token as usize]), f64::from(logits[token as usize] - all));
        self.ratios.push(base - own);
        self.squares += (own.exp() - base.exp()).powi(2);
    }

    /// What they come to; of nothing, no numbers.
    pub(crate) fn figures(&self) -> Figures {
        let n = self.each.len();
        let mut sorted = self.each.clone();
        sorted.sort_by(f64::total_cmp);
        let at =
            |part: f64| sorted.get(((n as f64 * part) as usize).min(n.saturating_sub(1))).copied().unwrap_or(f64::NAN);
        Figures {
            mean: mean(&self.each),
            max: at(1.0),
            at_99: at(0.99),
            median: at(0.5),
            same_top: self.same_top as f64 / n as f64,
            loss: mean(&self.ratios),
            rms: (self.squares / n as f64).sqrt(),
        }
    }
}

fn top(row: &[f32]) -> usize {
    row.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (i, x)| if *x > best.1 { (i, *x) } else { best }).0
}

/// A mean and its standard error.
fn mean(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n / (n - 1.0).max(1.0);
    (mean, variance.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_rows_come_back_and_differ_from_themselves_by_nothing() {
        let path = std::env::temp_dir().join(format!("ir-kept-{}", std::process::id()));
        let header = Header { n_context: 4, n_vocab: 5, tokens: vec![1, 2, 3, 4] };
        let logits = [0.5, -3.0, 2.0, 1.0, -40.0];
        let mut keeper = Keeper::new(&path, &header).unwrap();
        keeper.add(&logits).unwrap();
        keeper.finish().unwrap();
        let mut kept = Kept::open(&path).unwrap();
        assert_eq!(kept.header, header);
        let row = kept.next().unwrap();
        let all = log_sum(&logits, 2.0) + 2.0;
        assert!(logits[..4].iter().zip(&row).all(|(x, kept)| (x - all - kept).abs() < 1e-3), "{row:?}");
        let mut same = Divergences::default();
        same.add(&row, &logits, 2);
        let figures = same.figures();
        assert!(figures.mean.0.abs() < 1e-3 && figures.same_top == 1.0 && figures.rms < 1e-3, "{figures:?}");
        let mut other = Divergences::default();
        other.add(&row, &[0.0; 5], 2);
        // The entropy less the logarithm of five.
        let entropy: f64 = row.iter().map(|p| f64::from(*p).exp() * f64::from(*p)).sum();
        assert!((other.figures().mean.0 - (entropy + 5f64.ln())).abs() < 1e-3, "{:?}", other.figures());
        let whole = std::fs::read(&path).unwrap();
        for cut in [0, 7, 19, 30, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(Kept::open(&path).is_err(), "{cut}");
        }
        let mut huge = whole.clone();
        huge[8..20].fill(0xff);
        std::fs::write(&path, &huge).unwrap();
        assert!(Kept::open(&path).is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
