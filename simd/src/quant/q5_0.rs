//! Q5_0: 32 elements of 5 bits around 16, one f16 scale. `block_q5_0`.

use bytemuck::{Pod, Zeroable};

use super::encode::{Importance, extreme, signed_blocks, truncated};
use super::half::{f16, to_f16};
use super::planes::{Planes, put};
use super::q4_0::nibbles;
use super::{Block, Encode, Groups};

/// 32 elements `d * (q - 16)`: the low four bits of `q` lie as in Q4_0, the fifth of element `i` is bit `i` of `qh`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[allow(non_camel_case_types, reason = "the field writes Q5_0, and so do the files")]
#[repr(C)]
pub struct Q5_0 {
    /// f16 scale.
    pub d: [u8; 2],
    /// The fifth bits, a little-endian `u32`.
    pub qh: [u8; 4],
    /// The low four bits, two elements in a byte.
    pub qs: [u8; 16],
}

impl Block for Q5_0 {
    const USUAL: (f32, f32) = (2.2e-3, 0.0);

    fn groups(&self, out: &mut Groups) {
        out.scales[0] = f16(self.d);
        for (out, q) in out.quants.iter_mut().zip(join(&self.qs, self.qh)) {
            *out = q as i8 - 16;
        }
    }

    fn planes(&self, planes: &mut Planes) {
        put(planes, &self.qs, &self.d, &self.qh, &[]);
    }

    fn set_scale(&mut self, scale: f32, _min: f32) {
        self.d = to_f16(scale);
    }
}

impl Encode<32> for Q5_0 {
    const ONE_GROUP: bool = true;

    #[inline(always)]
    fn encode<const W: usize>(x: &[f32; 32], important: Option<&Importance<'_>>) -> Self {
        let (mut d, mut q) = (extreme(x) / -16.0, [0; 32]);
        if let Some(important) = important {
            ([d], [q]) = signed_blocks(&[*x], &[*important], 16.0);
        } else {
            let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
            for i in 0..32 {
                q[i] = truncated(x[i] * inverse + 16.5, -128.0, 31.0) as u8;
            }
        }
        let (qs, qh) = part(&q);
        Q5_0 { d: to_f16(d), qh, qs }
    }

    #[inline(always)]
    fn encode_several<const W: usize>(
        x: &[[f32; 32]; W],
        important: Option<&[Importance<'_>; W]>,
        out: &mut [Self; W],
    ) {
        let Some(important) = important else { return super::each(x, out) };
        let (d, q) = signed_blocks(x, important, 16.0);
        for block in 0..W {
            let (qs, qh) = part(&q[block]);
            out[block] = Q5_0 { d: to_f16(d[block]), qh, qs };
        }
    }
}

/// The five-bit elements of their low nibbles and high bits.
pub(super) fn join(qs: &[u8; 16], qh: [u8; 4]) -> [u8; 32] {
    let high = u32::from_le_bytes(qh);
    std::array::from_fn(|i| {
        let low = if i < 16 { qs[i] & 15 } else { qs[i - 16] >> 4 };
        low | ((high >> i & 1) as u8) << 4
    })
}

/// The low nibbles and high bits of five-bit elements.
#[inline(always)]
pub(super) fn part(q: &[u8; 32]) -> ([u8; 16], [u8; 4]) {
    let (mut low, mut high) = ([0; 32], 0u32);
    for i in 0..32 {
        low[i] = q[i] & 15;
        high |= u32::from(q[i] >> 4) << i;
    }
    (nibbles(&low), high.to_le_bytes())
}
