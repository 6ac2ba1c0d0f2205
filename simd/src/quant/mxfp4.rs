//! MXFP4: 32 elements of 4-bit floats (E2M1), one power of two (E8M0). `block_mxfp4`; the OCP
//! Microscaling Formats specification, 1.0.

use bytemuck::{Pod, Zeroable};

use super::planes::{Planes, put};
use super::{Block, Groups};

/// 32 elements: element `i` is `2^(e - 128) * STEPS[q]` with `q` the low nibble of `qs[i]`, element `i + 16` the high one.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[allow(non_camel_case_types, reason = "the field writes MXFP4, and so do the files")]
#[repr(C)]
pub struct MXFP4 {
    /// The power of two, 127 standing for 1.
    pub e: u8,
    /// Two elements in a byte.
    pub qs: [u8; 16],
}

/// Twice what the sixteen nibbles stand for: 0, 0.5, 1, 1.5, 2, 3, 4, 6, and the same with a sign (ggml's
/// `kvalues_mxfp4`).
pub const STEPS: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half of the power that a byte stands for, since the steps are doubled; the two smallest are subnormal. 255, a NaN by the
/// specification, decodes as ggml has it.
#[inline]
pub fn power(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (u32::from(e) - 1) << 23 })
}

/// The bytes of a block whose bytes hold neighbours, as folders have them.
pub fn of_pairs(pairs: &[u8; 16]) -> [u8; 16] {
    let element = |i: usize| pairs[i / 2] >> (4 * (i % 2)) & 15;
    std::array::from_fn(|i| element(i) | element(i + 16) << 4)
}

impl Block for MXFP4 {
    const USUAL: (f32, f32) = (3.91e-3, 0.0);

    fn groups(&self, out: &mut Groups) {
        out.scales[0] = power(self.e);
        for (i, q) in self.qs.into_iter().enumerate() {
            out.quants[i] = STEPS[usize::from(q & 15)];
            out.quants[i + 16] = STEPS[usize::from(q >> 4)];
        }
    }

    fn planes(&self, planes: &mut Planes) {
        put(planes, &self.qs, &[self.e], &[], &[]);
    }

    /// The power of two at or below the scale's magnitude.
    fn set_scale(&mut self, scale: f32, _min: f32) {
        self.e = ((scale.to_bits() >> 23 & 255) as u8).min(253) + 1;
    }
}
