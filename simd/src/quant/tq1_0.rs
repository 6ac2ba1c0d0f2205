//! TQ1_0: 256 elements of -1, 0, 1, five in a byte, one f16 scale. `block_tq1_0`.

use bytemuck::{Pod, Zeroable};

use super::half::{f16, to_f16};
use super::planes::{Planes, put};
use super::{Block, Groups};

/// 256 elements `d * (t - 1)`, `t` a digit of a number to the base of 3 that a byte holds as a fraction of 256: digit `n`
/// of `qs[i]` is element `32 n + i` for the first 32 bytes, element `160 + 16 n + i - 32` for the others;
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

/// Digit `n` of each of eight bytes, 0 to 2: the fraction times 3 to the power of `n`, less its whole part, times 3.
#[inline]
pub(crate) fn digits(bytes: u64, n: usize) -> u64 {
    const LOW: u64 = 0x00ff_00ff_00ff_00ff;
    let power = [1, 3, 9, 27, 81][n];
    let even = (((bytes & LOW) * power) & LOW) * 3;
    let odd = (((bytes >> 8 & LOW) * power) & LOW) * 3;
    (even >> 8 & LOW) | (odd & !LOW)
}

impl Block for TQ1_0 {
    const USUAL: (f32, f32) = (2.4e-2, 0.0);

    fn groups(&self, out: &mut Groups) {
        out.scales[..8].fill(f16(self.d));
        for (e, quants) in out.quants.chunks_exact_mut(8).enumerate() {
            let eight = |at: usize| self.qs[at..at + 8].iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte));
            let four = u64::from(u32::from_le_bytes(self.qh));
            let digits = match e {
                0..20 => digits(eight(e % 4 * 8), e / 4),
                20..30 => digits(eight(32 + e % 2 * 8), (e - 20) / 2),
                _ => digits(four, 2 * (e - 30)) | digits(four, 2 * (e - 30) + 1) << 32,
            };
            quants.copy_from_slice(&digits.to_le_bytes().map(|digit| digit as i8 - 1));
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
