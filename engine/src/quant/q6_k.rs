//! Q6_K: 256 elements of 6 bits around 32, sixteen 8-bit scales. `block_q6_K`.

use bytemuck::{Pod, Zeroable};

use super::Block;
use super::half::f16;
use crate::dtype::DType;

/// 256 elements in 16 groups of 16: `(d * scale) * (q - 32)`.
///
/// Each half of 128 elements has 64 bytes of `ql` and 32 of `qh`. Elements 0 to 63 of the half take the low nibbles of its
/// `ql` bytes, elements 64 to 127 the high ones; the upper two bits of element `i` are bits `i / 32 * 2` and up of
/// `qh[i % 32]`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[allow(non_camel_case_types, reason = "the field writes Q6_K, and so do the files")]
#[repr(C)]
pub struct Q6_K {
    /// The low four bits, two elements in a byte.
    pub ql: [u8; 128],
    /// The upper two bits, four elements in a byte.
    pub qh: [u8; 64],
    /// The scale of each 16 elements.
    pub scales: [i8; 16],
    /// f16 scale of the scales.
    pub d: [u8; 2],
}

impl Block<256> for Q6_K {
    const DTYPE: DType = DType::Q6_K;

    fn decode(&self, out: &mut [f32; 256]) {
        let d = f16(self.d);
        for (i, out) in out.iter_mut().enumerate() {
            let (half, i_half) = (i / 128, i % 128);
            let low = self.ql[half * 64 + i % 64] >> (i_half / 64 * 4) & 15;
            let high = self.qh[half * 32 + i % 32] >> (i_half / 32 * 2) & 3;
            *out = d * f32::from(self.scales[i / 16]) * f32::from((low | high << 4) as i8 - 32);
        }
    }
}
