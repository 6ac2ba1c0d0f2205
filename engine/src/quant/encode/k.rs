//! Encoders of the K types: super-blocks of 256, whose groups' scales (and minima) are integers themselves.

use super::super::Encode;
use super::super::half::{f16, to_f16};
use super::super::q2_k::Q2_K;
use super::super::q3_k::Q3_K;
use super::super::q4_k::{Q4_K, scale_min};
use super::super::q5_k::Q5_K;
use super::super::q6_k::Q6_K;
use super::{
    IMPORTANT, Importance, TINY, Trials, affine, nearest, positive, signed, signed_by_steps, squares, weighted,
};

/// Scales and minima of groups, as integers with a scale each, and the values' integers.
struct Affine {
    d: [u8; 2],
    dmin: [u8; 2],
    scales: Vec<i32>,
    mins: Vec<i32>,
    levels: [i32; 256],
}

/// Groups of `len`, integers up to `n`, scales up to `most`.
fn affine_groups(x: &[f32; 256], len: usize, n: i32, most: i32, trials: Trials, i: Option<&Importance<'_>>) -> Affine {
    let groups = 256 / len;
    let mut levels = [0; 256];
    let (mut scales, mut mins, mut sums) = (Vec::new(), Vec::new(), Vec::new());
    for g in 0..groups {
        let x = &x[g * len..(g + 1) * len];
        let (w, trials) = match i {
            Some(i) => {
                // Groups of 16 take the mean square, those of 32 twice.
                let spread = if len == 16 { i.mean_square } else { 2.0 * i.mean_square };
                (weighted(x, &i.weights[g * len..(g + 1) * len], spread), IMPORTANT)
            }
            None if trials.magnitudes => (x.iter().map(|x| x.abs()).collect(), trials),
            None => {
                let mean = (squares(x) / len as f32).sqrt();
                (x.iter().map(|x| mean + x.abs()).collect(), trials)
            }
        };
        let (scale, min) = affine(x, &w, n, trials, &mut levels[g * len..(g + 1) * len]);
        scales.push(scale);
        mins.push(min);
        sums.push(w.iter().sum::<f32>());
    }
    let whole = |values: &[f32]| -> (f32, Vec<i32>) {
        let mut integers = vec![0; groups];
        if i.is_some() {
            let d = positive(values, &sums, most, &mut integers);
            return (d, integers);
        }
        let max = values.iter().fold(0.0f32, |a, b| a.max(*b));
        let inverse = if max > 0.0 { most as f32 / max } else { 0.0 };
        integers.iter_mut().zip(values).for_each(|(l, v)| *l = nearest(inverse * v).clamp(0, most));
        (max / most as f32, integers)
    };
    let ((d, scales), (dmin, mins)) = (whole(&scales), whole(&mins));
    let (d, dmin) = (to_f16(d), to_f16(dmin));
    for g in 0..groups {
        let (scale, min) = (f16(d) * scales[g] as f32, f16(dmin) * mins[g] as f32);
        if scale == 0.0 {
            continue;
        }
        for k in g * len..(g + 1) * len {
            levels[k] = nearest((x[k] + min) / scale).clamp(0, n);
        }
    }
    Affine { d, dmin, scales, mins, levels }
}

/// The mean square of a super-block in place of the row's.
fn of_block<'a>(x: &[f32; 256], i: &Importance<'a>) -> Importance<'a> {
    Importance { weights: i.weights, mean_square: squares(x) / 256.0 }
}

/// Eight 6-bit scales and minima in twelve bytes: the reverse of [`scale_min`].
fn pack(scales: &[i32], mins: &[i32]) -> [u8; 12] {
    let mut out = [0; 12];
    for g in 0..8 {
        let (s, m) = (scales[g] as u8, mins[g] as u8);
        if g < 4 {
            (out[g], out[g + 4]) = (out[g] | s, out[g + 4] | m);
        } else {
            out[g + 4] = s & 15 | m << 4;
            out[g - 4] |= s >> 4 << 6;
            out[g] |= m >> 4 << 6;
        }
        debug_assert!(g < 4 || scale_min(g, &out).0 & 15 == s & 15);
    }
    out
}

fn q4_k(x: &[f32; 256], i: Option<&Importance<'_>>) -> Q4_K {
    let a = affine_groups(x, 32, 15, 63, Trials { from: -1.0, step: 0.1, n: 20, magnitudes: false }, i);
    let level = |i: usize| a.levels[i] as u8;
    let qs = std::array::from_fn(|i| level(i / 32 * 64 + i % 32) | level(i / 32 * 64 + 32 + i % 32) << 4);
    Q4_K { d: a.d, dmin: a.dmin, scales: pack(&a.scales, &a.mins), qs }
}

impl Encode<256> for Q4_K {
    fn encode(values: &[f32; 256]) -> Self {
        q4_k(values, None)
    }

    fn encode_for(values: &[f32; 256], important: &Importance<'_>) -> Self {
        q4_k(values, Some(&of_block(values, important)))
    }
}

fn q5_k(x: &[f32; 256], i: Option<&Importance<'_>>) -> Q5_K {
    let a = affine_groups(x, 32, 31, 63, Trials { from: -0.5, step: 0.1, n: 15, magnitudes: false }, i);
    let level = |i: usize| a.levels[i] as u8;
    let qs = std::array::from_fn(|i| level(i / 32 * 64 + i % 32) & 15 | (level(i / 32 * 64 + 32 + i % 32) & 15) << 4);
    let qh = std::array::from_fn(|i| (0..8).fold(0, |bits, g| bits | level(32 * g + i) >> 4 << g));
    Q5_K { d: a.d, dmin: a.dmin, scales: pack(&a.scales, &a.mins), qh, qs }
}

impl Encode<256> for Q5_K {
    fn encode(values: &[f32; 256]) -> Self {
        q5_k(values, None)
    }

    fn encode_for(values: &[f32; 256], important: &Importance<'_>) -> Self {
        q5_k(values, Some(&of_block(values, important)))
    }
}

/// Four elements of 2 bits in a byte, as Q2_K and Q3_K have them.
fn quarters(level: impl Fn(usize) -> u8) -> [u8; 64] {
    std::array::from_fn(|i| (0..4).fold(0, |bits, k| bits | (level(i / 32 * 128 + 32 * k + i % 32) & 3) << (2 * k)))
}

fn q2_k(x: &[f32; 256], i: Option<&Importance<'_>>) -> Q2_K {
    let a = affine_groups(x, 16, 3, 15, Trials { from: -0.5, step: 0.1, n: 15, magnitudes: true }, i);
    let scales = std::array::from_fn(|g| a.scales[g] as u8 | (a.mins[g] as u8) << 4);
    Q2_K { scales, qs: quarters(|i| a.levels[i] as u8), d: a.d, dmin: a.dmin }
}

impl Encode<256> for Q2_K {
    fn encode(values: &[f32; 256]) -> Self {
        q2_k(values, None)
    }

    fn encode_for(values: &[f32; 256], important: &Importance<'_>) -> Self {
        q2_k(values, Some(&of_block(values, important)))
    }
}

fn q3_k(x: &[f32; 256], i: Option<&Importance<'_>>) -> Q3_K {
    let mut levels = [0; 256];
    let (mut scales, mut sums) = ([0.0; 16], [0.0; 16]);
    for g in 0..16 {
        let (range, x) = (16 * g..16 * (g + 1), &x[16 * g..16 * (g + 1)]);
        scales[g] = match i {
            Some(i) => {
                let w = weighted(x, &i.weights[range.clone()], 2.0 * i.mean_square);
                sums[g] = w.iter().sum();
                signed(x, |k| w[k], 4, &mut levels[range])
            }
            None => signed_by_steps(x, |k| x[k] * x[k], 4, &mut levels[range]),
        };
    }
    let mut integers = [0; 16];
    let max = super::extreme(&scales);
    let d = match i {
        Some(_) => signed(&scales, |g| sums[g], 32, &mut integers),
        None if max != 0.0 => {
            integers.iter_mut().zip(&scales).for_each(|(l, s)| *l = nearest(-32.0 / max * s).clamp(-32, 31));
            max / -32.0
        }
        None => 0.0,
    };
    let d = to_f16(d);
    for k in 0..256 {
        let scale = f16(d) * integers[k / 16] as f32;
        if scale != 0.0 {
            levels[k] = nearest(x[k] / scale).clamp(-4, 3);
        }
    }
    let level = |i: usize| (levels[i] + 4) as u8;
    let mut packed = [0; 12];
    for (g, l) in integers.iter().enumerate() {
        let l = (l + 32) as u8;
        packed[g % 8] |= (l & 15) << (g / 8 * 4);
        packed[8 + g % 4] |= l >> 4 << (g / 4 * 2);
    }
    let hmask = std::array::from_fn(|i| (0..8).fold(0, |bits, k| bits | level(32 * k + i) >> 2 << k));
    Q3_K { hmask, qs: quarters(level), scales: packed, d }
}

impl Encode<256> for Q3_K {
    fn encode(values: &[f32; 256]) -> Self {
        q3_k(values, None)
    }

    fn encode_for(values: &[f32; 256], important: &Importance<'_>) -> Self {
        q3_k(values, Some(&of_block(values, important)))
    }
}

fn q6_k(x: &[f32; 256], i: Option<&Importance<'_>>) -> Q6_K {
    let mut levels = [0; 256];
    let mut scales = [0.0; 16];
    for g in 0..16 {
        let (range, x) = (16 * g..16 * (g + 1), &x[16 * g..16 * (g + 1)]);
        let weight = |k: usize| i.map_or_else(|| x[k] * x[k], |i| i.weights[16 * g + k]);
        scales[g] = signed(x, weight, 32, &mut levels[range]);
    }
    let max = super::extreme(&scales);
    let mut block = Q6_K { ql: [0; 128], qh: [0; 64], scales: [0; 16], d: [0; 2] };
    if max.abs() >= TINY {
        block.d = to_f16(max / -128.0);
        block.scales = scales.map(|s| nearest(-128.0 / max * s).clamp(-128, 127) as i8);
    } else {
        levels.fill(0);
    }
    for k in 0..256 {
        let scale = f16(block.d) * f32::from(block.scales[k / 16]);
        if scale != 0.0 {
            levels[k] = nearest(x[k] / scale).clamp(-32, 31);
        }
    }
    let level = |i: usize| (levels[i] + 32) as u8;
    block.ql =
        std::array::from_fn(|i| level(i / 64 * 128 + i % 64) & 15 | (level(i / 64 * 128 + 64 + i % 64) & 15) << 4);
    block.qh =
        std::array::from_fn(|i| (0..4).fold(0, |bits, k| bits | level(i / 32 * 128 + 32 * k + i % 32) >> 4 << (2 * k)));
    block
}

impl Encode<256> for Q6_K {
    fn encode(values: &[f32; 256]) -> Self {
        q6_k(values, None)
    }

    fn encode_for(values: &[f32; 256], important: &Importance<'_>) -> Self {
        q6_k(values, Some(&of_block(values, important)))
    }
}
