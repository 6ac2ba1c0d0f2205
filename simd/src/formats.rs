//! The block formats in the vocabulary of `lanes`: how a run of blocks becomes quants in natural order, scales and
//! minima. Each is held to its definition in `quant`.
#![allow(non_camel_case_types, reason = "the field writes Q4_K, and so do the files")]

use std::mem::MaybeUninit;

pub(crate) use super::eights::*;
pub(crate) use super::grids::*;
use super::lanes::Lanes;
use crate::quant::{iq4_nl, mxfp4};

/// A quantised type. A *unit* is the run of elements that is read at a time: whole blocks, and whole vectors of groups.
///
/// # Safety
/// The functions need the instruction set `S` and a whole unit readable at `p`.
pub(crate) trait Format {
    /// Bytes and elements of a block.
    const BYTES: usize;
    const LEN: usize;
    /// Elements with a common scale: 16 or 32.
    const GROUP: usize;
    /// The largest quant, at most 64, if they are not `WIDE`; 15 if they are, of each half.
    const MOST: i32 = 15;
    /// What `quants` adds to the true quants; a power of two, or 0.
    const OFFSET: i32 = 0;
    /// Whether there are minima.
    const MINS: bool = false;
    /// Whether the quants need all 8 bits and go through `Lanes::wide` (which adds its own offset).
    const WIDE: bool = false;
    /// What is put together of a unit before its vectors are read.
    type Parts;
    unsafe fn parts<S: Lanes>(p: *const u8) -> Self::Parts;
    /// Vector `i` of the unit, in natural order.
    unsafe fn quants<S: Lanes>(p: *const u8, parts: &Self::Parts, i: usize) -> S::Q;
    /// Scales and minima of the groups `sub * LANES` and following of the unit. An element is `scale * quant - min`.
    unsafe fn scales<S: Lanes>(p: *const u8, sub: usize) -> (S::F, S::F);
}

/// Elements of a unit.
pub(crate) const fn unit<S: Lanes, T: Format>() -> usize {
    let lanes = S::LANES * T::GROUP;
    if lanes > T::LEN { lanes } else { T::LEN }
}

/// Bytes of the longest unit: 16 blocks of Q8_0.
pub(crate) const UNIT_BYTES: usize = 16 * 34;

/// What `quants` adds in all.
pub(crate) const fn offset<S: Lanes, T: Format>() -> i32 {
    if T::WIDE { S::WIDE_OFFSET } else { T::OFFSET }
}

/// Copies the blocks in `w`, fewer than a unit, to `unit` and adds blocks of zeros. Block by block, since copies of a
/// length known when compiling become a few instructions and others a call.
#[inline(always)]
pub(crate) fn pad_unit<S: Lanes, T: Format, const N: usize>(w: &[u8], padded: &mut [MaybeUninit<u8>; N]) -> *const u8 {
    let n_blocks = unit::<S, T>() / T::LEN;
    assert!(n_blocks * T::BYTES <= N && w.len() < n_blocks * T::BYTES && w.len().is_multiple_of(T::BYTES));
    let p = padded.as_mut_ptr().cast::<u8>();
    for at in (0..n_blocks).map(|b| b * T::BYTES) {
        // SAFETY: all blocks of the unit fit in `padded`; those before the end of `w` are whole.
        unsafe {
            if at < w.len() {
                std::ptr::copy_nonoverlapping(w.as_ptr().add(at), p.add(at), T::BYTES);
            } else {
                std::ptr::write_bytes(p.add(at), 0, T::BYTES);
            }
        }
    }
    p
}

macro_rules! format {
    ($name:ident, $bytes:literal, $len:literal, $group:literal, [$($extra:tt)*],
     |$s:ident, $p:ident, $i:ident| $quants:expr, |$sub:ident| $scales:expr) => {
        pub(crate) struct $name;
        impl Format for $name {
            const BYTES: usize = $bytes;
            const LEN: usize = $len;
            const GROUP: usize = $group;
            $($extra)*
            type Parts = ();
            #[inline(always)]
            unsafe fn parts<$s: Lanes>(_: *const u8) {}
            #[inline(always)]
            unsafe fn quants<$s: Lanes>($p: *const u8, (): &(), $i: usize) -> $s::Q {
                // SAFETY: the contract of `Format`.
                unsafe { $quants }
            }
            #[inline(always)]
            unsafe fn scales<$s: Lanes>($p: *const u8, $sub: usize) -> ($s::F, $s::F) {
                // SAFETY: the contract of `Format`.
                unsafe { $scales }
            }
        }
    };
}
pub(crate) use format;

format!(Q4_0, 18, 32, 32, [const OFFSET: i32 = 8;],
    |S, p, i| S::nibbles16(p.add(2), 18, i),
    |_sub| (S::halves::<18, 0>(p), S::zero()));

format!(Q4_1, 20, 32, 32, [const MINS: bool = true;],
    |S, p, i| S::nibbles16(p.add(4), 20, i),
    |_sub| scale_and_minimum::<S, 20>(p));

format!(Q5_0, 22, 32, 32, [const OFFSET: i32 = 16; const MOST: i32 = 31;],
    |S, p, i| S::or(S::nibbles16(p.add(6), 22, i), S::bits32(p.add(2), 22, i)),
    |_sub| (S::halves::<22, 0>(p), S::zero()));

format!(Q5_1, 24, 32, 32, [const MINS: bool = true; const MOST: i32 = 31;],
    |S, p, i| S::or(S::nibbles16(p.add(8), 24, i), S::bits32(p.add(4), 24, i)),
    |_sub| scale_and_minimum::<S, 24>(p));

format!(Q8_0, 34, 32, 32, [const WIDE: bool = true;],
    |S, p, i| S::wide(S::bytes32(p.add(2), 34, i)),
    |_sub| (S::halves::<34, 0>(p), S::zero()));

format!(Q2_K, 84, 256, 16, [const MINS: bool = true;],
|S, p, i| S::planes32::<2>(p.add(16), i),
|sub| {
    let packed = u128::from_le_bytes(p.cast::<[u8; 16]>().read());
    let scales = (packed & NIBBLES).to_le_bytes();
    let mins = (packed >> 4 & NIBBLES).to_le_bytes();
    let at = sub * S::LANES;
    (S::mul(S::splat(S::half(p.add(80))), S::from_u8(scales.as_ptr().add(at))),
     S::mul(S::splat(S::half(p.add(82))), S::from_u8(mins.as_ptr().add(at))))
});

format!(Q3_K, 110, 256, 16, [const OFFSET: i32 = 4;],
|S, p, i| S::or(S::planes32::<2>(p.add(32), i), S::shl::<2>(S::planes32::<1>(p, i))),
|sub| {
    let low = u64::from_le_bytes(p.add(96).cast::<[u8; 8]>().read());
    let high = u64::from(u32::from_le_bytes(p.add(104).cast::<[u8; 4]>().read()));
    let high = high | high >> 2 << 32;
    let two = 0x0303_0303_0303_0303;
    let nibbles = NIBBLES as u64;
    let words = [low & nibbles | (high & two) << 4, low >> 4 & nibbles | (high >> 4 & two) << 4];
    let scales = S::from_u8(words.as_ptr().cast::<u8>().add(sub * S::LANES));
    (S::mul(S::splat(S::half(p.add(108))), S::sub(scales, S::splat(32.0))), S::zero())
});

format!(Q4_K, 144, 256, 32, [const MINS: bool = true;],
    |S, p, i| {
        let vectors = 64 / S::LANES;
        S::planes32::<4>(p.add(i / vectors * 144 + 16), i % vectors)
    },
    |sub| scales_6bit::<S>(p, 144, sub));

format!(Q5_K, 176, 256, 32, [const MINS: bool = true; const MOST: i32 = 31;],
    |S, p, i| {
        let vectors = 64 / S::LANES;
        let p = p.add(i / vectors * 176);
        S::or(S::planes32::<4>(p.add(48), i % vectors), S::shl::<4>(S::planes32::<1>(p.add(16), i % vectors)))
    },
    |sub| scales_6bit::<S>(p, 176, sub));

format!(Q6_K, 210, 256, 16, [const OFFSET: i32 = 32; const MOST: i32 = 63;],
    |S, p, i| S::or(S::nibbles64(p, i), S::shl::<4>(S::planes32::<2>(p.add(128), i))),
    |sub| (S::mul(S::splat(S::half(p.add(208))), S::from_i8(p.add(192 + sub * S::LANES))), S::zero()));

format!(IQ4_NL, 18, 32, 32, [const WIDE: bool = true;],
    |S, p, i| S::wide(S::lookup16(&iq4_nl::STEPS, S::nibbles16(p.add(2), 18, i))),
    |_sub| (S::halves::<18, 0>(p), S::zero()));

format!(IQ4_XS, 136, 256, 32, [const WIDE: bool = true;],
|S, p, i| {
    let vectors = 64 / S::LANES;
    let nibbles = S::nibbles16(p.add(i / vectors * 136 + 8), 16, i % vectors);
    S::wide(S::lookup16(&iq4_nl::STEPS, nibbles))
},
|sub| {
    let n_blocks = if S::LANES > 8 { S::LANES / 8 } else { 1 };
    let mut scales = [0_u64; 2];
    for (b, scales) in scales[..n_blocks].iter_mut().enumerate() {
        let p = p.add(b * 136);
        let high = u64::from(u16::from_le_bytes(p.add(2).cast::<[u8; 2]>().read()));
        let low = u64::from(u32::from_le_bytes(p.add(4).cast::<[u8; 4]>().read()));
        // Nibbles, and pairs of bits, each in a byte.
        let low = (low | low << 16) & 0x0000_ffff_0000_ffff;
        let low = (low | low << 8) & 0x00ff_00ff_00ff_00ff;
        let low = (low | low << 4) & NIBBLES as u64;
        let high = (high | high << 24) & 0x0000_00ff_0000_00ff;
        let high = (high | high << 12) & 0x000f_000f_000f_000f;
        let high = (high | high << 6) & 0x0303_0303_0303_0303;
        *scales = low | high << 4;
    }
    let last = p.add((n_blocks - 1) * 136);
    let at = if S::LANES < 8 { sub * S::LANES } else { 0 };
    let scales = S::from_u8(scales.as_ptr().cast::<u8>().add(at));
    (S::mul(S::two(S::half(p), S::half(last)), S::sub(scales, S::splat(32.0))), S::zero())
});

format!(TQ2_0, 66, 256, 32, [const OFFSET: i32 = 1; const MOST: i32 = 3;],
|S, p, i| {
    let vectors = 64 / S::LANES;
    S::planes32::<2>(p.add(i / vectors * 66), i % vectors)
},
|_sub| {
    let last = p.add(if S::LANES > 8 { 66 } else { 0 });
    (S::two(S::half(p.add(64)), S::half(last.add(64))), S::zero())
});

format!(MXFP4, 17, 32, 32, [const OFFSET: i32 = 16; const MOST: i32 = 28;],
|S, p, i| S::lookup16(&RAISED_STEPS, S::nibbles16(p.add(1), 17, i)),
|_sub| {
    let mut scales = [0_f32; 16];
    for (g, scale) in scales[..S::LANES].iter_mut().enumerate() {
        *scale = mxfp4::power(*p.add(17 * g));
    }
    (S::load(scales.as_ptr()), S::zero())
});

/// The steps of MXFP4, 16 added.
pub(super) const RAISED_STEPS: [i8; 16] = {
    let mut steps = mxfp4::STEPS;
    let mut i = 0;
    while i < 16 {
        steps[i] += 16;
        i += 1;
    }
    steps
};

const NIBBLES: u128 = 0x0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f;

/// The scales of Q4_1 and Q5_1; their minimum is added, so it comes negated.
#[inline(always)]
unsafe fn scale_and_minimum<S: Lanes, const STRIDE: usize>(p: *const u8) -> (S::F, S::F) {
    // SAFETY: a whole unit is readable.
    unsafe { (S::halves::<STRIDE, 0>(p), S::sub(S::zero(), S::halves::<STRIDE, 2>(p))) }
}

/// The scales and minima of Q4_K and Q5_K: one or two super-blocks for a vector of groups.
#[inline(always)]
unsafe fn scales_6bit<S: Lanes>(p: *const u8, bytes: usize, sub: usize) -> (S::F, S::F) {
    let n_blocks = if S::LANES > 8 { S::LANES / 8 } else { 1 };
    let (mut scales, mut mins) = ([0_u64; 2], [0_u64; 2]);
    // SAFETY: `n_blocks` super-blocks are readable at `p`; the byte arrays hold 8 scales for each.
    unsafe {
        for b in 0..n_blocks {
            let words = p.add(b * bytes + 4).cast::<[[u8; 4]; 3]>().read();
            let [w0, w1, w2] = words.map(|w| u64::from(u32::from_le_bytes(w)));
            let (six, four, two) = (0x3f3f_3f3f, 0x0f0f_0f0f, 0x0303_0303);
            scales[b] = w0 & six | (w2 & four | (w0 >> 6 & two) << 4) << 32;
            mins[b] = w1 & six | (w2 >> 4 & four | (w1 >> 6 & two) << 4) << 32;
        }
        let last = p.add((n_blocks - 1) * bytes);
        let at = if S::LANES < 8 { sub * S::LANES } else { 0 };
        let (scales, mins) = (scales.as_ptr().cast::<u8>().add(at), mins.as_ptr().cast::<u8>().add(at));
        (
            S::mul(S::two(S::half(p), S::half(last)), S::from_u8(scales)),
            S::mul(S::two(S::half(p.add(2)), S::half(last.add(2))), S::from_u8(mins)),
        )
    }
}
