//! Encoders of the K types: super-blocks of 256, whose groups' scales (and minima) are integers themselves.

use super::super::Encode;
use super::super::half::{f16, to_f16};
use super::super::q2_k::Q2_K;
use super::super::q3_k::Q3_K;
use super::super::q4_k::{Q4_K, scale_min};
use super::super::q5_k::Q5_K;
use super::super::q6_k::Q6_K;
use super::lanes::{Vector, nearest, one_by_one, side_by_side};
use super::search::{TINY, Trials, affine, positive, signed, signed_by_steps, squares, sum, weighted};
use super::{IMPORTANT, Importance, extreme};

/// Scales and minima of `G` groups, as integers with a scale each, and the values' integers.
struct Affine<const G: usize> {
    d: [u8; 2],
    dmin: [u8; 2],
    scales: [u8; G],
    mins: [u8; G],
    levels: [u8; 256],
}

/// What the groups of a block were found to be, each as the search leaves it.
struct Groups<const G: usize> {
    scales: [f32; G],
    mins: [f32; G],
    inverses: [f32; G],
    from: [f32; G],
    /// Sums of the weights.
    sums: [f32; G],
}

/// The weights of groups and what is tried.
#[inline(always)]
fn weights<const W: usize, const N: usize>(
    x: &[Vector<W>; N],
    important: Option<([Vector<W>; N], f32)>,
    trials: Trials,
) -> ([Vector<W>; N], Trials) {
    if let Some((important, mean_square)) = important {
        // Groups of 16 take the mean square, those of 32 twice.
        let spread = if N == 16 { mean_square } else { 2.0 * mean_square };
        return (weighted(x, &important, Vector::all(spread)), IMPORTANT);
    }
    let mean = (squares(x) / Vector::all(N as f32)).sqrt();
    let mut w = [Vector::ZERO; N];
    for i in 0..N {
        w[i] = if trials.magnitudes { x[i].abs() } else { mean + x[i].abs() };
    }
    (w, trials)
}

/// `G` groups of `N`, integers up to `n`.
#[inline(always)]
fn searched<const W: usize, const G: usize, const N: usize>(
    x: &[f32; 256],
    n: f32,
    trials: Trials,
    important: Option<&Importance<'_>>,
) -> Groups<G> {
    let none = [0.0; G];
    let mut out = Groups { scales: none, mins: none, inverses: none, from: none, sums: none };
    for g in (0..G).step_by(W) {
        let x = side_by_side::<W, N>(&x[g * N..]);
        let important = important.map(|i| (side_by_side(&i.weights[g * N..]), i.mean_square));
        let (w, trials) = weights(&x, important, trials);
        let found = affine(&x, &w, n, trials);
        out.scales[g..g + W].copy_from_slice(&found.scale.0);
        out.mins[g..g + W].copy_from_slice(&found.min.0);
        out.inverses[g..g + W].copy_from_slice(&found.inverse.0);
        out.from[g..g + W].copy_from_slice(&found.from.0);
        out.sums[g..g + W].copy_from_slice(&sum(&w).0);
    }
    out
}

/// Scales (or minima) as integers up to `most`, and their own scale; with the weights of the groups if some values are important.
#[inline(always)]
fn whole<const G: usize>(values: &[f32; G], sums: Option<&[f32; G]>, most: f32) -> ([u8; 2], [u8; G]) {
    let mut integers = [0; G];
    if let Some(sums) = sums {
        let (d, levels) = positive::<1, G>(&side_by_side(values), &side_by_side(sums), most);
        for g in 0..G {
            integers[g] = levels[g].0[0] as u8;
        }
        return (to_f16(d.0[0]), integers);
    }
    let max = values.iter().fold(0.0f32, |a, b| if *b > a { *b } else { a });
    let inverse = if max > 0.0 { most / max } else { 0.0 };
    for g in 0..G {
        integers[g] = nearest(inverse * values[g], 0.0, most) as u8;
    }
    (to_f16(max / most), integers)
}

/// `G` groups of `N`, integers up to `n`, scales up to `most`.
#[inline(always)]
fn affine_groups<const W: usize, const G: usize, const N: usize>(
    x: &[f32; 256],
    (n, most): (f32, f32),
    trials: Trials,
    important: Option<&Importance<'_>>,
) -> Affine<G> {
    let found = searched::<W, G, N>(x, n, trials, important);
    let sums = important.map(|_| &found.sums);
    let (d, scales) = whole(&found.scales, sums, most);
    let (dmin, mins) = whole(&found.mins, sums, most);
    let mut levels = [0; 256];
    for (g, (x, levels)) in x.as_chunks::<N>().0.iter().zip(levels.as_chunks_mut::<N>().0).enumerate() {
        let (scale, min) = (f16(d) * f32::from(scales[g]), f16(dmin) * f32::from(mins[g]));
        if scale == 0.0 {
            for i in 0..N {
                levels[i] = nearest(found.inverses[g] * (x[i] - found.from[g]), 0.0, n) as u8;
            }
            continue;
        }
        for i in 0..N {
            levels[i] = nearest((x[i] + min) / scale, 0.0, n) as u8;
        }
    }
    Affine { d, dmin, scales, mins, levels }
}

/// Eight 6-bit scales and minima in twelve bytes: the reverse of [`scale_min`].
#[inline(always)]
fn pack(scales: &[u8; 8], mins: &[u8; 8]) -> [u8; 12] {
    let mut out = [0; 12];
    for g in 0..8 {
        let (s, m) = (scales[g], mins[g]);
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

/// The low four bits of two elements in a byte, those of the first `N` of every `2 N` below.
#[inline(always)]
fn nibbles<const N: usize>(levels: &[u8; 256]) -> [u8; 128] {
    let mut out = [0; 128];
    for (out, levels) in out.as_chunks_mut::<N>().0.iter_mut().zip(levels.chunks_exact(2 * N)) {
        for i in 0..N {
            out[i] = levels[i] & 15 | (levels[i + N] & 15) << 4;
        }
    }
    out
}

/// Four elements of 2 bits in a byte, 32 apart.
#[inline(always)]
pub(super) fn quarters(levels: &[u8; 256]) -> [u8; 64] {
    let mut out = [0; 64];
    for (out, levels) in out.as_chunks_mut::<32>().0.iter_mut().zip(levels.as_chunks::<128>().0) {
        for i in 0..32 {
            let (low, high) =
                (levels[i] & 3 | (levels[i + 32] & 3) << 2, levels[i + 64] & 3 | (levels[i + 96] & 3) << 2);
            out[i] = low | high << 4;
        }
    }
    out
}

/// Bit `BIT` of eight elements in a byte, 32 apart.
#[inline(always)]
fn eighths<const BIT: usize>(levels: &[u8; 256]) -> [u8; 32] {
    let mut out = [0; 32];
    for (k, levels) in levels.as_chunks::<32>().0.iter().enumerate() {
        for i in 0..32 {
            out[i] |= (levels[i] >> BIT & 1) << k;
        }
    }
    out
}

impl Encode<256> for Q2_K {
    #[inline(always)]
    fn encode<const W: usize>(x: &[f32; 256], important: Option<&Importance<'_>>) -> Self {
        let trials = Trials { from: -0.5, step: 0.1, n: 15, magnitudes: true };
        let a = affine_groups::<W, 16, 16>(x, (3.0, 15.0), trials, important);
        let mut scales = a.scales;
        for g in 0..16 {
            scales[g] |= a.mins[g] << 4;
        }
        Q2_K { scales, qs: quarters(&a.levels), d: a.d, dmin: a.dmin }
    }
}

impl Encode<256> for Q4_K {
    #[inline(always)]
    fn encode<const W: usize>(x: &[f32; 256], important: Option<&Importance<'_>>) -> Self {
        let trials = Trials { from: -1.0, step: 0.1, n: 20, magnitudes: false };
        let a = affine_groups::<W, 8, 32>(x, (15.0, 63.0), trials, important);
        Q4_K { d: a.d, dmin: a.dmin, scales: pack(&a.scales, &a.mins), qs: nibbles::<32>(&a.levels) }
    }
}

impl Encode<256> for Q5_K {
    #[inline(always)]
    fn encode<const W: usize>(x: &[f32; 256], important: Option<&Importance<'_>>) -> Self {
        let trials = Trials { from: -0.5, step: 0.1, n: 15, magnitudes: false };
        let a = affine_groups::<W, 8, 32>(x, (31.0, 63.0), trials, important);
        let (qh, qs) = (eighths::<4>(&a.levels), nibbles::<32>(&a.levels));
        Q5_K { d: a.d, dmin: a.dmin, scales: pack(&a.scales, &a.mins), qh, qs }
    }
}

/// The integers of groups of 16 by their scales in the end, from `-n` to `n - 1`, with `n` added; of a group whose scale is 0,
/// those that are there.
#[inline(always)]
fn settle(x: &[f32; 256], scales: &[f32; 16], n: f32, levels: &mut [u8; 256]) {
    for (g, (x, levels)) in x.as_chunks::<16>().0.iter().zip(levels.as_chunks_mut::<16>().0).enumerate() {
        if scales[g] == 0.0 {
            continue;
        }
        for i in 0..16 {
            levels[i] = (nearest(x[i] / scales[g], -n, n - 1.0) + n as i32) as u8;
        }
    }
}

impl Encode<256> for Q3_K {
    #[inline(always)]
    fn encode<const W: usize>(x: &[f32; 256], important: Option<&Importance<'_>>) -> Self {
        let mut found = [0.0; 256];
        let (mut scales, mut sums) = ([0.0; 16], [0.0; 16]);
        for g in (0..16).step_by(W) {
            let x = side_by_side::<W, 16>(&x[16 * g..]);
            let (scale, levels) = match important {
                Some(i) => {
                    let spread = Vector::all(2.0 * i.mean_square);
                    let w = weighted(&x, &side_by_side(&i.weights[16 * g..]), spread);
                    sums[g..g + W].copy_from_slice(&sum(&w).0);
                    let scaled = signed(&x, &w, 4.0);
                    (scaled.scale, x.map(|x| (scaled.inverse * x).level(-4.0, 3.0)))
                }
                None => signed_by_steps(&x, &x.map(|x| x * x), 4.0),
            };
            scales[g..g + W].copy_from_slice(&scale.0);
            one_by_one(&levels, &mut found[16 * g..]);
        }
        let (d, integers) = scales_of_3(&scales, important.map(|_| &sums));
        let mut levels = found.map(|l| (l as i32 + 4) as u8);
        settle(x, &integers.map(|l| f16(d) * l as f32), 4.0, &mut levels);
        let mut packed = [0; 12];
        for (g, l) in integers.iter().enumerate() {
            let l = (l + 32) as u8;
            packed[g % 8] |= (l & 15) << (g / 8 * 4);
            packed[8 + g % 4] |= l >> 4 << (g / 4 * 2);
        }
        Q3_K { hmask: eighths::<2>(&levels), qs: quarters(&levels), scales: packed, d }
    }
}

/// The scales of Q3_K's groups as integers, and their own scale.
#[inline(always)]
fn scales_of_3(scales: &[f32; 16], sums: Option<&[f32; 16]>) -> ([u8; 2], [i32; 16]) {
    let max = extreme(scales);
    match sums {
        Some(sums) => {
            let found = signed::<1, 16>(&side_by_side(scales), &side_by_side(sums), 32.0);
            (to_f16(found.scale.0[0]), scales.map(|s| nearest(found.inverse.0[0] * s, -32.0, 31.0)))
        }
        None if max != 0.0 => (to_f16(max / -32.0), scales.map(|s| nearest(-32.0 / max * s, -32.0, 31.0))),
        None => (to_f16(0.0), [0; 16]),
    }
}

impl Encode<256> for Q6_K {
    #[inline(always)]
    fn encode<const W: usize>(x: &[f32; 256], important: Option<&Importance<'_>>) -> Self {
        let (mut scales, mut inverses) = ([0.0; 16], [0.0; 16]);
        for g in (0..16).step_by(W) {
            let x = side_by_side::<W, 16>(&x[16 * g..]);
            let w = match important {
                Some(i) => side_by_side(&i.weights[16 * g..]),
                None => x.map(|x| x * x),
            };
            let found = signed(&x, &w, 32.0);
            scales[g..g + W].copy_from_slice(&found.scale.0);
            inverses[g..g + W].copy_from_slice(&found.inverse.0);
        }
        let max = extreme(&scales);
        let mut block = Q6_K { ql: [0; 128], qh: [0; 64], scales: [0; 16], d: [0; 2] };
        if max.abs() >= TINY {
            block.d = to_f16(max / -128.0);
            block.scales = scales.map(|s| nearest(-128.0 / max * s, -128.0, 127.0) as i8);
        } else {
            inverses = [0.0; 16];
        }
        let mut levels = [0; 256];
        for (g, (x, levels)) in x.as_chunks::<16>().0.iter().zip(levels.as_chunks_mut::<16>().0).enumerate() {
            for i in 0..16 {
                levels[i] = (nearest(inverses[g] * x[i], -32.0, 31.0) + 32) as u8;
            }
        }
        settle(x, &block.scales.map(|s| f16(block.d) * f32::from(s)), 32.0, &mut levels);
        block.ql = nibbles::<64>(&levels);
        block.qh = quarters(&levels.map(|l| l >> 4));
        block
    }
}
