//! Q5_1: 32 elements of 5 bits, f16 scale and minimum. `block_q5_1`.

use bytemuck::{Pod, Zeroable};

use super::encode::{Importance, affine_blocks, truncated};
use super::half::{f16, to_f16};
use super::planes::{self, Planes, put};
use super::q4_1::range;
use super::q5_0::{join, part};
use super::{Block, Encode, Groups};

/// 32 elements `d * q + m`, the bits of `q` as in Q5_0.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[allow(non_camel_case_types, reason = "the field writes Q5_1, and so do the files")]
#[repr(C)]
pub struct Q5_1 {
    /// f16 scale.
    pub d: [u8; 2],
    /// f16 minimum.
    pub m: [u8; 2],
    /// The fifth bits, a little-endian `u32`.
    pub qh: [u8; 4],
    /// The low four bits, two elements in a byte.
    pub qs: [u8; 16],
}

impl Block for Q5_1 {
    const USUAL: (f32, f32) = (2.2e-3, -3.4e-2);

    fn groups(&self, out: &mut Groups) {
        (out.scales[0], out.mins[0]) = (f16(self.d), -f16(self.m));
        for (out, q) in out.quants.iter_mut().zip(join(&self.qs, self.qh)) {
            *out = q as i8;
        }
    }

    fn planes(&self, planes: &mut Planes) {
        put(planes, &self.qs, &planes::join(self.d, self.m), &self.qh, &[]);
    }

    fn set_scale(&mut self, scale: f32, min: f32) {
        (self.d, self.m) = (to_f16(scale), to_f16(min));
    }
}

impl Encode<32> for Q5_1 {
    const ONE_GROUP: bool = true;

    #[inline(always)]
    fn encode<const W: usize>(x: &[f32; 32], important: Option<&Importance<'_>>) -> Self {
        if let Some(important) = important {
            let ([d], [min], [q]) = affine_blocks(&[*x], &[*important], 31.0);
            let (qs, qh) = part(&q);
            return Q5_1 { d: to_f16(d), m: to_f16(-min), qh, qs };
        }
        let (min, max) = range(x);
        let d = (max - min) / 31.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        let mut q = [0; 32];
        for i in 0..32 {
            q[i] = truncated((x[i] - min) * inverse + 0.5, 0.0, 31.0) as u8;
        }
        let (qs, qh) = part(&q);
        Q5_1 { d: to_f16(d), m: to_f16(min), qh, qs }
    }

    #[inline(always)]
    fn encode_several<const W: usize>(
        x: &[[f32; 32]; W],
        important: Option<&[Importance<'_>; W]>,
        out: &mut [Self; W],
    ) {
        let Some(important) = important else { return super::each(x, out) };
        let (d, min, q) = affine_blocks(x, important, 31.0);
        for block in 0..W {
            let (qs, qh) = part(&q[block]);
            out[block] = Q5_1 { d: to_f16(d[block]), m: to_f16(-min[block]), qh, qs };
        }
    }
}
