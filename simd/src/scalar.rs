//! The scalar table: complete, and the definition that every other table is held to. Plain safe Rust.
//!
//! A result depends only on its own weight row and activation row, never on how many rows are computed together, so
//! batches and chunks give the same bits.

use half::f16;

use super::q8::{BLOCK, Q8Row, Q8RowMut};
use super::{Table, TypeKernels};
use crate::quant::DType;
use crate::quant::{GroupTraits, Groups, block_types};

/// Partial sums of the float dot: lane `k % 8`, added up from lane 0 at the end.
const LANES: usize = 8;

pub(crate) static TABLE: Table = Table {
    name: "scalar",
    types: TYPES,
    shared: &[],
    peak_floats,
    peak_bytes,
    quantise,
    dot,
    sum,
    sum_squares,
    max,
    scale_mul,
    exp_sum,
    axpy,
    add,
    scale,
    to_f16,
    from_f16,
    silu_mul,
    gelu_mul,
    silu,
    gelu,
    gelu_erf,
    attend_scores,
    attend_tile: None,
    attend_values,
};

macro_rules! kernels {
    ($($(#[$doc:meta])* $name:ident = $id:literal, $block:ty, $feature:literal { $($row:tt)* })*) => {
        [$(TypeKernels {
            dots_f32: |w, x, out| dots_f32(DType::$name, w, x, out),
            dots_q8: |w, x, out| dots_q8(DType::$name, w, x, out),
            tile: None,
            rows: None,
            pairs: None,
        }),*]
    };
}

const TYPES: [TypeKernels; DType::ALL.len()] = block_types!(kernels);

fn peak_floats(times: usize, x: f32) -> (u64, f32) {
    let mut sums = [0.0_f32; LANES];
    for _ in 0..times {
        sums.iter_mut().for_each(|sum| *sum = *sum * x + x);
    }
    ((2 * times * LANES) as u64, sums.iter().sum())
}

fn peak_bytes(times: usize, x: i8) -> (u64, f32) {
    let (x, mut sums) = (std::hint::black_box(i32::from(x)), [0_i32; LANES]);
    for _ in 0..times {
        sums.iter_mut().for_each(|sum| *sum = std::hint::black_box(*sum).wrapping_add(x * x));
    }
    ((2 * times * LANES) as u64, sums.iter().sum::<i32>() as f32)
}

/// Elements that are decoded at a time: whole blocks of every type.
const CHUNK: usize = 256;

/// Products added to partial sums, the first of them to lane 0.
#[inline(always)]
fn add_products(lanes: &mut [f32; LANES], x: &[f32], y: &[f32]) {
    let mut add = |x: &[f32], y: &[f32]| lanes.iter_mut().zip(x).zip(y).for_each(|((lane, x), y)| *lane += x * y);
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let (x, y) = (xs.remainder(), ys.remainder());
    xs.zip(ys).for_each(|(x, y)| add(x, y));
    add(x, y);
}

fn dots_f32(dtype: DType, w: &[u8], x: &[&[f32]], out: &mut [f32]) {
    let Some(bytes) = dtype.bytes_for(CHUNK) else { unreachable!("blocks have at most 256 elements") };
    let decode = dtype.traits().decode;
    let mut values = [0.0; CHUNK];
    assert_eq!(x.len(), out.len(), "one result for each activation row");
    for (x, out) in x.iter().zip(out) {
        assert_eq!(dtype.bytes_for(x.len()), Some(w.len()), "weight and activation rows of different lengths");
        let mut lanes = [0.0; LANES];
        for (w, x) in w.chunks(bytes).zip(x.chunks(CHUNK)) {
            decode(w, &mut values[..x.len()]);
            add_products(&mut lanes, &values[..x.len()], x);
        }
        *out = lanes.iter().sum();
    }
}

fn dot_16(w: &[i8; 16], x: &[i8; 16]) -> i32 {
    w.iter().zip(x).map(|(w, x)| i32::from(*w) * i32::from(*x)).sum()
}

fn dots_q8(dtype: DType, w: &[u8], x: &[Q8Row<'_>], out: &mut [f32]) {
    let Some(GroupTraits { len: group, read, .. }) = dtype.traits().groups else {
        unreachable!("plain types meet float activations only")
    };
    let (len, bytes) = (dtype.block_len(), dtype.block_bytes());
    assert_eq!(x.len(), out.len(), "one result for each activation row");
    let mut groups = Groups::ZERO;
    out.fill(0.0);
    for (b, block) in w.chunks_exact(bytes).enumerate() {
        read(block, &mut groups);
        for (x, out) in x.iter().zip(&mut *out) {
            assert_eq!(dtype.bytes_for(x.k), Some(w.len()), "weight and activation rows of different lengths");
            let quants = &x.quants[b * len..(b + 1) * len];
            for (g, (wq, xq)) in groups.quants[..len].chunks(group).zip(quants.chunks(group)).enumerate() {
                let at = b * len + g * group;
                let scale = x.scales[at / BLOCK];
                // Groups have 16 or 32 elements.
                let sum = if group == BLOCK { x.sums[at / BLOCK] } else { x.sums16[at / 16] };
                let halves = wq.as_chunks::<16>().0.iter().zip(xq.as_chunks::<16>().0);
                let dot: i32 = halves.map(|(w, x)| dot_16(w, x)).sum();
                *out += (groups.scales[g] * scale) * dot as f32 - groups.mins[g] * (scale * sum as f32);
            }
        }
    }
}

/// `scale = max|x| / 127`, `quant = x * (127 / max|x|)` rounded half to even. Blocks whose maximum is too small to
/// invert become zeros; blocks with an infinity or a NaN get a NaN scale, so that it reaches the result.
fn quantise(x: &[f32], out: Q8RowMut<'_>) {
    super::check_q8(x, &out);
    for (b, x) in x.chunks_exact(BLOCK).enumerate() {
        let max = f32::from_bits(x.iter().map(|v| v.to_bits() & 0x7fff_ffff).max().unwrap_or(0));
        let quants = &mut out.quants[b * BLOCK..][..BLOCK];
        let inverse = if max >= super::MIN_QUANTISED { 127.0 / max } else { 0.0 };
        out.scales[b] = if !max.is_finite() {
            f32::NAN
        } else if inverse == 0.0 {
            0.0
        } else {
            max / 127.0
        };
        for (q, v) in quants.iter_mut().zip(x) {
            *q = if max.is_finite() { (v * inverse).round_ties_even() as i8 } else { 0 };
        }
        let sum = |half: &[i8]| half.iter().map(|q| i32::from(*q)).sum::<i32>();
        let (low, high) = (sum(&quants[..16]), sum(&quants[16..]));
        (out.sums16[b * 2], out.sums16[b * 2 + 1], out.sums[b]) = (low, high, low + high);
    }
}

fn dot(x: &[f32], y: &[f32]) -> f32 {
    assert_eq!(x.len(), y.len());
    let mut lanes = [0.0; LANES];
    add_products(&mut lanes, x, y);
    lanes.iter().sum()
}

fn sum(x: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    for (k, x) in x.iter().enumerate() {
        lanes[k % LANES] += x;
    }
    lanes.iter().sum()
}

fn sum_squares(x: &[f32]) -> f32 {
    dot(x, x)
}

fn max(x: &[f32]) -> f32 {
    x.iter().fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a })
}

fn scale_mul(x: &[f32], scale: f32, w: &[f32], out: &mut [f32]) {
    assert!(x.len() == out.len() && w.len() == out.len());
    for ((out, x), w) in out.iter_mut().zip(x).zip(w) {
        *out = x * scale * w;
    }
}

fn exp_sum(x: &mut [f32], max: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    for (k, x) in x.iter_mut().enumerate() {
        *x = (*x - max).exp();
        lanes[k % LANES] += *x;
    }
    lanes.iter().sum()
}

fn axpy(y: &mut [f32], a: f32, x: &[f32]) {
    assert_eq!(x.len(), y.len());
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

fn add(y: &mut [f32], x: &[f32]) {
    assert_eq!(x.len(), y.len());
    for (y, x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

fn scale(y: &mut [f32], a: f32) {
    for y in y {
        *y *= a;
    }
}

fn to_f16(x: &[f32], out: &mut [u8]) {
    assert_eq!(x.len() * 2, out.len());
    for (x, out) in x.iter().zip(out.chunks_exact_mut(2)) {
        out.copy_from_slice(&f16::from_f32(*x).to_le_bytes());
    }
}

fn from_f16(x: &[u8], out: &mut [f32]) {
    assert_eq!(x.len(), out.len() * 2);
    for (x, out) in x.chunks_exact(2).zip(out) {
        *out = crate::quant::f16([x[0], x[1]]);
    }
}

fn silu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == out.len() && up.len() == out.len());
    for ((out, g), u) in out.iter_mut().zip(gate).zip(up) {
        *out = g / (1.0 + (-g).exp()) * u;
    }
}

/// The tanh form: `0.5 g (1 + tanh(sqrt(2/pi) (g + 0.044715 g^3)))`.
fn gelu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == out.len() && up.len() == out.len());
    for ((out, g), u) in out.iter_mut().zip(gate).zip(up) {
        let t = super::SQRT_2_OVER_PI * (g + 0.044_715 * g * g * g);
        *out = 0.5 * g * (1.0 + t.tanh()) * u;
    }
}

fn silu(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x /= 1.0 + (-*x).exp());
}

fn gelu(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = 0.5 * *x * (1.0 + (super::SQRT_2_OVER_PI * (*x + 0.044_715 * *x * *x * *x)).tanh()));
}

fn gelu_erf(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = 0.5 * *x * (1.0 + libm::erff(*x * std::f32::consts::FRAC_1_SQRT_2)));
}

/// Elements of a page of F32 or F16.
fn page_values(dtype: DType, page: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F32 => out.iter_mut().zip(page.as_chunks::<4>().0).for_each(|(out, x)| *out = f32::from_le_bytes(*x)),
        _ => out.iter_mut().zip(page.as_chunks::<2>().0).for_each(|(out, x)| *out = crate::quant::f16(*x)),
    }
}

fn attend_scores(dtype: DType, q: &[f32], page: &[u8], head_dim: usize, positions: usize, out: &mut [f32]) {
    super::check_page(dtype, page, head_dim, positions, q.len(), out.len());
    let (bytes, mut values) = (dtype.block_bytes(), [0.0; CHUNK]);
    for (q, out) in q.chunks_exact(head_dim).zip(out.chunks_exact_mut(positions)) {
        for (key, out) in page.chunks_exact(head_dim * bytes).zip(out) {
            let mut lanes = [0.0; LANES];
            for (key, q) in key.chunks(CHUNK * bytes).zip(q.chunks(CHUNK)) {
                page_values(dtype, key, &mut values[..q.len()]);
                add_products(&mut lanes, q, &values[..q.len()]);
            }
            *out = lanes.iter().sum();
        }
    }
}

fn attend_values(dtype: DType, weights: &[f32], page: &[u8], head_dim: usize, positions: usize, acc: &mut [f32]) {
    super::check_page(dtype, page, head_dim, positions, acc.len(), weights.len());
    let (bytes, mut values) = (dtype.block_bytes(), [0.0; CHUNK]);
    for (acc, weights) in acc.chunks_exact_mut(head_dim).zip(weights.chunks_exact(positions)) {
        for (value, weight) in page.chunks_exact(head_dim * bytes).zip(weights) {
            for (value, acc) in value.chunks(CHUNK * bytes).zip(acc.chunks_mut(CHUNK)) {
                page_values(dtype, value, &mut values[..acc.len()]);
                axpy(acc, *weight, &values[..acc.len()]);
            }
        }
    }
}
