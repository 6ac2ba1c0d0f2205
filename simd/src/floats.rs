//! Float kernels written over `lanes`: reductions, elementwise loops, exponentials, and the quantising of activations.
//! Each is held to its scalar namesake. Attention is in `attend`.

use super::lanes::Lanes;
use super::q8::{BLOCK, Q8RowMut};
use super::{MIN_QUANTISED, SQRT_2_OVER_PI, check_q8};

/// Calls `$body` with `$at` and `$n` for every vector of `0..$len`: whole ones with `LANES`, the last with the rest.
macro_rules! for_vectors {
    ($s:ty, $len:expr, |$at:ident, $n:ident| $whole:expr, $part:expr) => {
        let len = $len;
        let mut $at = 0;
        while $at + <$s>::LANES <= len {
            $whole;
            $at += <$s>::LANES;
        }
        if $at < len {
            let $n = len - $at;
            $part;
        }
    };
}

/// Loads or stores a vector of which `n` elements exist; `n == LANES` is the fast case.
#[inline(always)]
pub(crate) unsafe fn get<S: Lanes>(p: *const f32, n: usize) -> S::F {
    // SAFETY: `n` floats are readable.
    unsafe { if n == S::LANES { S::load(p) } else { S::load_part(p, n) } }
}

#[inline(always)]
pub(crate) unsafe fn put<S: Lanes>(p: *mut f32, v: S::F, n: usize) {
    // SAFETY: `n` floats are writable.
    unsafe { if n == S::LANES { S::store(p, v) } else { S::store_part(p, v, n) } }
}

/// Runs `$body` with `$at` and `$n` for each vector of `0..$len`. A macro, since closures do not inherit the
/// instruction set of the function that they are written in.
macro_rules! each {
    ($s:ty, $len:expr, |$at:ident, $n:ident| $body:expr) => {
        let (total, mut $at) = ($len, 0);
        while $at + <$s>::LANES <= total {
            let $n = <$s>::LANES;
            $body;
            $at += $n;
        }
        if $at < total {
            let $n = total - $at;
            $body;
        }
    };
}
pub(crate) use each;

/// # Safety
/// This and all kernels below need the instruction set `S`; lengths are checked.
#[inline(always)]
pub(crate) unsafe fn dot<S: Lanes>(x: &[f32], y: &[f32]) -> f32 {
    assert_eq!(x.len(), y.len());
    let (px, py, step) = (x.as_ptr(), y.as_ptr(), 4 * S::LANES);
    // SAFETY: indices stay below the common length.
    unsafe {
        let mut acc = [S::zero(); 4];
        let whole = x.len() / step * step;
        for at in (0..whole).step_by(step) {
            for (i, acc) in acc.iter_mut().enumerate() {
                let at = at + i * S::LANES;
                *acc = S::fma(S::load(px.add(at)), S::load(py.add(at)), *acc);
            }
        }
        each!(S, x.len() - whole, |at, n| {
            acc[0] = S::fma(get::<S>(px.add(whole + at), n), get::<S>(py.add(whole + at), n), acc[0]);
        });
        S::sum(S::add(S::add(acc[0], acc[1]), S::add(acc[2], acc[3])))
    }
}

#[inline(always)]
pub(crate) unsafe fn sum<S: Lanes>(x: &[f32]) -> f32 {
    // SAFETY: indices stay below the length.
    unsafe {
        let mut acc = S::zero();
        each!(S, x.len(), |at, n| acc = S::add(acc, get::<S>(x.as_ptr().add(at), n)));
        S::sum(acc)
    }
}

#[inline(always)]
pub(crate) unsafe fn sum_squares<S: Lanes>(x: &[f32]) -> f32 {
    // SAFETY: as `dot`.
    unsafe { dot::<S>(x, x) }
}

#[inline(always)]
pub(crate) unsafe fn max<S: Lanes>(x: &[f32]) -> f32 {
    // SAFETY: indices stay below the length; a last partial vector is filled up with -inf.
    unsafe {
        let mut acc = S::splat(f32::NEG_INFINITY);
        for_vectors!(S, x.len(), |at, n| acc = S::max(S::load(x.as_ptr().add(at)), acc), {
            let mut tail = [f32::NEG_INFINITY; 16];
            tail[..n].copy_from_slice(&x[at..]);
            acc = S::max(S::load(tail.as_ptr()), acc);
        });
        S::max_lane(acc)
    }
}

#[inline(always)]
pub(crate) unsafe fn scale_mul<S: Lanes>(x: &[f32], scale: f32, w: &[f32], out: &mut [f32]) {
    assert!(x.len() == out.len() && w.len() == out.len());
    // SAFETY: indices stay below the common length.
    unsafe {
        each!(S, x.len(), |at, n| {
            let v = S::mul(get::<S>(x.as_ptr().add(at), n), S::splat(scale));
            put::<S>(out.as_mut_ptr().add(at), S::mul(v, get::<S>(w.as_ptr().add(at), n)), n);
        });
    }
}

#[inline(always)]
pub(crate) unsafe fn axpy<S: Lanes>(y: &mut [f32], a: f32, x: &[f32]) {
    assert_eq!(x.len(), y.len());
    let p = y.as_mut_ptr();
    // SAFETY: indices stay below the common length.
    unsafe {
        each!(S, x.len(), |at, n| {
            let v = S::fma(S::splat(a), get::<S>(x.as_ptr().add(at), n), get::<S>(p.add(at), n));
            put::<S>(p.add(at), v, n);
        });
    }
}

#[inline(always)]
pub(crate) unsafe fn add<S: Lanes>(y: &mut [f32], x: &[f32]) {
    assert_eq!(x.len(), y.len());
    let p = y.as_mut_ptr();
    // SAFETY: indices stay below the common length.
    unsafe {
        each!(S, x.len(), |at, n| {
            put::<S>(p.add(at), S::add(get::<S>(p.add(at), n), get::<S>(x.as_ptr().add(at), n)), n);
        });
    }
}

#[inline(always)]
pub(crate) unsafe fn scale<S: Lanes>(y: &mut [f32], a: f32) {
    let (p, len) = (y.as_mut_ptr(), y.len());
    // SAFETY: indices stay below the length.
    unsafe {
        each!(S, len, |at, n| put::<S>(p.add(at), S::mul(get::<S>(p.add(at), n), S::splat(a)), n));
    }
}

/// `e^v`: `2^n * e^r` with `|r| <= ln 2 / 2` and a polynomial of degree 6 (relative error below 2e-7). Zero below
/// -87.3, the largest power that fits above 88.3 instead of infinity; NaN stays.
#[inline(always)]
unsafe fn exp<S: Lanes>(v: S::F) -> S::F {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const TERMS: [f32; 6] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0];
    const LEAST: f32 = -87.336_54;
    // SAFETY: no memory is touched.
    unsafe {
        let clamped = S::max_nan(S::splat(LEAST), S::min_nan(S::splat(88.02), v));
        let n = S::round(S::mul(clamped, S::splat(std::f32::consts::LOG2_E)));
        let r = S::fma(n, S::splat(-LN2_HIGH), clamped);
        let r = S::fma(n, S::splat(-LN2_LOW), r);
        let mut p = S::splat(TERMS[0]);
        for term in &TERMS[1..] {
            p = S::fma(p, r, S::splat(*term));
        }
        let p = S::fma(p, r, S::splat(1.0));
        S::zero_below(v, S::splat(LEAST), S::mul(p, S::exp2_int(n)))
    }
}

#[inline(always)]
pub(crate) unsafe fn exp_sum<S: Lanes>(x: &mut [f32], max: f32) -> f32 {
    let (p, len) = (x.as_mut_ptr(), x.len());
    // SAFETY: indices stay below the length.
    unsafe {
        let mut acc = S::zero();
        for_vectors!(
            S,
            len,
            |at, n| {
                let v = exp::<S>(S::sub(S::load(p.add(at)), S::splat(max)));
                S::store(p.add(at), v);
                acc = S::add(acc, v);
            },
            {
                let v = exp::<S>(S::sub(S::load_part(p.add(at), n), S::splat(max)));
                S::store_part(p.add(at), v, n);
                acc = S::add(acc, S::load_part(p.add(at), n));
            }
        );
        S::sum(acc)
    }
}

#[inline(always)]
pub(crate) unsafe fn to_f16<S: Lanes>(x: &[f32], out: &mut [u8]) {
    assert_eq!(x.len() * 2, out.len());
    let p = out.as_mut_ptr();
    // SAFETY: indices stay below the common length; a partial vector goes through a buffer of a whole one.
    unsafe {
        for_vectors!(S, x.len(), |at, n| S::store_f16(p.add(at * 2), S::load(x.as_ptr().add(at))), {
            let mut tail = [0_u8; 32];
            S::store_f16(tail.as_mut_ptr(), S::load_part(x.as_ptr().add(at), n));
            out[at * 2..].copy_from_slice(&tail[..n * 2]);
        });
    }
}

#[inline(always)]
pub(crate) unsafe fn from_f16<S: Lanes>(x: &[u8], out: &mut [f32]) {
    assert_eq!(x.len(), out.len() * 2);
    let p = out.as_mut_ptr();
    // SAFETY: indices stay below the common length; a partial vector goes through a buffer of a whole one.
    unsafe {
        for_vectors!(S, out.len(), |at, n| S::store(p.add(at), S::load_f16(x.as_ptr().add(at * 2))), {
            let mut tail = [0_u8; 32];
            tail[..n * 2].copy_from_slice(&x[at * 2..]);
            S::store_part(p.add(at), S::load_f16(tail.as_ptr()), n);
        });
    }
}

/// `g / (1 + e^-t)`, where `t` is `g` itself or, for gelu, `2 sqrt(2/pi) (g + 0.044715 g^3)`, since
/// `0.5 (1 + tanh(t / 2)) = 1 / (1 + e^-t)`.
#[inline(always)]
unsafe fn sigmoid_weighted<S: Lanes, const GELU: bool>(g: S::F) -> S::F {
    // SAFETY: no memory is touched.
    unsafe {
        let t = if GELU {
            let cubic = S::fma(S::mul(g, g), S::splat(0.044_715), S::splat(1.0));
            S::mul(S::mul(g, cubic), S::splat(2.0 * SQRT_2_OVER_PI))
        } else {
            g
        };
        S::div(g, S::add(S::splat(1.0), exp::<S>(S::sub(S::zero(), t))))
    }
}

#[inline(always)]
unsafe fn gated<S: Lanes, const GELU: bool>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == out.len() && up.len() == out.len());
    // SAFETY: indices stay below the common length.
    unsafe {
        each!(S, gate.len(), |at, n| {
            let v = sigmoid_weighted::<S, GELU>(get::<S>(gate.as_ptr().add(at), n));
            put::<S>(out.as_mut_ptr().add(at), S::mul(v, get::<S>(up.as_ptr().add(at), n)), n);
        });
    }
}

#[inline(always)]
pub(crate) unsafe fn silu_mul<S: Lanes>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    // SAFETY: as `gated`.
    unsafe { gated::<S, false>(gate, up, out) }
}

#[inline(always)]
pub(crate) unsafe fn gelu_mul<S: Lanes>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    // SAFETY: as `gated`.
    unsafe { gated::<S, true>(gate, up, out) }
}

#[inline(always)]
pub(crate) unsafe fn silu<S: Lanes>(x: &mut [f32]) {
    let p = x.as_mut_ptr();
    // SAFETY: indices stay below the length.
    unsafe {
        each!(S, x.len(), |at, n| put::<S>(p.add(at), sigmoid_weighted::<S, false>(get::<S>(p.add(at), n)), n));
    }
}

#[inline(always)]
pub(crate) unsafe fn gelu<S: Lanes>(x: &mut [f32]) {
    let p = x.as_mut_ptr();
    // SAFETY: indices stay below the length.
    unsafe {
        each!(S, x.len(), |at, n| put::<S>(p.add(at), sigmoid_weighted::<S, true>(get::<S>(p.add(at), n)), n));
    }
}

/// `max(x, 0) - |x| / 2 * erfc(|x| / sqrt(2))`, with the complementary error function as `t e^(P(t) - z^2)`, `t = 1 / (1 + z / 2)`:
/// a Chebyshev fit with a relative error below 1.2e-7 (Press et al., Numerical Recipes, 6.2).
#[inline(always)]
pub(crate) unsafe fn gelu_erf<S: Lanes>(x: &mut [f32]) {
    const FIT: [f32; 10] = [
        0.170_872_77,
        -0.822_152_2,
        1.488_515_9,
        -1.135_204,
        0.278_868_1,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_7,
        -1.265_512_2,
    ];
    /// Beyond, the second term is 0 to the last bit.
    const MOST: f32 = 30.0;
    let p = x.as_mut_ptr();
    // SAFETY: indices stay below the length.
    unsafe {
        each!(S, x.len(), |at, n| {
            let v = get::<S>(p.add(at), n);
            let magnitude = S::min_nan(S::splat(MOST), S::max_nan(v, S::sub(S::zero(), v)));
            let z = S::mul(magnitude, S::splat(std::f32::consts::FRAC_1_SQRT_2));
            let t = S::div(S::splat(1.0), S::fma(z, S::splat(0.5), S::splat(1.0)));
            let mut fit = S::splat(FIT[0]);
            for term in &FIT[1..] {
                fit = S::fma(fit, t, S::splat(*term));
            }
            let erfc = S::mul(t, exp::<S>(S::sub(fit, S::mul(z, z))));
            let half = S::mul(magnitude, S::splat(-0.5));
            put::<S>(p.add(at), S::fma(half, erfc, S::max(v, S::zero())), n);
        });
    }
}

/// Sums in registers that [`peak_floats`] and [`peak_bytes`] add to: as many as hide the latency of an addition.
const SUMS: usize = 10;

/// Products and sums of floats in registers, nothing read from memory; gives how many it made, and a sum.
#[inline(always)]
pub(crate) unsafe fn peak_floats<S: Lanes>(times: usize, x: f32) -> (u64, f32) {
    // SAFETY: no memory is touched.
    unsafe {
        let (factor, mut sums) = (S::splat(x), [S::zero(); SUMS]);
        for _ in 0..times {
            for sum in &mut sums {
                *sum = S::fma(*sum, factor, factor);
            }
        }
        let sum = sums.into_iter().fold(S::zero(), |a, b| S::add(a, b));
        ((2 * times * SUMS * S::LANES) as u64, S::sum(sum))
    }
}

/// The same of bytes, one side read from the first cache: an instruction set may make one product of several instructions, of
/// which none may be left out because its operands stay the same. `x` is 0 to 127.
#[inline(always)]
pub(crate) unsafe fn peak_bytes<S: Lanes>(times: usize, x: i8) -> (u64, f32) {
    /// Products between two settlings of a narrow sum.
    const STEPS: usize = 4;
    /// Vectors, none of which crosses a line of the cache.
    #[repr(align(64))]
    struct Aligned([[i8; 64]; STEPS * SUMS]);
    let weights = Aligned([[x; 64]; STEPS * SUMS]);
    // SAFETY: a vector has at most 64 bytes.
    unsafe {
        let (x, mut sums) = (S::bytes(weights.0[0].as_ptr().cast()), [S::open(S::int(0)); SUMS]);
        for _ in 0..times {
            for w in std::hint::black_box(&weights).0.chunks_exact(SUMS) {
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = S::dp(*sum, S::bytes(w.as_ptr().cast()), x);
                }
            }
            for sum in &mut sums {
                *sum = S::settle(*sum, false);
            }
        }
        let sum = sums.into_iter().fold(S::zero(), |a, b| S::add(a, S::to_f(S::close(b, false))));
        ((2 * times * STEPS * SUMS * 4 * S::LANES) as u64, S::sum(sum))
    }
}

/// The same bits as the scalar form: the maximum is exact, one division, one product, one rounding.
#[inline(always)]
pub(crate) unsafe fn quantise<S: Lanes>(x: &[f32], out: Q8RowMut<'_>) {
    check_q8(x, &out);
    for (b, x) in x.chunks_exact(BLOCK).enumerate() {
        let quants = &mut out.quants[b * BLOCK..][..BLOCK];
        // SAFETY: a block has 32 elements, a multiple of `LANES`, on both sides.
        unsafe {
            let mut bits = S::int(0);
            each!(S, BLOCK, |at, _n| bits = S::abs_max_bits(S::load(x.as_ptr().add(at)), bits));
            let max = f32::from_bits(S::max_bits(bits));
            out.scales[b] = if !max.is_finite() {
                f32::NAN
            } else if max < MIN_QUANTISED {
                0.0
            } else {
                max / 127.0
            };
            if max.is_finite() && max >= MIN_QUANTISED {
                let inverse = S::splat(127.0 / max);
                let p = quants.as_mut_ptr();
                each!(S, BLOCK, |at, _n| S::store_i8(p.add(at), S::mul(S::load(x.as_ptr().add(at)), inverse)));
            } else {
                quants.fill(0);
            }
        }
        let sum = |half: &[i8]| half.iter().map(|q| i32::from(*q)).sum::<i32>();
        let (low, high) = (sum(&quants[..16]), sum(&quants[16..]));
        (out.sums16[b * 2], out.sums16[b * 2 + 1], out.sums[b]) = (low, high, low + high);
    }
}
