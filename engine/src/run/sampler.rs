//! [`Sampler`]: one row of logits in, one token out, and the log-probabilities of a row.
//!
//! The order is llama.cpp's: mask, logit bias, penalties (repeat, then frequency and presence), top-k, typical, top-p,
//! min-p, temperature, pick. A mask bans tokens, so whatever follows chooses among those that are left. Each filter works on the softmax of what the one before it left, before temperature, and keeps at
//! least one token. Among equal logits the lower id comes first, everywhere.
//!
//! The pick is the largest `logit / temperature + gumbel(seed, position, id)`: a draw from the softmax in which a
//! token's noise depends on nothing but the seed, its position and its id. So it does not matter who else was a
//! candidate, and a device that knows the candidates comes to the same token.

use std::cmp::Ordering;

use super::random::{Draw, GUMBEL_MAX};
use super::request::Sampling;
use super::select::{by_logit, largest, sort_until};
use crate::device::Picked;
use crate::error::{Error, Result};
use crate::plan::{Change, TOP, Want};

/// A token and its logit.
pub(crate) type Candidate = (f32, u32);

/// Chooses tokens as a [`Sampling`] says. Holds nothing but memory to work in: the result of [`Sampler::sample`] is a
/// function of its arguments.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    /// The row after bias and penalties, where there are any.
    adjusted: Vec<f32>,
    candidates: Vec<Candidate>,
    window: Vec<u32>,
}

impl Sampler {
    /// A sampler. The host has checked the values ([`Sampling::check`]).
    pub fn new(sampling: Sampling) -> Self {
        Self { sampling, adjusted: Vec::new(), candidates: Vec::new(), window: Vec::new() }
    }

    /// Chooses the token that follows `tokens` (prompt and answer so far) from its row of logits, `[n_vocab]`.
    ///
    /// # Errors
    /// A logit that is NaN or infinite upwards, or a row in which every token is banned.
    pub fn sample(&mut self, row: &[f32], tokens: &[u32]) -> Result<u32> {
        self.sample_among(row, tokens, None)
    }

    /// As [`Sampler::sample`], among the tokens whose bit is set: bit `t % 32` of word `t / 32` of `allowed`; tokens
    /// beyond its last word are not. `None` allows all.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn sample_among(&mut self, row: &[f32], tokens: &[u32], allowed: Option<&[u32]>) -> Result<u32> {
        let mut adjusted = std::mem::take(&mut self.adjusted);
        let changed = self.adjust(row, tokens, allowed, &mut adjusted);
        let picked = self.choose(if changed { &adjusted } else { row }, tokens.len() as u32);
        self.adjusted = adjusted;
        picked
    }

    /// What a device is asked for the row after `tokens`, output `row` of its step, so that [`Sampler::finish`] can choose
    /// from its answer what [`Sampler::sample`] would choose from the whole row; the changes of logits go to `changes`.
    pub fn want(&mut self, tokens: &[u32], row: u32, changes: &mut Vec<Change>) -> Want {
        let s = &self.sampling;
        let want = match self.want_pick(tokens.len()) {
            Some(pick) => pick,
            None if (1..=TOP).contains(&s.top_k) => Want::Top,
            None => return Want::Logits,
        };
        let first = changes.len();
        let none = Change { row, token: 0, bias: 0.0, factor: 1.0, penalty: 0.0 };
        changes.extend(s.logit_bias.iter().map(|(token, bias)| Change { token: *token, bias: *bias, ..none }));
        if self.fill_window(tokens) {
            let s = &self.sampling;
            for run in self.window.chunk_by(|a, b| a == b) {
                let penalty = run.len() as f32 * s.frequency_penalty + s.presence_penalty;
                changes.push(Change { token: run[0], factor: s.repeat_penalty, penalty, ..none });
            }
        }
        join(changes, first);
        want
    }

    /// What a device is asked to pick a token behind `n` tokens by, if it can pick it.
    fn want_pick(&self, n: usize) -> Option<Want> {
        let s = &self.sampling;
        let filters_mass = s.typical_p < 1.0 || s.top_p < 1.0;
        let greedy = s.temperature == 0.0 || s.top_k == 1;
        let scale = if greedy { 0.0 } else { 1.0 / s.temperature };
        let draw = Draw::new(s.seed, n as u32).words();
        (greedy || s.top_k == 0 && !filters_mass).then_some(Want::Pick { draw, scale, least: s.min_p.ln() })
    }

    /// [`Sampler::want`] behind `n` tokens, if it depends on nothing but their number.
    pub(crate) fn want_blind(&self, n: usize) -> Option<Want> {
        self.want_pick(n).filter(|_| !self.has_penalties() && self.sampling.logit_bias.is_empty())
    }

    fn has_penalties(&self) -> bool {
        let s = &self.sampling;
        let penalties = s.repeat_penalty != 1.0 || s.presence_penalty != 0.0 || s.frequency_penalty != 0.0;
        penalties && s.repeat_last_n > 0
    }

    /// Chooses the token that follows `tokens` from what a device answered to [`Sampler::want`].
    ///
    /// # Errors
    /// As [`Sampler::sample`], without saying which logit is damaged.
    pub fn finish(&mut self, picked: &Picked, tokens: &[u32]) -> Result<u32> {
        let damaged = || {
            Error::Device(
                "a row of logits is damaged or every token is banned: check the model's file, the device, the logit biases"
                    .into(),
            )
        };
        match picked {
            Picked::Token(token) => token.ok_or_else(damaged),
            Picked::Top(top) => {
                let best = *top.first().ok_or_else(damaged)?;
                let mut kept = std::mem::take(&mut self.candidates);
                kept.clear();
                kept.extend(top.iter().take(self.sampling.top_k));
                Ok(self.filter(kept, best, tokens.len() as u32))
            }
        }
    }

    /// Fills the window of the penalties, sorted; says whether there are any.
    fn fill_window(&mut self, tokens: &[u32]) -> bool {
        let penalties = self.has_penalties();
        self.window.clear();
        if penalties {
            let last = tokens.len().min(self.sampling.repeat_last_n);
            self.window.extend_from_slice(&tokens[tokens.len() - last..]);
            self.window.sort_unstable();
        }
        penalties
    }

    /// Writes the row with mask, bias and penalties to `out`; says whether there were any.
    fn adjust(&mut self, row: &[f32], tokens: &[u32], allowed: Option<&[u32]>, out: &mut Vec<f32>) -> bool {
        let penalties = self.fill_window(tokens);
        let s = &self.sampling;
        if !penalties && s.logit_bias.is_empty() && allowed.is_none() {
            return false;
        }
        out.clear();
        match allowed {
            None => out.extend_from_slice(row),
            Some(bits) => mask(row, bits, out),
        }
        for (id, bias) in &s.logit_bias {
            if let Some(logit) = out.get_mut(*id as usize) {
                *logit += bias;
            }
        }
        if penalties {
            for run in self.window.chunk_by(|a, b| a == b) {
                if let Some(logit) = out.get_mut(run[0] as usize) {
                    *logit = if *logit <= 0.0 { *logit * s.repeat_penalty } else { *logit / s.repeat_penalty };
                    *logit -= run.len() as f32 * s.frequency_penalty + s.presence_penalty;
                }
            }
        }
        true
    }

    fn choose(&mut self, row: &[f32], position: u32) -> Result<u32> {
        let s = &self.sampling;
        let best = maximum(row)?;
        if s.temperature == 0.0 || s.top_k == 1 {
            return Ok(best.1);
        }
        let (filters_mass, top_k) = (s.typical_p < 1.0 || s.top_p < 1.0, s.top_k > 0 && s.top_k < row.len());
        if !top_k && !filters_mass {
            return Ok(self.pick_row(row, best, position));
        }
        let mut kept = std::mem::take(&mut self.candidates);
        kept.clear();
        if top_k {
            largest(row, s.top_k, &mut kept);
            kept.retain(|c| c.0 > f32::NEG_INFINITY);
        } else {
            kept.extend(candidates(row));
        }
        Ok(self.filter(kept, best, position))
    }

    /// Filters candidates, of which `best` has the largest logit, and draws among those that are left.
    fn filter(&mut self, mut kept: Vec<Candidate>, best: Candidate, position: u32) -> u32 {
        let s = &self.sampling;
        if s.typical_p < 1.0 {
            typical(&mut kept, s.typical_p);
        }
        if s.top_p < 1.0 {
            top_p(&mut kept, s.top_p);
        }
        // Typical sampling may have dropped the most likely token of the row.
        let best = kept.iter().copied().min_by(by_logit).unwrap_or(best);
        let least = best.0 + s.min_p.ln();
        let picked = self.pick(kept.iter().copied().filter(|c| c.0 >= least), best, position);
        self.candidates = kept;
        picked
    }

    /// Draws among candidates, of which `best` has the largest logit.
    fn pick(&self, candidates: impl Iterator<Item = Candidate>, best: Candidate, position: u32) -> u32 {
        let mut race = Race::new(&self.sampling, best, position);
        candidates.for_each(|c| race.enter(c));
        race.first.1
    }

    /// Draws among the tokens of a row that min-p leaves.
    fn pick_row(&self, row: &[f32], best: Candidate, position: u32) -> u32 {
        let least = best.0 + self.sampling.min_p.ln();
        let mut race = Race::new(&self.sampling, best, position);
        let (chunks, rest) = row.as_chunks::<16>();
        for (at, chunk) in chunks.iter().enumerate().filter(|(_, chunk)| chunk.iter().any(|logit| *logit >= least)) {
            let id = at as u32 * 16;
            if race.may_win(id, chunk) {
                chunk.iter().zip(id..).filter(|c| *c.0 >= least).for_each(|(logit, id)| race.enter((*logit, id)));
            }
        }
        let id = (row.len() - rest.len()) as u32;
        rest.iter().zip(id..).filter(|c| *c.0 >= least).for_each(|(logit, id)| race.enter((*logit, id)));
        race.first.1
    }
}

/// A draw under way: the candidate whose scaled logit and noise together are largest wins.
struct Race {
    draw: Draw,
    scale: f32,
    /// The largest logit: others count by their distance from it, so that a tiny temperature yields 0 and negative
    /// infinities instead of NaN.
    best: f32,
    /// Score and id of the first so far.
    first: Candidate,
}

impl Race {
    fn new(sampling: &Sampling, best: Candidate, position: u32) -> Self {
        let draw = Draw::new(sampling.seed, position);
        Self { draw, scale: 1.0 / sampling.temperature, best: best.0, first: (draw.gumbel(best.1), best.1) }
    }

    fn enter(&mut self, (logit, id): Candidate) {
        let distance = logit - self.best;
        let scaled = if distance == 0.0 { 0.0 } else { distance * self.scale };
        if logit == f32::NEG_INFINITY || scaled + GUMBEL_MAX < self.first.0 {
            return;
        }
        let score = scaled + self.draw.gumbel(id);
        if score > self.first.0 || (score == self.first.0 && id < self.first.1) {
            self.first = (score, id);
        }
    }

    /// Whether one of the tokens from `id` on could come first: most are ruled out by what noise could give at most, or
    /// by a cheap bound on what it gives them.
    fn may_win(&self, id: u32, logits: &[f32; 16]) -> bool {
        let most = logits.iter().fold(f32::NEG_INFINITY, |most, x| if *x > most { *x } else { most });
        let near = most == self.best || (most - self.best) * self.scale + GUMBEL_MAX >= self.first.0;
        near && self.draw.reach(id, logits, self.best, self.scale) >= self.first.0
    }
}

/// Writes the row with negative infinity for every token whose bit is not set.
fn mask(row: &[f32], bits: &[u32], out: &mut Vec<f32>) {
    for (at, logits) in row.chunks(32).enumerate() {
        let word = bits.get(at).copied().unwrap_or(0);
        let masked = |(i, logit): (usize, &f32)| if word >> i & 1 == 1 { *logit } else { f32::NEG_INFINITY };
        out.extend(logits.iter().enumerate().map(masked));
    }
}

/// Joins changes of one token, from `first` on: biases of a token add up, and its penalties follow.
fn join(changes: &mut Vec<Change>, first: usize) {
    changes[first..].sort_by_key(|c| c.token);
    let mut kept = first;
    for i in first..changes.len() {
        let change = changes[i];
        if kept > first && changes[kept - 1].token == change.token {
            let last = &mut changes[kept - 1];
            last.bias += change.bias;
            last.factor *= change.factor;
            last.penalty += change.penalty;
        } else {
            changes[kept] = change;
            kept += 1;
        }
    }
    changes.truncate(kept);
}

/// Every token that is not banned.
fn candidates(row: &[f32]) -> impl Iterator<Item = Candidate> {
    let all = row.iter().enumerate().map(|(id, logit)| (*logit, id as u32));
    all.filter(|c| c.0 > f32::NEG_INFINITY)
}

/// The largest logit, the lowest id among equals.
fn maximum(row: &[f32]) -> Result<Candidate> {
    // Sixteen lanes side by side, which the compiler turns into vectors.
    let (chunks, rest) = row.as_chunks::<16>();
    let (mut lanes, mut bad) = ([f32::NEG_INFINITY; 16], [false; 16]);
    for chunk in chunks {
        for i in 0..16 {
            lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
            bad[i] |= !matches!(chunk[i].partial_cmp(&f32::INFINITY), Some(Ordering::Less));
        }
    }
    let max = lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a });
    if bad.contains(&true) || rest.iter().any(|x| x.is_nan() || *x == f32::INFINITY) {
        let at = row.iter().position(|x| x.is_nan() || *x == f32::INFINITY).unwrap_or(0);
        return Err(Error::Device(format!(
            "the logit of token {at} is {}: the model's weights or the device that computed it are damaged",
            row[at]
        )));
    }
    if max == f32::NEG_INFINITY {
        return Err(Error::request("every token is banned, by logit biases or a grammar: remove some of the biases"));
    }
    let id = row.iter().position(|x| *x == max).unwrap_or(0);
    Ok((max, id as u32))
}

/// Unnormalised probabilities relative to the largest logit, and their sum.
fn weights(candidates: &[Candidate]) -> (f32, f64) {
    let max = candidates.iter().fold(f32::NEG_INFINITY, |m, c| m.max(c.0));
    (max, candidates.iter().map(|c| f64::from((c.0 - max).exp())).sum())
}

/// Keeps the most likely candidates that together reach `p`, most likely first.
fn top_p(candidates: &mut Vec<Candidate>, p: f32) {
    let (max, sum) = weights(candidates);
    let (mut mass, target) = (0.0, f64::from(p) * sum);
    // Candidates below an n-th of what may be left out are left out, even all together: half of that allows for rounding.
    let floor = max + (0.5 * (sum - target) / candidates.len() as f64).ln() as f32;
    candidates.retain(|c| c.0 >= floor);
    sort_until(candidates, by_logit, |c| {
        mass += f64::from((c.0 - max).exp());
        mass >= target
    });
}

/// Keeps the candidates whose surprise is closest to the distribution's entropy and that together exceed `p`.
fn typical(candidates: &mut Vec<Candidate>, p: f32) {
    let (max, sum) = weights(candidates);
    let log_sum = sum.ln() as f32;
    let surprise = |c: &Candidate| log_sum - (c.0 - max);
    let entropy: f64 = candidates.iter().map(|c| f64::from((c.0 - max).exp()) / sum * f64::from(surprise(c))).sum();
    let shift = |c: &Candidate| (surprise(c) - entropy as f32).abs();
    let order = |a: &Candidate, b: &Candidate| {
        shift(a).partial_cmp(&shift(b)).unwrap_or(Ordering::Equal).then_with(|| by_logit(a, b))
    };
    let (mut mass, target) = (0.0, f64::from(p) * sum);
    sort_until(candidates, order, |c| {
        mass += f64::from((c.0 - max).exp());
        mass > target
    });
}

/// Log-probability of `chosen` and of the `n` most likely tokens, as `(id, logprob)`: of the raw row's softmax.
pub fn logprobs(row: &[f32], chosen: u32, n: usize) -> ((u32, f32), Vec<(u32, f32)>) {
    let max = row.iter().fold(f32::NEG_INFINITY, |m, x| m.max(*x));
    let sum: f64 = row.iter().map(|x| f64::from((x - max).exp())).sum();
    let of = |logit: f32| (f64::from(logit - max) - sum.ln()) as f32;
    let mut top = Vec::new();
    largest(row, n, &mut top);
    let chosen_logit = row.get(chosen as usize).copied().unwrap_or(f32::NEG_INFINITY);
    ((chosen, of(chosen_logit)), top.iter().map(|c| (c.1, of(c.0))).collect())
}
