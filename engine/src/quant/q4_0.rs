//! Q4_0: 32 elements of 4 bits around 8, one f16 scale. `block_q4_0`.

use bytemuck::{Pod, Zeroable};

use super::encode::{Importance, signed_block};
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
    fn encode(values: &[f32; 32]) -> Self {
        let d = extreme(values) / -8.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        let q = |x: f32| ((x * inverse + 8.5) as i8).min(15) as u8;
        Q4_0 { d: to_f16(d), qs: std::array::from_fn(|i| q(values[i]) | q(values[i + 16]) << 4) }
    }

    fn encode_for(values: &[f32; 32], important: &Importance<'_>) -> Self {
        let (d, q) = signed_block(values, important, 8);
        Q4_0 { d: to_f16(d), qs: std::array::from_fn(|i| q[i] | q[i + 16] << 4) }
    }
}

/// The value of largest magnitude (the first of equals), with its sign.
pub(super) fn extreme(values: &[f32; 32]) -> f32 {
    values.iter().fold(0.0, |max: f32, x| if x.abs() > max.abs() { *x } else { max })
}
