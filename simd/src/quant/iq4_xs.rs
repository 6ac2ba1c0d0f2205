//! IQ4_XS: 256 elements of 4 bits on the steps of IQ4_NL, eight 6-bit scales. `block_iq4_xs`.

use bytemuck::{Pod, Zeroable};

use super::half::{f16, to_f16};
use super::iq4_nl::STEPS;
use super::planes::{Planes, put};
use super::{Block, Groups};

/// 256 elements in 8 groups of 32: `(d * (scale - 32)) * STEPS[q]`, a group's nibbles as in IQ4_NL.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[allow(non_camel_case_types, reason = "the field writes IQ4_XS, and so do the files")]
#[repr(C)]
pub struct IQ4_XS {
    /// f16 scale of the scales.
    pub d: [u8; 2],
    /// The scales' upper two bits, those of group 0 lowest.
    pub scales_h: [u8; 2],
    /// The scales' low four bits, two in a byte.
    pub scales_l: [u8; 4],
    /// Two elements in a byte.
    pub qs: [u8; 128],
}

impl IQ4_XS {
    /// The scale of group `g` (0 to 7): -32 to 31.
    fn scale(&self, g: usize) -> i8 {
        let low = self.scales_l[g / 2] >> (g % 2 * 4) & 15;
        let high = (u16::from_le_bytes(self.scales_h) >> (2 * g) & 3) as u8;
        (low | high << 4) as i8 - 32
    }
}

impl Block for IQ4_XS {
    const USUAL: (f32, f32) = (1.6e-5, 0.0);

    fn groups(&self, out: &mut Groups) {
        let d = f16(self.d);
        for g in 0..8 {
            out.scales[g] = d * f32::from(self.scale(g));
            for (i, q) in self.qs[16 * g..16 * (g + 1)].iter().enumerate() {
                out.quants[32 * g + i] = STEPS[usize::from(q & 15)];
                out.quants[32 * g + i + 16] = STEPS[usize::from(q >> 4)];
            }
        }
    }

    fn planes(&self, planes: &mut Planes) {
        for u in 0..8 {
            put(planes, &self.qs[16 * u..16 * (u + 1)], &[self.scale(u) as u8], &[], &[]);
        }
        planes[3].extend_from_slice(&self.d);
    }

    fn set_scale(&mut self, scale: f32, _min: f32) {
        self.d = to_f16(scale);
    }
}
