//! Q4_1: 32 elements of 4 bits, f16 scale and minimum. `block_q4_1`.

use bytemuck::{Pod, Zeroable};

use super::encode::{Importance, affine_block};
use super::half::{f16, to_f16};
use super::planes::{Planes, join, put};
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
    fn encode(values: &[f32; 32]) -> Self {
        let (min, max) = range(values);
        let d = (max - min) / 15.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        let q = |x: f32| (((x - min) * inverse + 0.5) as i8).min(15) as u8;
        let qs = std::array::from_fn(|i| q(values[i]) | q(values[i + 16]) << 4);
        Q4_1 { d: to_f16(d), m: to_f16(min), qs }
    }

    fn encode_for(values: &[f32; 32], important: &Importance<'_>) -> Self {
        let (d, min, q) = affine_block(values, important, 15);
        Q4_1 { d: to_f16(d), m: to_f16(-min), qs: std::array::from_fn(|i| q[i] | q[i + 16] << 4) }
    }
}

/// The smallest and the largest value.
pub(super) fn range(values: &[f32; 32]) -> (f32, f32) {
    values.iter().fold((f32::MAX, f32::MIN), |(min, max), x| (min.min(*x), max.max(*x)))
}
