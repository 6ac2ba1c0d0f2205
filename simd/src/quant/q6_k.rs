//! Q6_K: 256 elements of 6 bits around 32, sixteen 8-bit scales. `block_q6_K`.

use bytemuck::{Pod, Zeroable};

use super::half::{f16, to_f16};
use super::planes::{Planes, n2, n4, put};
use super::{Block, Groups};

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

impl Block for Q6_K {
    const USUAL: (f32, f32) = (1.4e-5, 0.0);

    fn groups(&self, out: &mut Groups) {
        let d = f16(self.d);
        for (out, scale) in out.scales.iter_mut().zip(self.scales) {
            *out = d * f32::from(scale);
        }
        for (i, out) in out.quants.iter_mut().enumerate() {
            let (half, i_half) = (i / 128, i % 128);
            let low = self.ql[half * 64 + i % 64] >> (i_half / 64 * 4) & 15;
            let high = self.qh[half * 32 + i % 32] >> (i_half / 32 * 2) & 3;
            *out = (low | high << 4) as i8 - 32;
        }
    }

    fn planes(&self, planes: &mut Planes) {
        for u in 0..8 {
            let (half, i_half) = (u / 4, u % 4 * 32);
            let low = std::array::from_fn(|i| self.ql[half * 64 + (i_half + i) % 64] >> (i_half / 64 * 4));
            let high = std::array::from_fn(|i| self.qh[half * 32 + i] >> (i_half / 32 * 2));
            put(planes, &n4(&low), bytemuck::cast_slice(&self.scales[2 * u..2 * u + 2]), &n2(&high), &[]);
        }
        planes[3].extend_from_slice(&self.d);
    }

    fn set_scale(&mut self, scale: f32, _min: f32) {
        self.d = to_f16(scale);
    }
}
