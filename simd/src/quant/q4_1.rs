//! Q4_1: 32 elements of 4 bits, f16 scale and minimum. `block_q4_1`.

use bytemuck::{Pod, Zeroable};

use super::encode::{Importance, affine_blocks, truncated};
use super::half::{f16, to_f16};
use super::planes::{Planes, join, put};
use super::q4_0::nibbles;
use super::{Block, Encode, Groups};

/// 32 elements: element `i` is `d * q + m` with `q` the low nibble of `qs[i]`, element `i + 16` the high one.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[allow(non_camel_case_types, reason = "the field writes Q4_1, and so do the files")]
#[repr(C)]
pub struct Q4_1 {
    /// f16 scale.
    pub d: [u8; 2],
    /// f16 minimum.
    pub m: [u8; 2],
    /// Two elements in a byte.
    pub qs: [u8; 16],
}

impl Block for Q4_1 {
    const USUAL: (f32, f32) = (4.3e-3, -3.2e-2);

    fn groups(&self, out: &mut Groups) {
        (out.scales[0], out.mins[0]) = (f16(self.d), -f16(self.m));
        for (i, q) in self.qs.into_iter().enumerate() {
            out.quants[i] = (q & 15) as i8;
            out.quants[i + 16] = (q >> 4) as i8;
        }
    }

    fn planes(&self, planes: &mut Planes) {
        put(planes, &self.qs, &join(self.d, self.m), &[], &[]);
    }

    fn set_scale(&mut self, scale: f32, min: f32) {
        (self.d, self.m) = (to_f16(scale), to_f16(min));
    }
}

impl Encode<32> for Q4_1 {
    const ONE_GROUP: bool = true;

    #[inline(always)]
    fn encode<const W: usize>(x: &[f32; 32], important: Option<&Importance<'_>>) -> Self {
        if let Some(important) = important {
            let ([d], [min], [q]) = affine_blocks(&[*x], &[*important], 15.0);
            return Q4_1 { d: to_f16(d), m: to_f16(-min), qs: nibbles(&q) };
        }
        let (min, max) = range(x);
        let d = (max - min) / 15.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        let mut q = [0; 32];
        for i in 0..32 {
            q[i] = truncated((x[i] - min) * inverse + 0.5, -128.0, 15.0) as u8;
        }
        Q4_1 { d: to_f16(d), m: to_f16(min), qs: nibbles(&q) }
    }

    #[inline(always)]
    fn encode_several<const W: usize>(
        x: &[[f32; 32]; W],
        important: Option<&[Importance<'_>; W]>,
        out: &mut [Self; W],
    ) {
        let Some(important) = important else { return super::each(x, out) };
        let (d, min, q) = affine_blocks(x, important, 15.0);
        for block in 0..W {
            out[block] = Q4_1 { d: to_f16(d[block]), m: to_f16(-min[block]), qs: nibbles(&q[block]) };
        }
    }
}

/// The smallest and the largest value.
#[inline(always)]
pub(super) fn range(x: &[f32; 32]) -> (f32, f32) {
    let (mut min, mut max) = ([f32::MAX; 8], [f32::MIN; 8]);
    for eight in x.as_chunks::<8>().0 {
        for i in 0..8 {
            min[i] = if eight[i] < min[i] { eight[i] } else { min[i] };
            max[i] = if eight[i] > max[i] { eight[i] } else { max[i] };
        }
    }
    let least = min.into_iter().fold(f32::MAX, |a, b| if b < a { b } else { a });
    (least, max.into_iter().fold(f32::MIN, |a, b| if b > a { b } else { a }))
}
