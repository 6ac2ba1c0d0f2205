//! Q3_K: 256 elements of 3 bits around 4, sixteen 6-bit scales around 32. `block_q3_K`.

use bytemuck::{Pod, Zeroable};

use super::half::{f16, to_f16};
use super::planes::{Planes, n1, n2, put};
use super::{Block, Groups};

/// 256 elements in 16 groups of 16: `(d * (scale - 32)) * (q - 4)`.
///
/// The low two bits of `q` lie in `qs` as in Q2_K; the third of element `i` is bit `i / 32` of `hmask[i % 32]`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[allow(non_camel_case_types, reason = "the field writes Q3_K, and so do the files")]
#[repr(C)]
pub struct Q3_K {
    /// The third bits.
    pub hmask: [u8; 32],
    /// The low two bits, four elements in a byte.
    pub qs: [u8; 64],
    /// Sixteen 6-bit scales: see [`Q3_K::scale`].
    pub scales: [u8; 12],
    /// f16 scale of the scales.
    pub d: [u8; 2],
}

impl Q3_K {
    /// The scale of group `g` (0 to 15): -32 to 31.
    ///
    /// The low four bits are a nibble of `scales[g % 8]`, low for the first eight groups; the upper two bits are bits
    /// `g / 4 * 2` and up of `scales[8 + g % 4]`.
    #[inline]
    pub fn scale(&self, g: usize) -> i8 {
        let low = self.scales[g % 8] >> (g / 8 * 4) & 15;
        let high = self.scales[8 + g % 4] >> (g / 4 * 2) & 3;
        (low | high << 4) as i8 - 32
    }
}

impl Block for Q3_K {
    const USUAL: (f32, f32) = (5e-4, 0.0);

    fn groups(&self, out: &mut Groups) {
        let d = f16(self.d);
        for (g, out) in out.scales.iter_mut().enumerate() {
            *out = d * f32::from(self.scale(g));
        }
        for (i, out) in out.quants.iter_mut().enumerate() {
            let low = self.qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
            let high = self.hmask[i % 32] >> (i / 32) & 1;
            *out = (low | high << 2) as i8 - 4;
        }
    }

    fn planes(&self, planes: &mut Planes) {
        for u in 0..8 {
            let low = std::array::from_fn(|i| self.qs[u / 4 * 32 + i] >> (u % 4 * 2));
            let high = std::array::from_fn(|i| self.hmask[i] >> u);
            let scales = [self.scale(2 * u) as u8, self.scale(2 * u + 1) as u8];
            put(planes, &n2(&low), &scales, &n1(&high), &[]);
        }
        planes[3].extend_from_slice(&self.d);
    }

    fn set_scale(&mut self, scale: f32, _min: f32) {
        self.d = to_f16(scale);
    }
}
