//! TQ1_0: 256 elements of -1, 0, 1, five in a byte, one f16 scale. `block_tq1_0`.

use bytemuck::{Pod, Zeroable};

use super::half::{f16, to_f16};
use super::planes::{Planes, put};
use super::{Block, Groups};

/// 256 elements `d * (t - 1)`, `t` a digit of a number to the base of 3 that a byte holds as a fraction of 256: digit `n`
/// (see [`digit`]) of `qs[i]` is element `32 n + i` for the first 32 bytes, element `160 + 16 n + i - 32` for the others;
/// digit `n` of `qh[i]` is element `240 + 4 n + i`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[allow(non_camel_case_types, reason = "the field writes TQ1_0, and so do the files")]
#[repr(C)]
pub struct TQ1_0 {
    /// Five elements in a byte.
    pub qs: [u8; 48],
    /// Four elements in a byte.
    pub qh: [u8; 4],
    /// f16 scale.
    pub d: [u8; 2],
}

/// Digit `n` of a byte, 0 to 2: the fraction times 3 to the power of `n`, less its whole part, times 3.
fn digit(byte: u8, n: usize) -> i8 {
    let rest = byte.wrapping_mul([1, 3, 9, 27, 81][n]);
    (u16::from(rest) * 3 >> 8) as i8
}

impl Block for TQ1_0 {
    const USUAL: (f32, f32) = (2.4e-2, 0.0);

    fn groups(&self, out: &mut Groups) {
        out.scales[..8].fill(f16(self.d));
        let (first, others) = self.qs.split_at(32);
        for n in 0..5 {
            for (i, byte) in first.iter().enumerate() {
                out.quants[32 * n + i] = digit(*byte, n) - 1;
            }
            for (i, byte) in others.iter().enumerate() {
                out.quants[160 + 16 * n + i] = digit(*byte, n) - 1;
            }
        }
        for n in 0..4 {
            for (i, byte) in self.qh.iter().enumerate() {
                out.quants[240 + 4 * n + i] = digit(*byte, n) - 1;
            }
        }
    }

    fn planes(&self, planes: &mut Planes) {
        put(planes, &[], &[], &[], &self.qs);
        planes[3].extend_from_slice(&self.qh);
        planes[3].extend_from_slice(&[self.d[0], self.d[1], 0, 0]);
    }

    fn set_scale(&mut self, scale: f32, _min: f32) {
        self.d = to_f16(scale);
    }
}
