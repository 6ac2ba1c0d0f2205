//! Q8_0: 32 elements of 8 bits, one f16 scale. `block_q8_0`. Also the form that activations are rounded to.

use bytemuck::{Pod, Zeroable};

use super::encode::{Importance, magnitude, rounded};
use super::half::{f16, to_f16};
use super::planes::{Planes, put};
use super::{Block, Encode, Groups};

/// 32 elements `d * qs[i]`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[allow(non_camel_case_types, reason = "the field writes Q8_0, and so do the files")]
#[repr(C)]
pub struct Q8_0 {
    /// f16 scale.
    pub d: [u8; 2],
    /// One element in a byte, -127 to 127 (-128 occurs in no encoder's output, but decodes).
    pub qs: [i8; 32],
}

impl Block for Q8_0 {
    const USUAL: (f32, f32) = (2.7e-4, 0.0);

    fn groups(&self, out: &mut Groups) {
        out.scales[0] = f16(self.d);
        out.quants[..32].copy_from_slice(&self.qs);
    }

    fn planes(&self, planes: &mut Planes) {
        put(planes, bytemuck::cast_slice(&self.qs), &self.d, &[], &[]);
    }

    fn set_scale(&mut self, scale: f32, _min: f32) {
        self.d = to_f16(scale);
    }
}

impl Encode<32> for Q8_0 {
    /// `d` is the largest magnitude over 127; elements are divided by the unrounded `d` and rounded half away from zero.
    #[inline(always)]
    fn encode<const W: usize>(x: &[f32; 32], _: Option<&Importance<'_>>) -> Self {
        let d = magnitude(x) / 127.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        let mut qs = [0; 32];
        for i in 0..32 {
            qs[i] = rounded(x[i] * inverse, -128.0, 127.0) as i8;
        }
        Q8_0 { d: to_f16(d), qs }
    }
}
