//! Encoders of the types with uneven steps.

use super::super::Encode;
use super::super::half::{f16, to_f16};
use super::super::iq4_nl::{IQ4_NL, STEPS};
use super::super::iq4_xs::IQ4_XS;
use super::lanes::{Vector, nearest, side_by_side};
use super::search::{Fit, TINY, extreme, squares, weighted};
use super::{Importance, extreme as extreme_of, squares as squares_of};

/// From where on a value is nearer to step `i + 1` than to step `i`.
const BOUNDS: [f32; 15] = {
    let mut bounds = [0.0; 15];
    let mut i = 0;
    while i < 15 {
        bounds[i] = (STEPS[i] as f32 + STEPS[i + 1] as f32) / 2.0;
        i += 1;
    }
    bounds
};

/// The uneven steps nearest to values.
#[inline(always)]
fn steps<const W: usize>(x: Vector<W>) -> Vector<W> {
    let mut step = Vector::all(f32::from(STEPS[0]));
    for i in 0..15 {
        let next = Vector::all(f32::from(STEPS[i + 1]));
        step = Vector::all(BOUNDS[i]).at_most(x).pick(next, step);
    }
    step
}

/// The number of the step nearest to a value.
#[inline(always)]
fn step(x: f32) -> u8 {
    let mut step = 0;
    for i in 0..15 {
        step += u32::from(x >= BOUNDS[i]);
    }
    step as u8
}

#[inline(always)]
fn fit<const W: usize>(x: &[Vector<W>; 32], w: &[Vector<W>; 32], inverse: Vector<W>) -> Fit<W> {
    let mut fit = Fit::NONE;
    for i in 0..32 {
        fit.add(w[i], x[i], steps(inverse * x[i]));
    }
    fit
}

/// The scales of groups of 32 on uneven steps.
#[inline(always)]
fn scales<const W: usize>(x: &[Vector<W>; 32], w: &[Vector<W>; 32]) -> Vector<W> {
    let max = extreme(x);
    let lowest = f32::from(STEPS[0]);
    let mut best = Fit::NONE;
    for trial in -8..=7 {
        // The first one is the extreme value on the last step.
        let at = if trial == -8 { -lowest } else { trial as f32 + lowest };
        let tried = fit(x, w, Vector::all(at) / max);
        best = if trial == -8 { tried } else { best.replaced(tried.beats(best), tried) };
    }
    max.abs().below(Vector::all(TINY)).pick(Vector::ZERO, best.scale())
}

/// The weights of groups of 32: `spread` is twice the mean square of their block.
#[inline(always)]
fn weights<const W: usize>(
    x: &[Vector<W>; 32],
    important: Option<[Vector<W>; 32]>,
    spread: Vector<W>,
) -> [Vector<W>; 32] {
    match important {
        Some(important) => weighted(x, &important, spread),
        None => {
            let mut w = [Vector::ZERO; 32];
            for i in 0..32 {
                w[i] = x[i] * x[i];
            }
            w
        }
    }
}

/// Sixteen bytes of nibbles of 32 values.
#[inline(always)]
fn nibbles(x: &[f32; 32], scale: f32, out: &mut [u8; 16]) {
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let mut all = [0; 32];
    for i in 0..32 {
        all[i] = step(inverse * x[i]);
    }
    for i in 0..16 {
        out[i] = all[i] | all[i + 16] << 4;
    }
}

impl Encode<32> for IQ4_NL {
    const ONE_GROUP: bool = true;

    #[inline(always)]
    fn encode<const W: usize>(x: &[f32; 32], important: Option<&Importance<'_>>) -> Self {
        let mut out = [IQ4_NL { d: [0; 2], qs: [0; 16] }];
        Self::encode_several(&[*x], important.map(|i| [*i]).as_ref(), &mut out);
        out[0]
    }

    #[inline(always)]
    fn encode_several<const W: usize>(
        x: &[[f32; 32]; W],
        important: Option<&[Importance<'_>; W]>,
        out: &mut [Self; W],
    ) {
        let lanes = side_by_side::<W, 32>(x.as_flattened());
        let important = important.map(|important| {
            let mut all = [[0.0; 32]; W];
            for lane in 0..W {
                all[lane].copy_from_slice(important[lane].weights);
            }
            side_by_side(all.as_flattened())
        });
        let spread = Vector::all(2.0) * squares(&lanes) / Vector::all(32.0);
        let found = scales(&lanes, &weights(&lanes, important, spread));
        for block in 0..W {
            out[block].d = to_f16(found.0[block]);
            nibbles(&x[block], found.0[block], &mut out[block].qs);
        }
    }
}

impl Encode<256> for IQ4_XS {
    #[inline(always)]
    fn encode<const W: usize>(x: &[f32; 256], important: Option<&Importance<'_>>) -> Self {
        let spread = if important.is_some() { 2.0 * squares_of(x) / 256.0 } else { 0.0 };
        let mut found = [0.0; 8];
        for g in (0..8).step_by(W) {
            let lanes = side_by_side::<W, 32>(&x[32 * g..]);
            let important = important.map(|i| side_by_side(&i.weights[32 * g..]));
            let w = weights(&lanes, important, Vector::all(spread));
            found[g..g + W].copy_from_slice(&scales(&lanes, &w).0);
        }
        let max = extreme_of(&found);
        let mut block = IQ4_XS { d: to_f16(max / -32.0), scales_h: [0; 2], scales_l: [0; 4], qs: [0; 128] };
        let d = f16(block.d);
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        let mut high = 0u16;
        for (g, (x, qs)) in x.as_chunks().0.iter().zip(block.qs.as_chunks_mut().0).enumerate() {
            let l = nearest(inverse * found[g], -32.0, 31.0);
            let bits = (l + 32) as u8;
            block.scales_l[g / 2] |= (bits & 15) << (g % 2 * 4);
            high |= u16::from(bits >> 4) << (2 * g);
            nibbles(x, d * l as f32, qs);
        }
        block.scales_h = high.to_le_bytes();
        block
    }
}
