//! Attention over KV pages, written over `lanes`: scores of query rows against the keys of a page, and sums of its
//! values. A row's result does not depend on the rows beside it. The softmax is in the kernel that calls these.

use super::check_page;
use super::dots::{F16, F32, Plain};
use super::floats::{each, get, put};
use super::lanes::Lanes;
use super::panels::copy_exactly;
use crate::quant::DType;

/// Query rows and positions that share loads.
const TOGETHER: usize = 4;

/// # Safety
/// This and all kernels below need the instruction set `S`; lengths are checked.
#[inline(always)]
pub(crate) unsafe fn scores<S: Lanes>(
    dtype: DType,
    q: &[f32],
    page: &[u8],
    head_dim: usize,
    positions: usize,
    out: &mut [f32],
) {
    check_page(dtype, page, head_dim, positions, q.len(), out.len());
    // SAFETY: the lengths were checked.
    unsafe {
        if dtype == DType::F32 {
            all_scores::<S, F32>(q, page, head_dim, positions, out);
        } else {
            all_scores::<S, F16>(q, page, head_dim, positions, out);
        }
    }
}

#[inline(always)]
unsafe fn all_scores<S: Lanes, T: Plain>(q: &[f32], page: &[u8], head_dim: usize, positions: usize, out: &mut [f32]) {
    for (q, out) in q.chunks(TOGETHER * head_dim).zip(out.chunks_mut(TOGETHER * positions)) {
        let rows = q.len() / head_dim;
        for first in (0..positions).step_by(TOGETHER) {
            let n = TOGETHER.min(positions - first);
            let mut acc = [[0.0; TOGETHER]; TOGETHER];
            // SAFETY: `rows` query rows and `n` positions from `first` exist; a last partial vector goes through
            // buffers of a whole one. Rows and positions beyond repeat the last one and are dropped.
            unsafe {
                let qs: [_; TOGETHER] = std::array::from_fn(|r| q.as_ptr().add(r.min(rows - 1) * head_dim));
                let ks: [_; TOGETHER] =
                    std::array::from_fn(|p| page.as_ptr().add((first + p.min(n - 1)) * head_dim * T::BYTES));
                if rows > 1 {
                    block::<S, T, TOGETHER>(&qs, &ks, head_dim, &mut acc);
                } else {
                    block::<S, T, 1>(&qs, &ks, head_dim, &mut acc);
                }
            }
            for (r, acc) in acc[..rows].iter().enumerate() {
                let out = &mut out[r * positions + first..][..n];
                if n == TOGETHER {
                    copy_exactly::<TOGETHER, _>(out, acc);
                } else {
                    out.copy_from_slice(&acc[..n]);
                }
            }
        }
    }
}

/// Dot products of `R` query rows with four positions.
#[inline(always)]
unsafe fn block<S: Lanes, T: Plain, const R: usize>(
    q: &[*const f32; TOGETHER],
    k: &[*const u8; TOGETHER],
    head_dim: usize,
    out: &mut [[f32; TOGETHER]; TOGETHER],
) {
    // SAFETY: `head_dim` elements are readable behind each pointer.
    unsafe {
        let mut acc = [[S::zero(); TOGETHER]; R];
        let whole = head_dim / S::LANES * S::LANES;
        for at in (0..whole).step_by(S::LANES) {
            step::<S, T, R>(q, k, at, S::LANES, &mut acc);
        }
        if whole < head_dim {
            step::<S, T, R>(q, k, whole, head_dim - whole, &mut acc);
        }
        for (out, acc) in out.iter_mut().zip(acc) {
            for (out, acc) in out.iter_mut().zip(acc) {
                *out = S::sum(acc);
            }
        }
    }
}

/// Adds the products of the `n` elements from `at`.
#[inline(always)]
unsafe fn step<S: Lanes, T: Plain, const R: usize>(
    q: &[*const f32; TOGETHER],
    k: &[*const u8; TOGETHER],
    at: usize,
    n: usize,
    acc: &mut [[S::F; TOGETHER]; R],
) {
    // SAFETY: as `block`; `at + n <= head_dim`.
    unsafe {
        let mut keys = [S::zero(); TOGETHER];
        for (v, k) in keys.iter_mut().zip(k) {
            let p = k.add(at * T::BYTES);
            *v = if n == S::LANES { T::load::<S>(p, 0) } else { T::load_part::<S>(p, 0, n) };
        }
        for (acc, q) in acc.iter_mut().zip(q) {
            let q = get::<S>(q.add(at), n);
            for (acc, k) in acc.iter_mut().zip(keys) {
                *acc = S::fma(q, k, *acc);
            }
        }
    }
}

#[inline(always)]
pub(crate) unsafe fn values<S: Lanes>(
    dtype: DType,
    weights: &[f32],
    page: &[u8],
    head_dim: usize,
    positions: usize,
    acc: &mut [f32],
) {
    check_page(dtype, page, head_dim, positions, acc.len(), weights.len());
    // SAFETY: the lengths were checked.
    unsafe {
        if dtype == DType::F32 {
            all_values::<S, F32>(weights, page, head_dim, positions, acc);
        } else {
            all_values::<S, F16>(weights, page, head_dim, positions, acc);
        }
    }
}

#[inline(always)]
unsafe fn all_values<S: Lanes, T: Plain>(
    weights: &[f32],
    page: &[u8],
    head_dim: usize,
    positions: usize,
    acc: &mut [f32],
) {
    for (acc, weights) in acc.chunks_mut(TOGETHER * head_dim).zip(weights.chunks(TOGETHER * positions)) {
        // SAFETY: the lengths were checked; each call is given as many rows as it is made for.
        unsafe {
            match acc.len() / head_dim {
                TOGETHER => weigh::<S, T, TOGETHER>(weights, page, head_dim, positions, acc),
                3 => weigh::<S, T, 3>(weights, page, head_dim, positions, acc),
                2 => weigh::<S, T, 2>(weights, page, head_dim, positions, acc),
                _ => weigh::<S, T, 1>(weights, page, head_dim, positions, acc),
            }
        }
    }
}

/// Adds a page's weighted values to `R` rows, two vectors of columns at a time.
#[inline(always)]
unsafe fn weigh<S: Lanes, T: Plain, const R: usize>(
    weights: &[f32],
    page: &[u8],
    head_dim: usize,
    positions: usize,
    acc: &mut [f32],
) {
    let whole = head_dim / (2 * S::LANES) * 2 * S::LANES;
    // SAFETY: `R` rows of `head_dim` accumulators and of `positions` weights exist, and `positions` rows of `head_dim`
    // values; `at + n <= head_dim`.
    unsafe {
        for at in (0..whole).step_by(2 * S::LANES) {
            columns::<S, T, R, 2>(weights, page, head_dim, positions, at, S::LANES, acc);
        }
        each!(S, head_dim - whole, |at, n| {
            columns::<S, T, R, 1>(weights, page, head_dim, positions, whole + at, n, acc);
        });
    }
}

/// Adds the weighted values of `C` vectors of columns from `at` on, each of `n` elements.
#[inline(always)]
unsafe fn columns<S: Lanes, T: Plain, const R: usize, const C: usize>(
    weights: &[f32],
    page: &[u8],
    head_dim: usize,
    positions: usize,
    at: usize,
    n: usize,
    acc: &mut [f32],
) {
    let acc = acc.as_mut_ptr();
    // SAFETY: as `weigh`.
    unsafe {
        let mut sums = [[S::zero(); C]; R];
        for (r, sums) in sums.iter_mut().enumerate() {
            for (c, sum) in sums.iter_mut().enumerate() {
                *sum = get::<S>(acc.add(r * head_dim + at + c * S::LANES), n);
            }
        }
        for p in 0..positions {
            let mut values = [S::zero(); C];
            for (c, value) in values.iter_mut().enumerate() {
                let v = page.as_ptr().add((p * head_dim + at + c * S::LANES) * T::BYTES);
                *value = if n == S::LANES { T::load::<S>(v, 0) } else { T::load_part::<S>(v, 0, n) };
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let weight = S::splat(*weights.as_ptr().add(r * positions + p));
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = S::fma(weight, value, *sum);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (c, sum) in sums.iter().enumerate() {
                put::<S>(acc.add(r * head_dim + at + c * S::LANES), *sum, n);
            }
        }
    }
}
