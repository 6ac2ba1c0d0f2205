//! The encoder of the type whose fours are rows of a grid.

use std::sync::OnceLock;

use super::super::Encode;
use super::super::grid::row;
use super::super::half::{f16, to_f16};
use super::super::iq3_s::{GRID, IQ3_S};
use super::lanes::{Vector, nearest, side_by_side};
use super::search::{Fit, TINY, largest, weighted};
use super::{Importance, squares};

/// Rows of the grid that are compared at once.
const AT_ONCE: usize = 8;

/// Some rows of the grid: their numbers, and their elements with like ones side by side.
#[derive(Clone, Copy)]
struct Candidates {
    rows: [u16; AT_ONCE],
    elements: [[f32; AT_ONCE]; 4],
}

/// For each four of integers up to 7, three bits each: rows of the grid that are near, the nearest first. The last one is there
/// several times if they do not fill their places.
struct Near {
    starts: Vec<u32>,
    candidates: Vec<Candidates>,
    /// The elements of all rows.
    elements: Vec<[f32; 4]>,
}

/// The elements of a row of the grid as integers up to 7.
fn integers(index: u16) -> [i32; 4] {
    let row = row(&GRID, index.into());
    std::array::from_fn(|i| i32::from(row >> (4 * i) & 15))
}

fn near() -> &'static Near {
    static NEAR: OnceLock<Near> = OnceLock::new();
    NEAR.get_or_init(|| {
        let all: Vec<[i32; 4]> = (0..512).map(integers).collect();
        let elements: Vec<[f32; 4]> = all.iter().map(|row| row.map(|q| (2 * q + 1) as f32)).collect();
        let (mut starts, mut candidates) = (vec![0], Vec::new());
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
            for some in found.chunks(AT_ONCE) {
                let rows = std::array::from_fn(|i| some[i.min(some.len() - 1)]);
                let elements = std::array::from_fn(|i| rows.map(|row| elements[usize::from(row)][i]));
                candidates.push(Candidates { rows, elements });
            }
            starts.push(candidates.len() as u32);
        }
        Near { starts, candidates, elements }
    })
}

/// The row for four values that are not negative: `x` near the elements, `key` their integers.
#[inline(always)]
fn on_grid(near: &Near, x: &[f32; 4], w: &[f32; 4], key: usize) -> u16 {
    let candidates = &near.candidates[near.starts[key] as usize..near.starts[key + 1] as usize];
    let first = candidates[0].rows[0];
    // What is hit is alone.
    if candidates[0].rows[AT_ONCE - 1] == first {
        return first;
    }
    let (mut least, mut best) = ([f32::INFINITY; AT_ONCE], [0u32; AT_ONCE]);
    for (number, some) in candidates.iter().enumerate() {
        let mut error = [0.0f32; AT_ONCE];
        for i in 0..4 {
            for row in 0..AT_ONCE {
                let off = x[i] - some.elements[i][row];
                error[row] += w[i] * (off * off);
            }
        }
        for row in 0..AT_ONCE {
            best[row] = if error[row] < least[row] { number as u32 } else { best[row] };
            least[row] = if error[row] < least[row] { error[row] } else { least[row] };
        }
    }
    // The first of equals.
    let mut at = 0;
    for row in 1..AT_ONCE {
        if least[row] < least[at] || least[row] == least[at] && best[row] < best[at] {
            at = row;
        }
    }
    candidates[best[at] as usize].rows[at]
}

/// The integers of 32 values in their fours, three bits each; and the values as they are to be near the elements.
#[inline(always)]
fn keys(x: &[f32; 32], inverse: f32) -> ([usize; 8], [f32; 32]) {
    let (mut levels, mut scaled) = ([0u8; 32], [0.0; 32]);
    for i in 0..32 {
        scaled[i] = inverse * x[i];
        levels[i] = nearest(0.5 * (scaled[i] - 1.0), 0.0, 7.0) as u8;
    }
    let mut keys = [0; 8];
    for (key, four) in keys.iter_mut().zip(levels.as_chunks::<4>().0) {
        *key = four.iter().rev().fold(0, |key, l| key << 3 | usize::from(*l));
    }
    (keys, scaled)
}

/// The rows for 32 values that are not negative.
#[inline(always)]
fn rows(near: &Near, x: &[f32; 32], w: &[f32; 32], inverse: f32) -> [u16; 8] {
    let (keys, scaled) = keys(x, inverse);
    let mut rows = [0; 8];
    for (i, (x, w)) in scaled.as_chunks::<4>().0.iter().zip(w.as_chunks::<4>().0).enumerate() {
        rows[i] = on_grid(near, x, w, keys[i]);
    }
    rows
}

/// The scales of groups of 32 values that are not negative.
#[inline(always)]
fn scales<const W: usize>(near: &Near, x: &[f32; 256], w: &[f32; 256], g: usize) -> [f32; W] {
    let lanes = side_by_side::<W, 32>(&x[32 * g..]);
    let weights = side_by_side::<W, 32>(&w[32 * g..]);
    let (x, w) = (&x.as_chunks::<32>().0[g..g + W], &w.as_chunks::<32>().0[g..g + W]);
    let max = largest(&lanes);
    let mut best = Fit { xl: Vector::ZERO, ll: Vector::all(1.0) };
    for trial in -9..=9 {
        let inverse = Vector::all(15.0 + 0.2 * trial as f32) / max;
        let mut levels = [Vector::ZERO; 32];
        for lane in 0..W {
            for (four, row) in rows(near, &x[lane], &w[lane], inverse.0[lane]).iter().enumerate() {
                for (i, l) in near.elements[usize::from(*row)].iter().enumerate() {
                    levels[4 * four + i].0[lane] = *l;
                }
            }
        }
        let mut fit = Fit::NONE;
        for i in 0..32 {
            fit.add(weights[i], lanes[i], levels[i]);
        }
        best = best.replaced(fit.beats(best), fit);
    }
    max.below(Vector::all(TINY)).pick(Vector::ZERO, best.scale()).0
}

/// The weights of a block.
#[inline(always)]
fn weights(x: &[f32; 256], important: Option<&Importance<'_>>) -> [f32; 256] {
    let Some(important) = important else { return x.map(|x| x * x) };
    let spread = Vector([2.0 * squares(x) / 256.0]);
    weighted(&x.map(|x| Vector([x])), &side_by_side(important.weights), spread).map(|w| w.0[0])
}

impl Encode<256> for IQ3_S {
    #[inline(always)]
    fn encode<const W: usize>(x: &[f32; 256], important: Option<&Importance<'_>>) -> Self {
        let near = near();
        let (magnitudes, w) = (x.map(f32::abs), weights(x, important));
        let mut found = [0.0; 8];
        for g in (0..8).step_by(W) {
            found[g..g + W].copy_from_slice(&scales::<W>(near, &magnitudes, &w, g));
        }
        let max = found.iter().fold(0.0f32, |a, b| if *b > a { *b } else { a });
        let mut block = IQ3_S { d: [0; 2], qs: [0; 64], qh: [0; 8], signs: [0; 32], scales: [0; 4] };
        if max < TINY {
            return block;
        }
        let d = max / 31.0;
        block.d = to_f16(d);
        for (g, (x, w)) in magnitudes.as_chunks().0.iter().zip(w.as_chunks().0).enumerate() {
            let l = nearest(0.5 * (found[g] / d - 1.0), 0.0, 15.0);
            block.scales[g / 2] |= (l as u8) << (g % 2 * 4);
            let inverse = 1.0 / (f16(block.d) * (2 * l + 1) as f32);
            for (i, row) in rows(near, x, w, if inverse.is_finite() { inverse } else { 0.0 }).iter().enumerate() {
                block.qs[8 * g + i] = *row as u8;
                block.qh[g] |= ((row >> 8) as u8) << i;
            }
        }
        for (signs, x) in block.signs.iter_mut().zip(x.as_chunks::<8>().0) {
            *signs = (0..8).fold(0, |signs, i| signs | u8::from(x[i] < 0.0) << i);
        }
        block
    }
}
