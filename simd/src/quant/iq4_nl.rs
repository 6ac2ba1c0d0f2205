//! IQ4_NL: 32 elements of 4 bits that stand for sixteen uneven steps, one f16 scale. `block_iq4_nl`.

use bytemuck::{Pod, Zeroable};

use super::half::{f16, to_f16};
use super::planes::{Planes, put};
use super::{Block, Groups};

/// 32 elements: element `i` is `d * STEPS[q]` with `q` the low nibble of `qs[i]`, element `i + 16` the high one.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[allow(non_camel_case_types, reason = "the field writes IQ4_NL, and so do the files")]
#[repr(C)]
pub struct IQ4_NL {
    /// f16 scale.
    pub d: [u8; 2],
    /// Two elements in a byte.
    pub qs: [u8; 16],
}

/// What the sixteen nibbles stand for (ggml's `kvalues_iq4nl`).
pub const STEPS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

impl Block for IQ4_NL {
    const USUAL: (f32, f32) = (2.9e-4, 0.0);

    fn groups(&self, out: &mut Groups) {
        out.scales[0] = f16(self.d);
        for (i, q) in self.qs.into_iter().enumerate() {
            out.quants[i] = STEPS[usize::from(q & 15)];
            out.quants[i + 16] = STEPS[usize::from(q >> 4)];
        }
    }

    fn planes(&self, planes: &mut Planes) {
        put(planes, &self.qs, &self.d, &[], &[]);
    }

    fn set_scale(&mut self, scale: f32, _min: f32) {
        self.d = to_f16(scale);
    }
}
