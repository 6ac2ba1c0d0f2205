//! Q4_0: 32 elements of 4 bits around 8, one f16 scale. `block_q4_0`.

use bytemuck::{Pod, Zeroable};

use super::encode::{Importance, extreme, signed_blocks, truncated};
use super::half::{f16, to_f16};
use super::planes::{Planes, put};
use super::{Block, Encode, Groups};

/// 32 elements: element `i` is `d * (q - 8)` with `q` the low nibble of `qs[i]`, element `i + 16` the high one.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[allow(non_camel_case_types, reason = "the field writes Q4_0, and so do the files")]
#[repr(C)]
pub struct Q4_0 {
    /// f16 scale.
    pub d: [u8; 2],
    /// Two elements in a byte.
    pub qs: [u8; 16],
}

impl Block for Q4_0 {
    const USUAL: (f32, f32) = (4.3e-3, 0.0);

    fn groups(&self, out: &mut Groups) {
        out.scales[0] = f16(self.d);
        for (i, q) in self.qs.into_iter().enumerate() {
            out.quants[i] = (q & 15) as i8 - 8;
            out.quants[i + 16] = (q >> 4) as i8 - 8;
        }
    }

    fn planes(&self, planes: &mut Planes) {
        put(planes, &self.qs, &self.d, &[], &[]);
    }

    fn set_scale(&mut self, scale: f32, _min: f32) {
        self.d = to_f16(scale);
    }
}

impl Encode<32> for Q4_0 {
    const ONE_GROUP: bool = true;

    #[inline(always)]
    fn encode<const W: usize>(x: &[f32; 32], important: Option<&Importance<'_>>) -> Self {
        if let Some(important) = important {
            let ([d], [q]) = signed_blocks(&[*x], &[*important], 8.0);
            return Q4_0 { d: to_f16(d), qs: nibbles(&q) };
        }
        let d = extreme(x) / -8.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        let mut q = [0; 32];
        for i in 0..32 {
            q[i] = truncated(x[i] * inverse + 8.5, -128.0, 15.0) as u8;
        }
        Q4_0 { d: to_f16(d), qs: nibbles(&q) }
    }

    #[inline(always)]
    fn encode_several<const W: usize>(
        x: &[[f32; 32]; W],
        important: Option<&[Importance<'_>; W]>,
        out: &mut [Self; W],
    ) {
        let Some(important) = important else { return super::each(x, out) };
        let (d, q) = signed_blocks(x, important, 8.0);
        for block in 0..W {
            out[block] = Q4_0 { d: to_f16(d[block]), qs: nibbles(&q[block]) };
        }
    }
}

/// Two elements of four bits in a byte.
#[inline(always)]
pub(super) fn nibbles(q: &[u8; 32]) -> [u8; 16] {
    let mut out = [0; 16];
    for i in 0..16 {
        out[i] = q[i] | q[i + 16] << 4;
    }
    out
}
