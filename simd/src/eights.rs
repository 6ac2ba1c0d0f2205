//! Loops of the block types whose quants are put together by eights of bytes, in the vocabulary of `lanes`: bits, digits and
//! rows of a grid that have no signs of their own. Each is held to its definition in `quant`.
#![allow(non_camel_case_types, reason = "the field writes IQ2_XS, and so do the files")]

use super::formats::{Format, RAISED_STEPS, format};
use super::lanes::Lanes;
use crate::quant::grid::{ONES, bits, eight, eights};
use crate::quant::{iq1_s, nvfp4, tq1_0};

/// In eighths, from 0 on.
static IQ1_ROWS: [u64; 2048] = eights(&iq1_s::GRID, [0, 8, 16, 0]);

/// Eights in a block.
const EIGHTS: usize = 32;

/// Vector `i` of the eights that `row` gives.
#[inline(always)]
unsafe fn unsigned<S: Lanes>(i: usize, row: impl Fn(usize) -> u64) -> S::Q {
    let mut bytes = [0_u64; 8];
    for (j, byte) in bytes[..S::LANES / 2].iter_mut().enumerate() {
        *byte = row(i * (S::LANES / 2) + j);
    }
    // SAFETY: `bytes` holds a vector.
    unsafe { S::bytes(bytes.as_ptr().cast()) }
}

/// The small scales of the groups `sub * LANES` and following: `scale` gives that of a group of the unit.
#[inline(always)]
pub(super) unsafe fn small<S: Lanes>(sub: usize, scale: impl Fn(usize) -> u8) -> S::F {
    let mut bytes = [0_u8; 16];
    for (j, byte) in bytes[..S::LANES].iter_mut().enumerate() {
        *byte = scale(sub * S::LANES + j);
    }
    // SAFETY: `bytes` holds a vector.
    unsafe { S::from_u8(bytes.as_ptr()) }
}

/// The f16 at byte `at` of the blocks of a vector of groups of 32: one block, or two.
#[inline(always)]
pub(super) unsafe fn per_block<S: Lanes>(p: *const u8, bytes: usize, at: usize) -> S::F {
    let last = if S::LANES > 8 { bytes } else { 0 };
    // SAFETY: as many blocks are readable.
    unsafe { S::two(S::half(p.add(at)), S::half(p.add(last + at))) }
}

/// `d * (0.5 + small) * factor`.
#[inline(always)]
pub(super) unsafe fn halfway<S: Lanes>(d: S::F, small: S::F, factor: f32) -> (S::F, S::F) {
    // SAFETY: no memory is touched.
    unsafe { (S::mul(S::mul(d, S::add(small, S::splat(0.5))), S::splat(factor)), S::zero()) }
}

/// `d * (1 + 2 small) * factor`.
#[inline(always)]
pub(super) unsafe fn odd<S: Lanes>(d: S::F, small: S::F, factor: f32) -> (S::F, S::F) {
    // SAFETY: no memory is touched.
    unsafe { (S::mul(S::mul(d, S::add(S::add(small, small), S::splat(1.0))), S::splat(factor)), S::zero()) }
}

#[inline(always)]
unsafe fn u16_at(p: *const u8) -> u16 {
    // SAFETY: two bytes of the block that the caller is in.
    u16::from_le_bytes(unsafe { p.cast::<[u8; 2]>().read() })
}

#[inline(always)]
unsafe fn u32_at(p: *const u8) -> u32 {
    // SAFETY: four bytes of the block that the caller is in.
    u32::from_le_bytes(unsafe { p.cast::<[u8; 4]>().read() })
}

#[inline(always)]
unsafe fn u64_at(p: *const u8) -> u64 {
    // SAFETY: eight bytes of the block that the caller is in.
    u64::from_le_bytes(unsafe { p.cast::<[u8; 8]>().read() })
}

/// What the eighths of IQ1_S and IQ1_M have added: 16, an eighth up or down.
#[inline(always)]
fn shift(down: bool) -> u64 {
    if down { 7 * ONES } else { 9 * ONES }
}

format!(IQ1_S, 50, 256, 32, [const OFFSET: i32 = 16; const MOST: i32 = 25;],
|S, p, i| unsigned::<S>(i, |e| {
    let (block, e) = (p.add(e / EIGHTS * 50), e % EIGHTS);
    let word = u16_at(block.add(34 + e / 4 * 2));
    let high = usize::from(word >> (e % 4 * 3) & 7);
    IQ1_ROWS[usize::from(*block.add(2 + e)) | high << 8] + shift(word >> 15 == 1)
}),
|sub| odd::<S>(
    per_block::<S>(p, 50, 0),
    small::<S>(sub, |g| *p.add(g / 8 * 50 + 35 + g % 8 * 2) >> 4 & 7),
    0.125,
));

format!(IQ1_M, 56, 256, 16, [const OFFSET: i32 = 16; const MOST: i32 = 25;],
|S, p, i| unsigned::<S>(i, |e| {
    let high = *p.add(32 + e / 2) >> (e % 2 * 4);
    IQ1_ROWS[usize::from(*p.add(e)) | usize::from(high & 7) << 8] + shift(high & 8 != 0)
}),
|sub| {
    let word = |i: usize| u16_at(p.add(48 + 2 * i));
    let d = word(0) >> 12 | word(1) >> 12 << 4 | word(2) >> 12 << 8 | word(3) >> 12 << 12;
    let d = S::splat(S::half(d.to_le_bytes().as_ptr()));
    odd::<S>(d, small::<S>(sub, |g| (word(g / 4) >> (g % 4 * 3) & 7) as u8), 0.125)
});

/// A scale for each of the groups `sub * LANES` and following.
#[inline(always)]
unsafe fn each<S: Lanes>(sub: usize, scale: impl Fn(usize) -> f32) -> (S::F, S::F) {
    let mut scales = [0.0; 16];
    for (j, to) in scales[..S::LANES].iter_mut().enumerate() {
        *to = scale(sub * S::LANES + j);
    }
    // SAFETY: `scales` holds a vector.
    unsafe { (S::load(scales.as_ptr()), S::zero()) }
}

/// What the 256 bytes of E4M3 stand for, halved.
static E4M3: [f32; 256] = nvfp4::SCALES;

format!(NVFP4, 36, 64, 16, [const OFFSET: i32 = 16; const MOST: i32 = 28;],
    |S, p, i| {
        let nibbles = unsigned::<S>(i, |e| u64_at(p.add(e / 8 * 36 + 4 + e % 8 / 2 * 8)) >> (e % 2 * 4) & (15 * ONES));
        S::lookup16(&RAISED_STEPS, nibbles)
    },
    |sub| each::<S>(sub, |g| E4M3[usize::from(*p.add(g / 4 * 36 + g % 4))]));

format!(Q1_0, 18, 128, 32, [const OFFSET: i32 = 1; const MOST: i32 = 2;],
    |S, p, i| unsigned::<S>(i, |e| 2 * bits(*p.add(e / 16 * 18 + 2 + e % 16))),
    |sub| each::<S>(sub, |g| S::half(p.add(g / 4 * 18))));

format!(Q2_0, 18, 64, 32, [const OFFSET: i32 = 1; const MOST: i32 = 3;],
    |S, p, i| unsigned::<S>(i, |e| eight(u16_at(p.add(e / 8 * 18 + 2 + e % 8 * 2)))),
    |sub| each::<S>(sub, |g| S::half(p.add(g / 2 * 18))));

format!(TQ1_0, 54, 256, 32, [const OFFSET: i32 = 1; const MOST: i32 = 2;],
    |S, p, i| unsigned::<S>(i, |e| {
        let (block, e) = (p.add(e / EIGHTS * 54), e % EIGHTS);
        match e {
            0..20 => tq1_0::digits(u64_at(block.add(e % 4 * 8)), e / 4),
            20..30 => tq1_0::digits(u64_at(block.add(32 + e % 2 * 8)), (e - 20) / 2),
            _ => {
                let (bytes, n) = (u64::from(u32_at(block.add(48))), 2 * (e - 30));
                tq1_0::digits(bytes, n) | tq1_0::digits(bytes, n + 1) << 32
            }
        }
    }),
    |_sub| (per_block::<S>(p, 54, 52), S::zero()));
