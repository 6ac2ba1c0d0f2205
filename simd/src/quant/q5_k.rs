//! Q5_K: 256 elements of 5 bits, eight 6-bit scales and minima. `block_q5_K`.

use bytemuck::{Pod, Zeroable};

use super::half::{f16, to_f16};
use super::planes::{Planes, join, n1, n4, put};
use super::q4_k::scale_min;
use super::{Block, Groups};

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

impl Block for Q5_K {
    const USUAL: (f32, f32) = (6.2e-5, 9.6e-4);

    fn groups(&self, out: &mut Groups) {
        let (d, dmin) = (f16(self.d), f16(self.dmin));
        for (g, quants) in out.quants.chunks_exact_mut(32).enumerate() {
            let (scale, min) = scale_min(g, &self.scales);
            (out.scales[g], out.mins[g]) = (d * f32::from(scale), dmin * f32::from(min));
            for (i, out) in quants.iter_mut().enumerate() {
                let low = self.qs[g / 2 * 32 + i] >> (g % 2 * 4) & 15;
                let high = self.qh[i] >> g & 1;
                *out = (low | high << 4) as i8;
            }
        }
    }

    fn planes(&self, planes: &mut Planes) {
        for u in 0..8 {
            let low = std::array::from_fn(|i| self.qs[u / 2 * 32 + i] >> (u % 2 * 4));
            let high = std::array::from_fn(|i| self.qh[i] >> u);
            let (scale, min) = scale_min(u, &self.scales);
            put(planes, &n4(&low), &[scale, min], &n1(&high), &[]);
        }
        planes[3].extend_from_slice(&join(self.d, self.dmin));
    }

    fn set_scale(&mut self, scale: f32, min: f32) {
        (self.d, self.dmin) = (to_f16(scale), to_f16(min));
    }
}
