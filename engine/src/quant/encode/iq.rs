//! Encoders of types with uneven steps or a grid.

use std::sync::OnceLock;

use super::super::Encode;
use super::super::grid::row;
use super::super::half::{f16, to_f16};
use super::super::iq3_s::{GRID, IQ3_S};
use super::super::iq4_nl::{IQ4_NL, STEPS};
use super::super::iq4_xs::IQ4_XS;
use super::{Fit, Importance, TINY, extreme, nearest, squares, weighted};

/// The uneven step nearest to a value.
fn step(x: f32) -> usize {
    let above = STEPS.partition_point(|s| f32::from(*s) <= x);
    if above == 0 {
        return 0;
    }
    if above == STEPS.len() {
        return STEPS.len() - 1;
    }
    let (below, over) = (f32::from(STEPS[above - 1]), f32::from(STEPS[above]));
    if x - below < over - x { above - 1 } else { above }
}

/// The scale of 32 values on uneven steps.
fn uneven(x: &[f32], w: &[f32]) -> f32 {
    let max = extreme(x);
    if max.abs() < TINY {
        return 0.0;
    }
    let fit = |inverse: f32| {
        let mut fit = Fit::default();
        x.iter().zip(w).for_each(|(x, w)| fit.add(*w, *x, f32::from(STEPS[step(inverse * x)])));
        fit
    };
    let lowest = f32::from(STEPS[0]);
    let mut best = fit(-lowest / max);
    for trial in -7..=7 {
        let tried = fit((trial as f32 + lowest) / max);
        if tried.beats(best) {
            best = tried;
        }
    }
    best.scale()
}

/// The weights of a group of 32: `spread` is twice the mean square of its super-block.
fn weights(x: &[f32], important: Option<&[f32]>, spread: f32) -> Vec<f32> {
    match important {
        Some(important) => weighted(x, important, spread),
        None => x.iter().map(|x| x * x).collect(),
    }
}

/// Sixteen bytes of nibbles of 32 values.
fn nibbles(x: &[f32], scale: f32) -> impl Iterator<Item = u8> + '_ {
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    (0..16).map(move |i| step(inverse * x[i]) as u8 | (step(inverse * x[i + 16]) as u8) << 4)
}

fn iq4_nl(x: &[f32; 32], important: Option<&[f32]>) -> IQ4_NL {
    let scale = uneven(x, &weights(x, important, 2.0 * squares(x) / 32.0));
    let mut block = IQ4_NL { d: to_f16(scale), qs: [0; 16] };
    block.qs.iter_mut().zip(nibbles(x, scale)).for_each(|(q, n)| *q = n);
    block
}

impl Encode<32> for IQ4_NL {
    fn encode(values: &[f32; 32]) -> Self {
        iq4_nl(values, None)
    }

    fn encode_for(values: &[f32; 32], important: &Importance<'_>) -> Self {
        iq4_nl(values, Some(important.weights))
    }
}

fn iq4_xs(x: &[f32; 256], important: Option<&[f32]>) -> IQ4_XS {
    let spread = 2.0 * squares(x) / 256.0;
    let mut scales = [0.0; 8];
    for (g, scale) in scales.iter_mut().enumerate() {
        let range = 32 * g..32 * (g + 1);
        *scale = uneven(&x[range.clone()], &weights(&x[range.clone()], important.map(|i| &i[range]), spread));
    }
    let max = extreme(&scales);
    let mut block = IQ4_XS { d: to_f16(max / -32.0), scales_h: [0; 2], scales_l: [0; 4], qs: [0; 128] };
    let d = f16(block.d);
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let mut high = 0u16;
    for g in 0..8 {
        let l = nearest(inverse * scales[g]).clamp(-32, 31);
        let bits = (l + 32) as u8;
        block.scales_l[g / 2] |= (bits & 15) << (g % 2 * 4);
        high |= u16::from(bits >> 4) << (2 * g);
        let qs = block.qs[16 * g..16 * (g + 1)].iter_mut();
        qs.zip(nibbles(&x[32 * g..32 * (g + 1)], d * l as f32)).for_each(|(q, n)| *q = n);
    }
    block.scales_h = high.to_le_bytes();
    block
}

impl Encode<256> for IQ4_XS {
    fn encode(values: &[f32; 256]) -> Self {
        iq4_xs(values, None)
    }

    fn encode_for(values: &[f32; 256], important: &Importance<'_>) -> Self {
        iq4_xs(values, Some(important.weights))
    }
}

/// For each four of integers up to 7, three bits each: rows of the grid that are near, the nearest first.
struct Near {
    starts: Vec<u32>,
    rows: Vec<u16>,
}

/// The elements of a row of the grid, without `2 q + 1`.
fn elements(index: u16) -> [i32; 4] {
    let row = row(&GRID, index.into());
    std::array::from_fn(|i| i32::from(row >> (4 * i) & 15))
}

fn near() -> &'static Near {
    static NEAR: OnceLock<Near> = OnceLock::new();
    NEAR.get_or_init(|| {
        let all: Vec<[i32; 4]> = (0..512).map(elements).collect();
        let (mut starts, mut rows) = (vec![0], Vec::new());
        for key in 0..4096 {
            let wanted: [i32; 4] = std::array::from_fn(|i| key >> (3 * i) & 7);
            let distance = |row: &[i32; 4]| row.iter().zip(wanted).map(|(a, b)| (a - b) * (a - b)).sum::<i32>();
            let distances: Vec<i32> = all.iter().map(distance).collect();
            let least = distances.iter().copied().min().unwrap_or(0);
            let second = distances.iter().copied().filter(|d| *d > least).min().unwrap_or(least);
            // A row that is hit needs no others.
            let most = if least == 0 { 0 } else { second };
            let mut found: Vec<u16> = (0..512).filter(|i| distances[usize::from(*i)] <= most).collect();
            found.sort_by_key(|i| distances[usize::from(*i)]);
            rows.extend(found);
            starts.push(rows.len() as u32);
        }
        Near { starts, rows }
    })
}

/// The row for four values that are not negative: `inverse * x` near `2 q + 1`.
fn on_grid(x: &[f32], w: &[f32], inverse: f32) -> u16 {
    let level = |v: f32| nearest(0.5 * (inverse * v - 1.0)).clamp(0, 7) as usize;
    let key = (0..4).fold(0, |key, i| key | level(x[i]) << (3 * i));
    let near = near();
    let rows = &near.rows[near.starts[key] as usize..near.starts[key + 1] as usize];
    let error = |index: u16| -> f32 {
        let row = elements(index);
        (0..4).map(|i| w[i] * (inverse * x[i] - (2 * row[i] + 1) as f32).powi(2)).sum()
    };
    match rows {
        [one] => *one,
        several => several.iter().copied().min_by(|a, b| error(*a).total_cmp(&error(*b))).unwrap_or(0),
    }
}

/// The scale of 32 values that are not negative.
fn grid_scale(x: &[f32], w: &[f32]) -> f32 {
    let max = x.iter().fold(0.0f32, |a, b| a.max(*b));
    if max < TINY {
        return 0.0;
    }
    let mut best = Fit { xl: 0.0, ll: 1.0 };
    for trial in -9..=9 {
        let inverse = (15.0 + 0.2 * trial as f32) / max;
        let mut fit = Fit::default();
        for four in (0..32).step_by(4) {
            let row = elements(on_grid(&x[four..], &w[four..], inverse));
            (0..4).for_each(|i| fit.add(w[four + i], x[four + i], (2 * row[i] + 1) as f32));
        }
        if fit.beats(best) {
            best = fit;
        }
    }
    best.scale()
}

fn iq3_s(x: &[f32; 256], important: Option<&[f32]>) -> IQ3_S {
    let spread = 2.0 * squares(x) / 256.0;
    let magnitudes = x.map(f32::abs);
    let w: Vec<f32> = weights(x, important, spread);
    let scales: [f32; 8] =
        std::array::from_fn(|g| grid_scale(&magnitudes[32 * g..32 * (g + 1)], &w[32 * g..32 * (g + 1)]));
    let max = scales.iter().fold(0.0f32, |a, b| a.max(*b));
    let mut block = IQ3_S { d: [0; 2], qs: [0; 64], qh: [0; 8], signs: [0; 32], scales: [0; 4] };
    if max < TINY {
        return block;
    }
    let d = max / 31.0;
    block.d = to_f16(d);
    for g in 0..8 {
        let l = nearest(0.5 * (scales[g] / d - 1.0)).clamp(0, 15);
        block.scales[g / 2] |= (l as u8) << (g % 2 * 4);
        let inverse = 1.0 / (f16(block.d) * (2 * l + 1) as f32);
        for four in 8 * g..8 * (g + 1) {
            let index =
                on_grid(&magnitudes[4 * four..], &w[4 * four..], if inverse.is_finite() { inverse } else { 0.0 });
            block.qs[four] = index as u8;
            block.qh[four / 8] |= ((index >> 8) as u8) << (four % 8);
        }
    }
    for (i, x) in x.iter().enumerate() {
        block.signs[i / 8] |= u8::from(*x < 0.0) << (i % 8);
    }
    block
}

impl Encode<256> for IQ3_S {
    fn encode(values: &[f32; 256]) -> Self {
        iq3_s(values, None)
    }

    fn encode_for(values: &[f32; 256], important: &Importance<'_>) -> Self {
        iq3_s(values, Some(important.weights))
    }
}
