//! Q4_K: 256 elements of 4 bits, eight 6-bit scales and minima. `block_q4_K`.

use bytemuck::{Pod, Zeroable};

use super::half::{f16, to_f16};
use super::planes::{Planes, join, n4, put};
use super::{Block, Groups};

/// 256 elements in 8 groups of 32: `(d * scale) * q - dmin * min`.
///
/// Groups `2 n` and `2 n + 1` are the low and the high nibbles of `qs[32 n..32 n + 32]`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[allow(non_camel_case_types, reason = "the field writes Q4_K, and so do the files")]
#[repr(C)]
pub struct Q4_K {
    /// f16 scale of the scales.
    pub d: [u8; 2],
    /// f16 scale of the minima.
    pub dmin: [u8; 2],
    /// Eight 6-bit scales and minima: see [`scale_min`].
    pub scales: [u8; 12],
    /// Two elements in a byte.
    pub qs: [u8; 128],
}

/// The scale and the minimum of group `g` (0 to 7) of Q4_K and Q5_K, 0 to 63 each (ggml's `get_scale_min_k4`).
///
/// Groups 0 to 3 have theirs in the low six bits of bytes `g` and `g + 4`; groups 4 to 7 in the nibbles of byte `g + 4`,
/// their upper two bits in the top of bytes `g - 4` and `g`.
#[inline]
pub fn scale_min(g: usize, scales: &[u8; 12]) -> (u8, u8) {
    if g < 4 {
        (scales[g] & 63, scales[g + 4] & 63)
    } else {
        let both = scales[g + 4];
        (both & 15 | scales[g - 4] >> 6 << 4, both >> 4 | scales[g] >> 6 << 4)
    }
}

impl Block for Q4_K {
    const USUAL: (f32, f32) = (1e-4, 7.5e-4);

    fn groups(&self, out: &mut Groups) {
        let (d, dmin) = (f16(self.d), f16(self.dmin));
        for (g, quants) in out.quants.chunks_exact_mut(32).enumerate() {
            let (scale, min) = scale_min(g, &self.scales);
            (out.scales[g], out.mins[g]) = (d * f32::from(scale), dmin * f32::from(min));
            for (out, q) in quants.iter_mut().zip(&self.qs[g / 2 * 32..]) {
                *out = (q >> (g % 2 * 4) & 15) as i8;
            }
        }
    }

    fn planes(&self, planes: &mut Planes) {
        for u in 0..8 {
            let q = std::array::from_fn(|i| self.qs[u / 2 * 32 + i] >> (u % 2 * 4));
            let (scale, min) = scale_min(u, &self.scales);
            put(planes, &n4(&q), &[scale, min], &[], &[]);
        }
        planes[3].extend_from_slice(&join(self.d, self.dmin));
    }

    fn set_scale(&mut self, scale: f32, min: f32) {
        (self.d, self.dmin) = (to_f16(scale), to_f16(min));
    }
}
