//! Q2_K: 256 elements of 2 bits, sixteen 4-bit scales and minima. `block_q2_K`.

use bytemuck::{Pod, Zeroable};

use super::half::{f16, to_f16};
use super::planes::{Planes, join, n2, put};
use super::{Block, Groups};

/// 256 elements in 16 groups of 16: `(d * scale) * q - dmin * min`.
///
/// The low nibble of `scales[g]` is group `g`'s scale, the high one its minimum. The first 128 elements come from
/// `qs[0..32]`, the others from `qs[32..64]`: of each byte, bits 0-1 belong to the first 32 elements, bits 2-3 to the next
/// 32, and so on.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[allow(non_camel_case_types, reason = "the field writes Q2_K, and so do the files")]
#[repr(C)]
pub struct Q2_K {
    /// Scale (low) and minimum (high nibble) of each 16 elements.
    pub scales: [u8; 16],
    /// Four elements in a byte.
    pub qs: [u8; 64],
    /// f16 scale of the scales.
    pub d: [u8; 2],
    /// f16 scale of the minima.
    pub dmin: [u8; 2],
}

impl Block for Q2_K {
    const USUAL: (f32, f32) = (1.5e-3, 2.2e-3);

    fn groups(&self, out: &mut Groups) {
        let (d, dmin) = (f16(self.d), f16(self.dmin));
        for (g, scale) in self.scales.into_iter().enumerate() {
            out.scales[g] = d * f32::from(scale & 15);
            out.mins[g] = dmin * f32::from(scale >> 4);
        }
        for (i, out) in out.quants.iter_mut().enumerate() {
            *out = (self.qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3) as i8;
        }
    }

    fn planes(&self, planes: &mut Planes) {
        for u in 0..8 {
            let q = std::array::from_fn(|i| self.qs[u / 4 * 32 + i] >> (u % 4 * 2));
            put(planes, &n2(&q), &self.scales[2 * u..2 * u + 2], &[], &[]);
        }
        planes[3].extend_from_slice(&join(self.d, self.dmin));
    }

    fn set_scale(&mut self, scale: f32, min: f32) {
        (self.d, self.dmin) = (to_f16(scale), to_f16(min));
    }
}
