//! Q5_K: 256 elements of 5 bits, eight 6-bit scales and minima. `block_q5_K`.

use bytemuck::{Pod, Zeroable};

use super::half::f16;
use super::{Block, scale_min};
use crate::dtype::DType;

/// 256 elements in 8 groups of 32: `(d * scale) * q - dmin * min`.
///
/// The low four bits of `q` lie as in Q4_K; the fifth of element `i` of group `g` is bit `g` of `qh[i]`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[allow(non_camel_case_types, reason = "the field writes Q5_K, and so do the files")]
#[repr(C)]
pub struct Q5_K {
    /// f16 scale of the scales.
    pub d: [u8; 2],
    /// f16 scale of the minima.
    pub dmin: [u8; 2],
    /// Eight 6-bit scales and minima: see [`scale_min`].
    pub scales: [u8; 12],
    /// The fifth bits, eight elements in a byte.
    pub qh: [u8; 32],
    /// The low four bits, two elements in a byte.
    pub qs: [u8; 128],
}

impl Block<256> for Q5_K {
    const DTYPE: DType = DType::Q5_K;

    fn decode(&self, out: &mut [f32; 256]) {
        let (d, dmin) = (f16(self.d), f16(self.dmin));
        for (g, out) in out.chunks_exact_mut(32).enumerate() {
            let (scale, min) = scale_min(g, &self.scales);
            let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
            for (i, out) in out.iter_mut().enumerate() {
                let low = self.qs[g / 2 * 32 + i] >> (g % 2 * 4) & 15;
                let high = self.qh[i] >> g & 1;
                *out = scale * f32::from(low | high << 4) - min;
            }
        }
    }
}
