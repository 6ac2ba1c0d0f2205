//! TQ2_0: 256 elements of -1, 0, 1 (and 2) in 2 bits, one f16 scale. `block_tq2_0`.

use bytemuck::{Pod, Zeroable};

use super::half::{f16, to_f16};
use super::planes::{Planes, n2, put};
use super::{Block, Groups};

/// 256 elements `d * (q - 1)`. The first 128 come from `qs[0..32]`, the others from `qs[32..64]`: of each byte, bits 0-1
/// belong to the first 32 elements, bits 2-3 to the next 32, and so on.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[allow(non_camel_case_types, reason = "the field writes TQ2_0, and so do the files")]
#[repr(C)]
pub struct TQ2_0 {
    /// Four elements in a byte.
    pub qs: [u8; 64],
    /// f16 scale.
    pub d: [u8; 2],
}

impl Block for TQ2_0 {
    const USUAL: (f32, f32) = (1.6e-2, 0.0);

    fn groups(&self, out: &mut Groups) {
        out.scales[..8].fill(f16(self.d));
        for (i, out) in out.quants.iter_mut().enumerate() {
            *out = (self.qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3) as i8 - 1;
        }
    }

    fn planes(&self, planes: &mut Planes) {
        for u in 0..8 {
            let q = std::array::from_fn(|i| self.qs[u / 4 * 32 + i] >> (u % 4 * 2));
            put(planes, &n2(&q), &[], &[], &[]);
        }
        planes[3].extend_from_slice(&self.d);
    }

    fn set_scale(&mut self, scale: f32, _min: f32) {
        self.d = to_f16(scale);
    }
}
