//! Loops of the block types whose quants are rows of a grid with signs, in the vocabulary of `lanes`. The indices and signs of a
//! block are computed first, its rows are looked up by what the instruction set has for that (one by one, or by permutations of
//! the whole grid), and the vectors are read from them. Each is held to its definition in `quant`, which keeps indices below the
//! number of rows.
#![allow(non_camel_case_types, reason = "the field writes IQ2_XS, and so do the files")]

use std::mem::MaybeUninit;

use super::eights::{halfway, odd, per_block, small};
use super::formats::{Format, unit};
use super::lanes::Lanes;
use crate::quant::grid::{Grid, bits, eight, with_parities, with_parity};
use crate::quant::{iq2_s, iq2_xs, iq2_xxs, iq3_s, iq3_xxs};

static IQ2_XXS_GRID: Grid<u64, 256> = Grid::eights(&iq2_xxs::GRID, [8, 25, 43, 0]);
static IQ2_XS_GRID: Grid<u64, 512> = Grid::eights(&iq2_xs::GRID, [8, 25, 43, 0]);
static IQ2_S_GRID: Grid<u64, 1024> = Grid::eights(&iq2_s::GRID, [8, 25, 43, 0]);
static IQ3_XXS_GRID: Grid<u32, 256> = Grid::fours(&iq3_xxs::GRID, [4, 12, 20, 28, 36, 44, 52, 62]);
static IQ3_S_GRID: Grid<u32, 512> = Grid::fours(&iq3_s::GRID, [1, 3, 5, 7, 9, 11, 13, 15]);

/// Elements of a block, and of the longest unit.
const LEN: usize = 256;
const LONGEST: usize = 2 * LEN;

/// A unit's elements without signs, and a bit for each that is negative.
#[repr(C, align(64))]
pub(crate) struct Rows {
    bytes: [MaybeUninit<u8>; LONGEST],
    signs: [MaybeUninit<u8>; LONGEST / 8],
}

impl Rows {
    /// Of the first `n` elements; `block` gives the indices of a block's rows and its signs.
    ///
    /// # Safety
    /// `n / 256` blocks are readable at `p`, and their indices are those of rows.
    #[inline(always)]
    unsafe fn new<S: Lanes, T: Copy, const N: usize, const ROWS: usize, const BYTES: usize>(
        p: *const u8,
        n: usize,
        grid: &Grid<T, ROWS>,
        block: impl Fn(&[u8; BYTES]) -> ([u16; N], [u8; LEN / 8]),
    ) -> Rows {
        const { assert!(N * size_of::<T>() == LEN) };
        let mut unit = Rows { bytes: [MaybeUninit::uninit(); LONGEST], signs: [MaybeUninit::uninit(); LONGEST / 8] };
        for b in 0..n / LEN {
            // SAFETY: the block is readable; rows and signs of at most two blocks fit.
            unsafe {
                let (indices, signs) = block(&*p.add(b * BYTES).cast());
                S::look_up(grid, &indices, unit.bytes.as_mut_ptr().add(b * LEN).cast());
                unit.signs.as_mut_ptr().add(b * LEN / 8).cast::<[u8; LEN / 8]>().write(signs);
            }
        }
        unit
    }

    /// Vector `i`, its signs applied.
    ///
    /// # Safety
    /// The unit has as many.
    #[inline(always)]
    unsafe fn vector<S: Lanes>(&self, i: usize) -> S::Q {
        let (bytes, mut signs) = (4 * S::LANES, 0_u64);
        // SAFETY: elements and signs of a whole unit were written.
        unsafe {
            let from = self.signs.as_ptr().add(i * bytes / 8).cast::<u8>();
            std::ptr::copy_nonoverlapping(from, (&raw mut signs).cast(), bytes / 8);
            S::wide(S::negated(S::bytes(self.bytes.as_ptr().add(i * bytes).cast()), signs.to_le()))
        }
    }
}

/// A format: its grid, and what the indices and signs of a block are.
macro_rules! grid {
    ($name:ident, $bytes:literal, $group:literal, $rows:ident, $block:ident, |$s:ident, $p:ident, $sub:ident| $scales:expr) => {
        pub(crate) struct $name;
        impl Format for $name {
            const BYTES: usize = $bytes;
            const LEN: usize = LEN;
            const GROUP: usize = $group;
            const WIDE: bool = true;
            type Parts = Rows;
            #[inline(always)]
            unsafe fn parts<$s: Lanes>($p: *const u8) -> Rows {
                // SAFETY: the contract of `Format`.
                unsafe { Rows::new::<$s, _, _, _, _>($p, unit::<$s, $name>(), &$rows, $block) }
            }
            #[inline(always)]
            unsafe fn quants<$s: Lanes>(_: *const u8, parts: &Rows, i: usize) -> $s::Q {
                // SAFETY: the contract of `Format`.
                unsafe { parts.vector::<$s>(i) }
            }
            #[inline(always)]
            unsafe fn scales<$s: Lanes>($p: *const u8, $sub: usize) -> ($s::F, $s::F) {
                // SAFETY: the contract of `Format`.
                unsafe { $scales }
            }
        }
    };
}

/// `N` bytes from `at` on.
#[inline(always)]
fn bytes<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&block[at..at + N]);
    out
}

/// Indices of which each has 8 bits in `low` and the rest in `high`.
#[inline(always)]
fn joined<const N: usize>(low: [u8; N], high: [u8; N]) -> [u16; N] {
    let mut out = [0; N];
    for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
        *out = u16::from(low) | u16::from(high) << 8;
    }
    out
}

/// The signs of eight groups: four times 7 bits in a word.
#[inline(always)]
fn sevens(words: [u32; 8]) -> [u8; 32] {
    bytemuck::cast(words.map(|w| {
        let spread = w & 0x7f | (w & 0x3f80) << 1 | (w & 0x1f_c000) << 2 | (w & 0xfe0_0000) << 3;
        with_parities(spread).to_le()
    }))
}

#[inline(always)]
fn words(block: &[u8], at: usize) -> [u32; 8] {
    bytemuck::cast::<[u8; 32], [u32; 8]>(bytes(block, at)).map(u32::from_le)
}

#[inline(always)]
fn iq2_xxs_block(block: &[u8; 66]) -> ([u16; 32], [u8; 32]) {
    let groups = bytemuck::cast::<[u8; 64], [u64; 8]>(bytes(block, 2)).map(u64::from_le);
    let low = groups.map(|group| (group as u32).to_le());
    (joined(bytemuck::cast(low), [0; 32]), sevens(groups.map(|group| (group >> 32) as u32)))
}

grid!(IQ2_XXS, 66, 32, IQ2_XXS_GRID, iq2_xxs_block, |S, p, sub| halfway::<S>(
    per_block::<S>(p, 66, 0),
    small::<S>(sub, |g| *p.add(g / 8 * 66 + 9 + g % 8 * 8) >> 4),
    0.25
));

#[inline(always)]
fn iq2_xs_block(block: &[u8; 74]) -> ([u16; 32], [u8; 32]) {
    let codes = bytemuck::cast::<[u8; 64], [u16; 32]>(bytes(block, 2)).map(u16::from_le);
    (codes.map(|code| code & 511), codes.map(|code| with_parity(u32::from(code >> 9))))
}

grid!(IQ2_XS, 74, 16, IQ2_XS_GRID, iq2_xs_block, |S, p, sub| halfway::<S>(
    S::splat(S::half(p)),
    small::<S>(sub, |g| *p.add(66 + g / 2) >> (g % 2 * 4) & 15),
    0.25
));

#[inline(always)]
fn iq2_s_block(block: &[u8; 82]) -> ([u16; 32], [u8; 32]) {
    let high = bytemuck::cast::<[u8; 8], [u16; 4]>(bytes(block, 66)).map(|codes| eight(u16::from_le(codes)).to_le());
    (joined(bytes(block, 2), bytemuck::cast(high)), bytes(block, 34))
}

grid!(IQ2_S, 82, 16, IQ2_S_GRID, iq2_s_block, |S, p, sub| halfway::<S>(
    S::splat(S::half(p)),
    small::<S>(sub, |g| *p.add(74 + g / 2) >> (g % 2 * 4) & 15),
    0.25
));

#[inline(always)]
fn iq3_xxs_block(block: &[u8; 98]) -> ([u16; 64], [u8; 32]) {
    (joined(bytes(block, 2), [0; 64]), sevens(words(block, 66)))
}

grid!(IQ3_XXS, 98, 32, IQ3_XXS_GRID, iq3_xxs_block, |S, p, sub| halfway::<S>(
    per_block::<S>(p, 98, 0),
    small::<S>(sub, |g| *p.add(g / 8 * 98 + 69 + g % 8 * 4) >> 4),
    0.5
));

#[inline(always)]
fn iq3_s_block(block: &[u8; 110]) -> ([u16; 64], [u8; 32]) {
    let high = bytes::<8>(block, 66).map(|byte| bits(byte).to_le());
    (joined(bytes(block, 2), bytemuck::cast(high)), bytes(block, 74))
}

grid!(IQ3_S, 110, 32, IQ3_S_GRID, iq3_s_block, |S, p, sub| odd::<S>(
    per_block::<S>(p, 110, 0),
    small::<S>(sub, |g| *p.add(g / 8 * 110 + 106 + g % 8 / 2) >> (g % 2 * 4) & 15),
    1.0,
));
