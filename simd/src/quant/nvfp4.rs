//! NVFP4: 64 elements of 4-bit floats (E2M1), a scale of 8 bits (E4M3) for 16 each. `block_nvfp4`.

use bytemuck::{Pod, Zeroable};

use super::mxfp4::STEPS;
use super::planes::{Planes, n4, put};
use super::{Block, Groups};

/// 64 elements in 4 groups of 16: `scale * STEPS[q]`. Element `i` of group `g` is the low nibble of `qs[8 g + i]`, element
/// `i + 8` the high one.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[allow(non_camel_case_types, reason = "the field writes NVFP4, and so do the files")]
#[repr(C)]
pub struct NVFP4 {
    /// The scale of each group: 4 bits of exponent, 3 of mantissa; the sign is passed over.
    pub d: [u8; 4],
    /// Two elements in a byte.
    pub qs: [u8; 32],
}

impl NVFP4 {
    fn nibble(&self, i: usize) -> u8 {
        self.qs[i / 16 * 8 + i % 8] >> (i % 16 / 8 * 4) & 15
    }
}

/// Half of what each E4M3 stands for, since the steps are doubled. 0x7f, a NaN, is 0 as ggml has it.
pub(crate) const SCALES: [f32; 256] = {
    let mut scales = [0.0; 256];
    let mut d = 0;
    while d < 256 {
        let (exponent, mantissa) = (d as u32 >> 3 & 15, d as u32 & 7);
        scales[d] = match (d, exponent) {
            (0x7f, _) => 0.0,
            (_, 0) => mantissa as f32 / 1024.0,
            _ => f32::from_bits((127 + exponent - 8) << 23 | mantissa << 20),
        };
        d += 1;
    }
    scales
};

impl Block for NVFP4 {
    const USUAL: (f32, f32) = (3.4e-3, 0.0);

    fn groups(&self, out: &mut Groups) {
        for (g, d) in self.d.into_iter().enumerate() {
            out.scales[g] = SCALES[usize::from(d)];
        }
        for (i, out) in out.quants[..64].iter_mut().enumerate() {
            *out = STEPS[usize::from(self.nibble(i))];
        }
    }

    fn planes(&self, planes: &mut Planes) {
        for u in 0..2 {
            let q = std::array::from_fn(|i| self.nibble(32 * u + i));
            put(planes, &n4(&q), &self.d[2 * u..2 * (u + 1)], &[], &[]);
        }
    }

    /// Scales up to 224, rounded towards 0; larger ones become that.
    fn set_scale(&mut self, scale: f32, _min: f32) {
        let twice = (2.0 * scale.abs()).min(448.0);
        let bits = twice.to_bits();
        // Multiples of 2^-9 below 2^-6, else an exponent and three bits of mantissa.
        let d = if twice < 0.015_625 { (twice * 512.0) as u32 } else { ((bits >> 23) + 7 - 127) << 3 | bits >> 20 & 7 };
        self.d = [d.min(0x7e) as u8; 4];
    }
}
