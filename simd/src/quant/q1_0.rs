//! Q1_0: 128 elements of one bit, one f16 scale. `block_q1_0`.

use bytemuck::{Pod, Zeroable};

use super::half::{f16, to_f16};
use super::planes::{Planes, put};
use super::{Block, Groups};

/// 128 elements: `d` where bit `i % 8` of `qs[i / 8]` is set, else `-d`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[allow(non_camel_case_types, reason = "the field writes Q1_0, and so do the files")]
#[repr(C)]
pub struct Q1_0 {
    /// f16 scale.
    pub d: [u8; 2],
    /// Eight elements in a byte.
    pub qs: [u8; 16],
}

impl Block for Q1_0 {
    const USUAL: (f32, f32) = (2e-2, 0.0);

    fn groups(&self, out: &mut Groups) {
        out.scales[..4].fill(f16(self.d));
        for (i, out) in out.quants[..128].iter_mut().enumerate() {
            *out = 2 * (self.qs[i / 8] >> (i % 8) & 1) as i8 - 1;
        }
    }

    fn planes(&self, planes: &mut Planes) {
        put(planes, &self.qs, &[], &[], &self.d);
    }

    fn set_scale(&mut self, scale: f32, _min: f32) {
        self.d = to_f16(scale);
    }
}
