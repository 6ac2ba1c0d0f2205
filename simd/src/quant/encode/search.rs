//! The searches for scales and integers, of `W` groups of `N` values side by side. The methods are ggml's (`ggml-quants.c`): start
//! from the extreme value, try scales around it, take the least squares of each.

use super::lanes::{Mask, Vector};

/// Below this a group counts as zeros.
pub(super) const TINY: f32 = 1e-15;

/// Sums for a least-squares scale: of `w * x * l`, and of `w * l * l`.
#[derive(Clone, Copy)]
pub(super) struct Fit<const W: usize> {
    pub(super) xl: Vector<W>,
    pub(super) ll: Vector<W>,
}

impl<const W: usize> Fit<W> {
    pub(super) const NONE: Fit<W> = Fit { xl: Vector::ZERO, ll: Vector::ZERO };

    #[inline(always)]
    pub(super) fn add(&mut self, w: Vector<W>, x: Vector<W>, l: Vector<W>) {
        self.xl = self.xl + w * x * l;
        self.ll = self.ll + w * l * l;
    }

    #[inline(always)]
    pub(super) fn scale(self) -> Vector<W> {
        Vector::ZERO.below(self.ll).pick(self.xl / self.ll, Vector::ZERO)
    }

    /// Whether the error that is left is smaller than with another's.
    #[inline(always)]
    pub(super) fn beats(self, other: Fit<W>) -> Mask<W> {
        let smaller = (other.xl * other.xl * self.ll).below(self.xl * self.xl * other.ll);
        Vector::ZERO.below(self.ll) & smaller
    }

    /// `other` where the mask is true.
    #[inline(always)]
    pub(super) fn replaced(self, mask: Mask<W>, other: Fit<W>) -> Fit<W> {
        Fit { xl: mask.pick(other.xl, self.xl), ll: mask.pick(other.ll, self.ll) }
    }
}

/// The value of largest magnitude with its sign, the first of equals; 0 for no number.
#[inline(always)]
pub(super) fn extreme<const W: usize, const N: usize>(x: &[Vector<W>; N]) -> Vector<W> {
    let mut max = Vector::ZERO;
    for i in 0..N {
        max = max.abs().below(x[i].abs()).pick(x[i], max);
    }
    max
}

/// The largest value, 0 if none is above it.
#[inline(always)]
pub(super) fn largest<const W: usize, const N: usize>(x: &[Vector<W>; N]) -> Vector<W> {
    let mut max = Vector::ZERO;
    for i in 0..N {
        max = max.below(x[i]).pick(x[i], max);
    }
    max
}

/// The sum of squares.
#[inline(always)]
pub(super) fn squares<const W: usize, const N: usize>(x: &[Vector<W>; N]) -> Vector<W> {
    let mut sum = Vector::ZERO;
    for i in 0..N {
        sum = sum + x[i] * x[i];
    }
    sum
}

/// The sum.
#[inline(always)]
pub(super) fn sum<const W: usize, const N: usize>(x: &[Vector<W>; N]) -> Vector<W> {
    let mut sum = Vector::ZERO;
    for i in 0..N {
        sum = sum + x[i];
    }
    sum
}

/// The weight of each value: what is important of it, more of larger values.
#[inline(always)]
pub(super) fn weighted<const W: usize, const N: usize>(
    x: &[Vector<W>; N],
    important: &[Vector<W>; N],
    spread: Vector<W>,
) -> [Vector<W>; N] {
    let mut w = [Vector::ZERO; N];
    for i in 0..N {
        w[i] = important[i] * (spread + x[i] * x[i]).sqrt();
    }
    w
}

/// What a search has found: a scale, and the number by which values are multiplied to get their integers.
pub(super) struct Scaled<const W: usize> {
    pub(super) scale: Vector<W>,
    pub(super) inverse: Vector<W>,
}

/// The fit of integers from `-n` to `n - 1`.
#[inline(always)]
fn fit<const W: usize, const N: usize>(x: &[Vector<W>; N], w: &[Vector<W>; N], inverse: Vector<W>, n: f32) -> Fit<W> {
    let mut fit = Fit::NONE;
    for i in 0..N {
        fit.add(w[i], x[i], (inverse * x[i]).level(-n, n - 1.0));
    }
    fit
}

/// Integers from `-n` to `n - 1` and their scale.
#[inline(always)]
pub(super) fn signed<const W: usize, const N: usize>(x: &[Vector<W>; N], w: &[Vector<W>; N], n: f32) -> Scaled<W> {
    let max = extreme(x);
    let zeros = max.abs().below(Vector::all(TINY));
    let mut inverse = Vector::all(-n) / max;
    let mut best = fit(x, w, inverse, n);
    for step in -9..=9 {
        if step == 0 {
            continue;
        }
        let other = Vector::all(-(n + 0.1 * step as f32)) / max;
        let tried = fit(x, w, other, n);
        let better = tried.beats(best);
        best = best.replaced(better, tried);
        inverse = better.pick(other, inverse);
    }
    Scaled { scale: zeros.pick(Vector::ZERO, best.scale()), inverse: zeros.pick(Vector::ZERO, inverse) }
}

/// The same, where integers are then changed one by one as long as it helps.
#[inline(always)]
pub(super) fn signed_by_steps<const W: usize, const N: usize>(
    x: &[Vector<W>; N],
    w: &[Vector<W>; N],
    n: f32,
) -> (Vector<W>, [Vector<W>; N]) {
    let max = extreme(x);
    let zeros = max.abs().below(Vector::all(TINY));
    let inverse = zeros.pick(Vector::ZERO, Vector::all(-n) / max);
    let (mut levels, fit) = counted(x, w, inverse, (-n, n - 1.0));
    let scale = improve(x, w, fit, &mut levels, !zeros, (-n, n - 1.0));
    (zeros.pick(Vector::ZERO, scale), levels)
}

/// Integers within bounds and their fit.
#[inline(always)]
fn counted<const W: usize, const N: usize>(
    x: &[Vector<W>; N],
    w: &[Vector<W>; N],
    inverse: Vector<W>,
    bounds: (f32, f32),
) -> ([Vector<W>; N], Fit<W>) {
    let (mut levels, mut fit) = ([Vector::ZERO; N], Fit::NONE);
    for i in 0..N {
        levels[i] = (inverse * x[i]).level(bounds.0, bounds.1);
        fit.add(w[i], x[i], levels[i]);
    }
    (levels, fit)
}

/// Integers from 0 to `n` and the scale of values that are not negative.
#[inline(always)]
pub(super) fn positive<const W: usize, const N: usize>(
    x: &[Vector<W>; N],
    w: &[Vector<W>; N],
    n: f32,
) -> (Vector<W>, [Vector<W>; N]) {
    let max = largest(x);
    let zeros = max.below(Vector::all(TINY));
    let mut inverse = Vector::all(n) / max;
    let mut least = Vector::all(f32::NAN);
    for step in [0, -4, -3, -2, -1, 1, 2, 3, 4] {
        let other = if step == 0 { inverse } else { Vector::all(0.1 * step as f32 + n) / max };
        let mut error = Vector::ZERO;
        for i in 0..N {
            let off = x[i] - (other * x[i]).level(0.0, n) / other;
            error = error + w[i] * (off * off);
        }
        if step == 0 {
            least = error;
        }
        let better = error.below(least);
        least = better.pick(error, least);
        inverse = better.pick(other, inverse);
    }
    let (mut levels, fit) = counted(x, w, zeros.pick(Vector::ZERO, inverse), (0.0, n));
    let scale = improve(x, w, fit, &mut levels, !zeros, (0.0, n));
    (zeros.pick(Vector::ZERO, scale), levels)
}

/// Changes integers of groups that are `open` one by one, at most five times each, and gives their scale.
#[inline(always)]
fn improve<const W: usize, const N: usize>(
    x: &[Vector<W>; N],
    w: &[Vector<W>; N],
    mut fit: Fit<W>,
    levels: &mut [Vector<W>; N],
    open: Mask<W>,
    bounds: (f32, f32),
) -> Vector<W> {
    for _ in 0..5 {
        let mut changed = false;
        for i in 0..N {
            let mut rest = fit;
            rest.add(-w[i], x[i], levels[i]);
            let some = !rest.xl.at_most(Vector::ZERO) & !rest.ll.at_most(Vector::ZERO);
            let other = (x[i] * rest.ll / rest.xl).level(bounds.0, bounds.1);
            let differs = !other.is(levels[i]);
            rest.add(w[i], x[i], other);
            let better = open & some & differs & rest.beats(fit);
            fit = fit.replaced(better, rest);
            levels[i] = better.pick(other, levels[i]);
            changed |= better.any();
        }
        // A group in which nothing changes stays as it is.
        if !changed {
            break;
        }
    }
    fit.scale()
}

/// Which scales to try for values with a minimum, and what to make small.
#[derive(Clone, Copy)]
pub(super) struct Trials {
    pub(super) from: f32,
    pub(super) step: f32,
    pub(super) n: i32,
    /// The sum of magnitudes and not of squares.
    pub(super) magnitudes: bool,
}

impl Trials {
    /// What an error counts.
    #[inline(always)]
    fn error<const W: usize>(self, off: Vector<W>) -> Vector<W> {
        if self.magnitudes { off.abs() } else { off * off }
    }
}

/// What a search with a minimum has found. Integers are `inverse * (x - from)`.
pub(super) struct Ranged<const W: usize> {
    pub(super) scale: Vector<W>,
    /// What is subtracted, which is not negative.
    pub(super) min: Vector<W>,
    pub(super) inverse: Vector<W>,
    pub(super) from: Vector<W>,
}

/// Integers from 0 to `n`, their scale and minimum. Each trial counts from the best minimum so far, also the range
/// (ggml's `make_qkx2_quants`).
#[inline(always)]
pub(super) fn affine<const W: usize, const N: usize>(
    x: &[Vector<W>; N],
    w: &[Vector<W>; N],
    n: f32,
    trials: Trials,
) -> Ranged<W> {
    let (mut min, mut max) = (Vector::all(f32::INFINITY), Vector::all(f32::NEG_INFINITY));
    let (mut sum_w, mut sum_x) = (Vector::ZERO, Vector::ZERO);
    for i in 0..N {
        min = x[i].below(min).pick(x[i], min);
        max = max.below(x[i]).pick(x[i], max);
        sum_w = sum_w + w[i];
        sum_x = sum_x + w[i] * x[i];
    }
    min = min.below(Vector::ZERO).pick(min, Vector::ZERO);
    let range = max - min;
    let good = min.below(max) & range.is_finite();
    let without = min.is_finite().pick(-min, Vector::ZERO);

    let (mut inverse, mut from) = (Vector::all(n) / range, min);
    let (mut scale, mut least) = (Vector::all(1.0) / inverse, Vector::ZERO);
    for i in 0..N {
        let off = scale * (inverse * (x[i] - min)).level(0.0, n) + min - x[i];
        least = least + w[i] * trials.error(off);
    }
    for step in 0..=trials.n {
        let other = Vector::all(trials.from + trials.step * step as f32 + n) / (max - min);
        let (mut levels, mut sums) = ([Vector::ZERO; N], [Vector::ZERO; 3]);
        for i in 0..N {
            levels[i] = (other * (x[i] - min)).level(0.0, n);
            let wl = w[i] * levels[i];
            sums = [sums[0] + wl, sums[1] + wl * levels[i], sums[2] + wl * x[i]];
        }
        let (found, found_min, is_found) = fitted((sum_w, sum_x), sums);
        let mut error = Vector::ZERO;
        for i in 0..N {
            error = error + w[i] * trials.error(found * levels[i] + found_min - x[i]);
        }
        let better = is_found & error.below(least);
        (inverse, from) = (better.pick(other, inverse), better.pick(min, from));
        (scale, min, least) = (better.pick(found, scale), better.pick(found_min, min), better.pick(error, least));
    }
    Ranged {
        scale: good.pick(scale, Vector::ZERO),
        min: good.pick(-min, without),
        inverse: good.pick(inverse, Vector::ZERO),
        from: good.pick(from, Vector::ZERO),
    }
}

/// The scale and the minimum, not above 0, that fit levels best, and whether the levels say. `of`: the sums of the weights, and of
/// the weighted values; `with`: of `w * l`, `w * l * l` and `w * l * x`.
#[inline(always)]
fn fitted<const W: usize>(of: (Vector<W>, Vector<W>), with: [Vector<W>; 3]) -> (Vector<W>, Vector<W>, Mask<W>) {
    let ((sum_w, sum_x), [l1, l2, xl]) = (of, with);
    let determinant = sum_w * l2 - l1 * l1;
    let scale = (sum_w * xl - sum_x * l1) / determinant;
    let min = (l2 * sum_x - l1 * xl) / determinant;
    let above = Vector::ZERO.below(min);
    let alone = Vector::ZERO.below(l2).pick(xl / l2, Vector::ZERO);
    let (scale, min) = (above.pick(alone, scale), above.pick(Vector::ZERO, min));
    (scale, min, Vector::ZERO.below(determinant))
}
