//! Q2_K: 256 elements of 2 bits, sixteen 4-bit scales and minima. `block_q2_K`.

use bytemuck::{Pod, Zeroable};

use super::Block;
use super::half::f16;
use crate::dtype::DType;

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

impl Block<256> for Q2_K {
    const DTYPE: DType = DType::Q2_K;

    fn decode(&self, out: &mut [f32; 256]) {
        let (d, dmin) = (f16(self.d), f16(self.dmin));
        for (i, out) in out.iter_mut().enumerate() {
            let scale = self.scales[i / 16];
            let q = self.qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
            *out = d * f32::from(scale & 15) * f32::from(q) - dmin * f32::from(scale >> 4);
        }
    }
}
