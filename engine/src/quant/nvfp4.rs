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

/// Half of what an E4M3 stands for, since the steps are doubled. 0x7f, a NaN, is 0 as ggml has it.
fn scale(d: u8) -> f32 {
    let (exponent, mantissa) = (u32::from(d >> 3 & 15), f32::from(d & 7));
    match (d, exponent) {
        (0x7f, _) => 0.0,
        (_, 0) => mantissa / 1024.0,
        _ => (1.0 + mantissa / 8.0) * f32::from_bits((127 + exponent - 8) << 23),
    }
}

impl Block for NVFP4 {
    const USUAL: (f32, f32) = (3.4e-3, 0.0);

    fn groups(&self, out: &mut Groups) {
        for (g, d) in self.d.into_iter().enumerate() {
            out.scales[g] = scale(d);
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

    /// Normal scales from 2^-7 to 224, rounded towards 0; others become the nearest of these.
    fn set_scale(&mut self, scale: f32, _min: f32) {
        let twice = (2.0 * scale.abs()).clamp(0.015_625, 448.0);
        let exponent = (twice.to_bits() >> 23) + 7 - 127;
        self.d = [(exponent << 3 | twice.to_bits() >> 20 & 7).min(0x7e) as u8; 4];
    }
}
