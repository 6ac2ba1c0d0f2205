//! Q8_K: 256 elements of 8 bits, one f32 scale. `block_q8_K`; made for intermediate results, but files may hold it.

use bytemuck::{Pod, Zeroable};

use super::planes::{Planes, put};
use super::{Block, Groups};

/// 256 elements `d * qs[i]`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[allow(non_camel_case_types, reason = "the field writes Q8_K, and so do the files")]
#[repr(C)]
pub struct Q8_K {
    /// f32 scale.
    pub d: [u8; 4],
    /// One element in a byte.
    pub qs: [i8; 256],
    /// Sums of 16 elements each, which decoding does not need.
    pub sums: [u8; 32],
}

impl Block for Q8_K {
    const USUAL: (f32, f32) = (2.7e-4, 0.0);

    fn groups(&self, out: &mut Groups) {
        out.scales[..8].fill(f32::from_le_bytes(self.d));
        out.quants = self.qs;
    }

    fn planes(&self, planes: &mut Planes) {
        put(planes, bytemuck::cast_slice(&self.qs), &[], &[], &self.d);
    }

    fn set_scale(&mut self, scale: f32, _min: f32) {
        self.d = scale.to_le_bytes();
    }
}
