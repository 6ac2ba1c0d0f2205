//! Q2_0: 64 elements of 2 bits around 1, one f16 scale. `block_q2_0`.

use bytemuck::{Pod, Zeroable};

use super::half::{f16, to_f16};
use super::planes::{Planes, n2, put};
use super::{Block, Groups};

/// 64 elements `d * (q - 1)`, four in a byte, the first in the lowest bits.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[allow(non_camel_case_types, reason = "the field writes Q2_0, and so do the files")]
#[repr(C)]
pub struct Q2_0 {
    /// f16 scale.
    pub d: [u8; 2],
    /// Four elements in a byte.
    pub qs: [u8; 16],
}

impl Block for Q2_0 {
    const USUAL: (f32, f32) = (1.6e-2, 0.0);

    fn groups(&self, out: &mut Groups) {
        out.scales[..2].fill(f16(self.d));
        for (i, out) in out.quants[..64].iter_mut().enumerate() {
            *out = (self.qs[i / 4] >> (i % 4 * 2) & 3) as i8 - 1;
        }
    }

    fn planes(&self, planes: &mut Planes) {
        for u in 0..2 {
            let q = std::array::from_fn(|i| self.qs[8 * u + i / 4] >> (i % 4 * 2));
            put(planes, &n2(&q), &[], &[], &[]);
        }
        planes[3].extend_from_slice(&self.d);
    }

    fn set_scale(&mut self, scale: f32, _min: f32) {
        self.d = to_f16(scale);
    }
}
