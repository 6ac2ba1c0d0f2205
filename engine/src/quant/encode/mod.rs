//! Encoders that search: scales and integers by which a block's weighted error is small. The methods are ggml's
//! (`ggml-quants.c`): start from the extreme value, try scales around it, take the least squares of each. Weights are those of
//! an importance matrix, else of the values themselves. Simple types have their encoders beside their decoders.

mod iq;
mod k;
mod plain;

use super::Encode;

/// What of a block's row is important.
#[derive(Debug, Clone, Copy)]
pub struct Importance<'a> {
    /// A weight for each element of the block.
    pub weights: &'a [f32],
    /// The mean of the squares of the row's values.
    pub mean_square: f32,
}

/// Below this a group counts as zeros.
const TINY: f32 = 1e-15;

/// The nearest integer; of two, the even one. 0 for what is no number.
pub(super) fn nearest(x: f32) -> i32 {
    x.round_ties_even() as i32
}

/// The value of largest magnitude with its sign.
fn extreme(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |max: f32, v| if v.abs() > max.abs() { *v } else { max })
}

/// Sums for a least-squares scale: of `w * x * l`, and of `w * l * l`.
#[derive(Clone, Copy, Default)]
struct Fit {
    xl: f32,
    ll: f32,
}

impl Fit {
    fn add(&mut self, w: f32, x: f32, l: f32) {
        self.xl += w * x * l;
        self.ll += w * l * l;
    }

    fn scale(self) -> f32 {
        if self.ll > 0.0 { self.xl / self.ll } else { 0.0 }
    }

    /// Whether the error that is left is smaller than with another's.
    fn beats(self, other: Fit) -> bool {
        self.ll > 0.0 && self.xl * self.xl * other.ll > other.xl * other.xl * self.ll
    }
}

/// Integers from `-n` to `n - 1` and their scale.
fn signed(x: &[f32], w: impl Fn(usize) -> f32, n: i32, levels: &mut [i32]) -> f32 {
    let max = extreme(x);
    if max.abs() < TINY {
        levels.fill(0);
        return 0.0;
    }
    let level = |inverse: f32, v: f32| nearest(inverse * v).clamp(-n, n - 1);
    let fit = |inverse: f32| {
        let mut fit = Fit::default();
        x.iter().enumerate().for_each(|(i, v)| fit.add(w(i), *v, level(inverse, *v) as f32));
        fit
    };
    let first = -(n as f32) / max;
    let (mut best, mut inverse) = (fit(first), first);
    for step in (-9..=9).filter(|s| *s != 0) {
        let other = -(n as f32 + 0.1 * step as f32) / max;
        let tried = fit(other);
        if tried.beats(best) {
            (best, inverse) = (tried, other);
        }
    }
    levels.iter_mut().zip(x).for_each(|(l, v)| *l = level(inverse, *v));
    best.scale()
}

/// The same, where integers are then changed one by one as long as it helps.
fn signed_by_steps(x: &[f32], w: impl Fn(usize) -> f32, n: i32, levels: &mut [i32]) -> f32 {
    let max = extreme(x);
    if max.abs() < TINY {
        levels.fill(0);
        return 0.0;
    }
    let inverse = -(n as f32) / max;
    levels.iter_mut().zip(x).for_each(|(l, v)| *l = nearest(inverse * v).clamp(-n, n - 1));
    improve(x, &w, levels, -n, n - 1)
}

/// Integers from 0 to `n` and the scale of values that are not negative.
fn positive(x: &[f32], w: &[f32], n: i32, levels: &mut [i32]) -> f32 {
    let max = x.iter().fold(0.0f32, |max, v| max.max(*v));
    if max < TINY {
        levels.fill(0);
        return 0.0;
    }
    let level = |inverse: f32, v: f32| nearest(inverse * v).clamp(0, n);
    let error = |inverse: f32| -> f32 {
        x.iter().zip(w).map(|(v, w)| w * (v - level(inverse, *v) as f32 / inverse).powi(2)).sum()
    };
    let first = n as f32 / max;
    let (mut least, mut inverse) = (error(first), first);
    for step in (-4..=4).filter(|s| *s != 0) {
        let other = (0.1 * step as f32 + n as f32) / max;
        let tried = error(other);
        if tried < least {
            (least, inverse) = (tried, other);
        }
    }
    levels.iter_mut().zip(x).for_each(|(l, v)| *l = level(inverse, *v));
    improve(x, &|i| w[i], levels, 0, n)
}

/// Changes integers one by one, at most five times each, and gives their scale.
fn improve(x: &[f32], w: &impl Fn(usize) -> f32, levels: &mut [i32], least: i32, most: i32) -> f32 {
    let mut fit = Fit::default();
    x.iter().enumerate().for_each(|(i, v)| fit.add(w(i), *v, levels[i] as f32));
    for _ in 0..5 {
        let mut changed = false;
        for (i, v) in x.iter().enumerate() {
            let (mut rest, w, l) = (fit, w(i), levels[i] as f32);
            rest.add(-w, *v, l);
            if rest.xl <= 0.0 || rest.ll <= 0.0 {
                continue;
            }
            let other = nearest(v * rest.ll / rest.xl).clamp(least, most);
            if other == levels[i] {
                continue;
            }
            rest.add(w, *v, other as f32);
            if rest.beats(fit) {
                (fit, levels[i], changed) = (rest, other, true);
            }
        }
        if !changed {
            break;
        }
    }
    fit.scale()
}

/// Which scales to try for values with a minimum, and what to make small.
#[derive(Clone, Copy)]
struct Trials {
    from: f32,
    step: f32,
    n: i32,
    /// The sum of magnitudes and not of squares.
    magnitudes: bool,
}

/// Values with a scale of their own, at most.
const LONGEST: usize = 32;

/// Integers from 0 to `n`, their scale, and what is subtracted, which is not negative. Each trial counts from the best minimum so
/// far (ggml's `make_qkx2_quants`).
fn affine(x: &[f32], w: &[f32], n: i32, trials: Trials, levels: &mut [i32]) -> (f32, f32) {
    let mut min = x.iter().fold(f32::INFINITY, |a, b| a.min(*b)).min(0.0);
    let max = x.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    if max <= min || !(max - min).is_finite() {
        levels.fill(0);
        return (0.0, if min.is_finite() { -min } else { 0.0 });
    }
    let (sum_w, sum_x) = x.iter().zip(w).fold((0.0, 0.0), |(a, b), (x, w)| (a + w, b + w * x));
    let count = |inverse: f32, min: f32, levels: &mut [i32]| {
        levels.iter_mut().zip(x).for_each(|(l, v)| *l = nearest(inverse * (v - min)).clamp(0, n));
    };
    let error = |levels: &[i32], scale: f32, min: f32| -> f32 {
        let of = |((v, w), l): ((&f32, &f32), &i32)| {
            let off = scale * *l as f32 + min - v;
            w * if trials.magnitudes { off.abs() } else { off * off }
        };
        x.iter().zip(w).zip(levels).map(of).sum()
    };
    let first = n as f32 / (max - min);
    count(first, min, levels);
    let mut scale = 1.0 / first;
    let mut least = error(levels, scale, min);
    let mut room = [0; LONGEST];
    let tried = &mut room[..levels.len()];
    for step in 0..=trials.n {
        count((trials.from + trials.step * step as f32 + n as f32) / (max - min), min, tried);
        let Some(found) = fitted(x, w, (sum_w, sum_x), tried) else { continue };
        let off = error(tried, found.0, found.1);
        if off < least {
            levels.copy_from_slice(tried);
            (least, scale, min) = (off, found.0, found.1);
        }
    }
    (scale, -min)
}

/// The scale and the minimum, not above 0, that fit these levels best; `None` if they do not say. `sums`: of the weights, and of
/// the weighted values.
fn fitted(x: &[f32], w: &[f32], sums: (f32, f32), levels: &[i32]) -> Option<(f32, f32)> {
    let (sum_w, sum_x) = sums;
    let (mut l1, mut l2, mut xl) = (0.0, 0.0, 0.0);
    for ((v, w), l) in x.iter().zip(w).zip(levels) {
        let l = *l as f32;
        (l1, l2, xl) = (l1 + w * l, l2 + w * l * l, xl + w * l * v);
    }
    let determinant = sum_w * l2 - l1 * l1;
    if determinant.is_nan() || determinant <= 0.0 {
        return None;
    }
    let found = ((sum_w * xl - sum_x * l1) / determinant, (l2 * sum_x - l1 * xl) / determinant);
    if found.1 > 0.0 {
        return Some((if l2 > 0.0 { xl / l2 } else { 0.0 }, 0.0));
    }
    Some(found)
}

/// A block of 32 by important values: its scale, and integers from 0 to `2 n - 1`, `n` standing for 0.
pub(super) fn signed_block(x: &[f32; 32], i: &Importance<'_>, n: i32) -> (f32, [u8; 32]) {
    let (w, mut levels) = (weighted(x, i.weights, i.mean_square), [0; 32]);
    let scale = signed(x, |k| w[k], n, &mut levels);
    (scale, levels.map(|l| (l + n) as u8))
}

/// The same with a minimum that is subtracted, and integers from 0 to `n`.
pub(super) fn affine_block(x: &[f32; 32], i: &Importance<'_>, n: i32) -> (f32, f32, [u8; 32]) {
    let (w, mut levels) = (weighted(x, i.weights, i.mean_square), [0; 32]);
    let (scale, min) = affine(x, &w, n, IMPORTANT, &mut levels);
    (scale, min, levels.map(|l| l as u8))
}

/// The scales that are tried where some values are more important than others.
const IMPORTANT: Trials = Trials { from: -0.9, step: 0.05, n: 36, magnitudes: false };

/// The weight of each value: what is important of it, more of larger values.
fn weighted(x: &[f32], important: &[f32], spread: f32) -> Vec<f32> {
    x.iter().zip(important).map(|(x, w)| w * (spread + x * x).sqrt()).collect()
}

/// The sum of squares.
fn squares(x: &[f32]) -> f32 {
    x.iter().map(|x| x * x).sum()
}

/// Encodes rows of whole blocks, each with the weights of its columns.
pub(super) fn encode_rows<const LEN: usize, B: Encode<LEN>>(values: &[f32], important: &[f32], out: &mut Vec<u8>) {
    for row in values.chunks_exact(important.len().max(LEN)) {
        let mean_square = squares(row) / row.len() as f32;
        for (values, weights) in row.as_chunks().0.iter().zip(important.chunks_exact(LEN)) {
            let block = B::encode_for(values, &Importance { weights, mean_square });
            out.extend_from_slice(bytemuck::bytes_of(&block));
        }
    }
}
