//! Encoders that search: scales and integers by which a block's weighted error is small. Weights are those of an importance
//! matrix, else of the values themselves. Simple types have their encoders beside their decoders.
//!
//! Groups are searched side by side (`lanes`): those of a block, or of several blocks that are one group each. Encoders are
//! inlined into `encode_blocks`, which is compiled for several instruction sets (`encoders.rs`) and whose result
//! depends neither on them nor on how many groups there are at once.

mod grid;
mod k;
mod lanes;
mod plain;
mod search;
mod uneven;

use super::Encode;
use lanes::{Vector, nearest, side_by_side};
pub(super) use lanes::{rounded, truncated};
use search::{Trials, affine, signed, weighted};

/// Groups that are searched side by side: eight floats are a vector of AVX2. A page encodes nothing large, and is to be small.
pub const SIDE_BY_SIDE: usize = if cfg!(target_arch = "wasm32") { 1 } else { 8 };

/// What of a block's row is important.
#[derive(Debug, Clone, Copy)]
pub struct Importance<'a> {
    /// A weight for each element of the block.
    pub weights: &'a [f32],
    /// The mean of the squares of the row's values, or of the block's if it has several groups.
    pub mean_square: f32,
}

/// The scales that are tried where some values are more important than others.
const IMPORTANT: Trials = Trials { from: -0.9, step: 0.05, n: 36, magnitudes: false };

/// Lanes of [`magnitude`] and the like, whose order does not matter.
const LANES: usize = 8;

/// The largest magnitude; 0 for no number.
#[inline(always)]
pub(super) fn magnitude<const LEN: usize>(x: &[f32; LEN]) -> f32 {
    let mut max = [0.0f32; LANES];
    for eight in x.as_chunks::<LANES>().0 {
        for i in 0..LANES {
            let magnitude = eight[i].abs();
            max[i] = if magnitude > max[i] { magnitude } else { max[i] };
        }
    }
    for half in [4, 2, 1] {
        for i in 0..half {
            max[i] = if max[i + half] > max[i] { max[i + half] } else { max[i] };
        }
    }
    max[0]
}

/// The value of largest magnitude with its sign, the first of equals; 0 for no number.
#[inline(always)]
pub(super) fn extreme<const LEN: usize>(x: &[f32; LEN]) -> f32 {
    let max = magnitude(x);
    let (mut above, mut below) = ([0; LANES], [0; LANES]);
    for eight in x.as_chunks::<LANES>().0 {
        for i in 0..LANES {
            above[i] |= u32::from(eight[i] == max);
            below[i] |= u32::from(eight[i] == -max);
        }
    }
    match (above != [0; LANES], below != [0; LANES]) {
        _ if max == 0.0 => 0.0,
        (true, true) => x.iter().copied().find(|x| x.abs() == max).unwrap_or(max),
        (false, true) => -max,
        _ => max,
    }
}

/// The sum of squares.
#[inline(always)]
fn squares(x: &[f32]) -> f32 {
    x.iter().map(|x| x * x).sum()
}

/// Blocks of 32 by important values and spreads: the values and their weights.
#[inline(always)]
fn important<const W: usize>(
    x: &[[f32; 32]; W],
    important: &[Importance<'_>; W],
) -> ([Vector<W>; 32], [Vector<W>; 32]) {
    let mut weights = [[0.0; 32]; W];
    let mut spread = Vector::ZERO;
    for lane in 0..W {
        weights[lane].copy_from_slice(important[lane].weights);
        spread.0[lane] = important[lane].mean_square;
    }
    let x = side_by_side(x.as_flattened());
    (x, weighted(&x, &side_by_side(weights.as_flattened()), spread))
}

/// Blocks of 32 by important values: their scales, and integers from 0 to `2 n - 1`, `n` standing for 0.
#[inline(always)]
pub(super) fn signed_blocks<const W: usize>(
    x: &[[f32; 32]; W],
    i: &[Importance<'_>; W],
    n: f32,
) -> ([f32; W], [[u8; 32]; W]) {
    let (lanes, w) = important(x, i);
    let found = signed(&lanes, &w, n);
    let mut levels = [[0; 32]; W];
    for block in 0..W {
        for k in 0..32 {
            levels[block][k] = (nearest(found.inverse.0[block] * x[block][k], -n, n - 1.0) + n as i32) as u8;
        }
    }
    (found.scale.0, levels)
}

/// The same with minima that are subtracted, and integers from 0 to `n`.
#[inline(always)]
pub(super) fn affine_blocks<const W: usize>(
    x: &[[f32; 32]; W],
    i: &[Importance<'_>; W],
    n: f32,
) -> ([f32; W], [f32; W], [[u8; 32]; W]) {
    let (lanes, w) = important(x, i);
    let found = affine(&lanes, &w, n, IMPORTANT);
    let mut levels = [[0; 32]; W];
    for block in 0..W {
        let (inverse, from) = (found.inverse.0[block], found.from.0[block]);
        for k in 0..32 {
            levels[block][k] = nearest(inverse * (x[block][k] - from), 0.0, n) as u8;
        }
    }
    (found.scale.0, found.min.0, levels)
}

/// Weights of the columns of some rows.
#[derive(Clone, Copy)]
struct Rows<'a> {
    weights: &'a [f32],
    /// The mean square of each row, where it is asked for.
    means: &'a [f32],
}

impl<'a> Rows<'a> {
    /// What is important of block `i` of the rows.
    #[inline(always)]
    fn of<const LEN: usize>(self, i: usize, x: &[f32; LEN]) -> Importance<'a> {
        let each = self.weights.len() / LEN;
        let weights = &self.weights[i % each * LEN..][..LEN];
        let mean_square = if self.means.is_empty() { squares(x) / LEN as f32 } else { self.means[i / each] };
        Importance { weights, mean_square }
    }
}

/// Encodes whole blocks, or whole rows whose columns have the weights `important`, `W` groups at once.
#[inline(always)]
pub fn encode_blocks<const W: usize, const LEN: usize, B: Encode<LEN>>(
    values: &[f32],
    important: Option<&[f32]>,
    out: &mut [u8],
) {
    let blocks = values.as_chunks::<LEN>().0;
    let out: &mut [B] = bytemuck::cast_slice_mut(out);
    let weights = important.filter(|weights| weights.len() >= LEN);
    let mean = |row: &[f32]| squares(row) / row.len() as f32;
    let means: Vec<f32> = match weights.filter(|_| B::ONE_GROUP) {
        Some(weights) => values.chunks_exact(weights.len()).map(mean).collect(),
        None => Vec::new(),
    };
    let rows = weights.map(|weights| Rows { weights, means: &means });
    let mut done = 0;
    if B::ONE_GROUP {
        let (at_once, outs) = (blocks.as_chunks::<W>().0, out.as_chunks_mut::<W>().0);
        done = at_once.len() * W;
        for (i, (x, out)) in at_once.iter().zip(outs).enumerate() {
            let important = rows.map(|rows| {
                let mut all = [Importance { weights: &[], mean_square: 0.0 }; W];
                for lane in 0..W {
                    all[lane] = rows.of(i * W + lane, &x[lane]);
                }
                all
            });
            B::encode_several(x, important.as_ref(), out);
        }
    }
    for i in done..blocks.len().min(out.len()) {
        let important = rows.map(|rows| rows.of(i, &blocks[i]));
        out[i] = B::encode::<W>(&blocks[i], important.as_ref());
    }
}
