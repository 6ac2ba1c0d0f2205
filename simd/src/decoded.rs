//! The loop of the block types that have none of their own in `formats`: their blocks are read by the scalar definition
//! into units of one plain layout, which all of them share, so its kernels exist once per instruction set. The order of the
//! additions is that of `dots` and `tile`.

use super::dots::{MOST, multiply_values, one_unit};
use super::formats::Format;
use super::lanes::Lanes;
use super::panels::starts;
use super::q8::{PAD, Q8Row};
use super::tile::{self, Place, Weights};
use crate::quant::{DType, GroupTraits, Groups};

/// Elements of a unit: whole blocks of every type, whole vectors of groups of every instruction set, and no more than
/// activations are padded to.
const LEN: usize = PAD;

/// A run of blocks as integers, scales and minima.
#[derive(Debug, Clone)]
#[repr(C)]
pub(crate) struct Unit {
    quants: [i8; LEN],
    scales: [f32; LEN / 16],
    mins: [f32; LEN / 16],
}

impl Unit {
    const ZERO: Unit = Unit { quants: [0; LEN], scales: [0.0; LEN / 16], mins: [0.0; LEN / 16] };

    /// Reads the blocks in `w`, at most a unit; what follows them is zero.
    fn read(&mut self, dtype: DType, traits: &GroupTraits, w: &[u8], groups: &mut Groups) {
        let (len, n) = (dtype.block_len(), dtype.block_len() / traits.len);
        let mut blocks = 0;
        for (b, block) in w.chunks_exact(dtype.block_bytes()).enumerate() {
            (traits.read)(block, groups);
            self.quants[b * len..][..len].copy_from_slice(&groups.quants[..len]);
            self.scales[b * n..][..n].copy_from_slice(&groups.scales[..n]);
            self.mins[b * n..][..n].copy_from_slice(&groups.mins[..n]);
            blocks = b + 1;
        }
        self.quants[blocks * len..].fill(0);
        self.scales[blocks * n..].fill(0.0);
        self.mins[blocks * n..].fill(0.0);
    }
}

/// The format of [`Unit`].
struct Decoded<const GROUP: usize>;

impl<const GROUP: usize> Format for Decoded<GROUP> {
    const BYTES: usize = size_of::<Unit>();
    const LEN: usize = LEN;
    const GROUP: usize = GROUP;
    const MINS: bool = true;
    const WIDE: bool = true;

    type Parts = ();
    #[inline(always)]
    unsafe fn parts<S: Lanes>(_: *const u8) {}

    #[inline(always)]
    unsafe fn quants<S: Lanes>(p: *const u8, (): &(), i: usize) -> S::Q {
        // SAFETY: the contract of `Format`: a unit is readable at `p`.
        unsafe { S::wide(S::bytes(p.add(i * 4 * S::LANES))) }
    }

    #[inline(always)]
    unsafe fn scales<S: Lanes>(p: *const u8, sub: usize) -> (S::F, S::F) {
        // SAFETY: the contract of `Format`: a unit is readable at `p`.
        unsafe {
            let scales = p.add(std::mem::offset_of!(Unit, scales)).cast::<f32>();
            let mins = p.add(std::mem::offset_of!(Unit, mins)).cast::<f32>();
            (S::load(scales.add(sub * S::LANES)), S::load(mins.add(sub * S::LANES)))
        }
    }
}

fn traits<const GROUP: usize>(dtype: DType) -> &'static GroupTraits {
    let traits = dtype.traits().groups.as_ref().filter(|traits| traits.len == GROUP);
    let Some(traits) = traits else { unreachable!("the table gives the kernels of the type's own group length") };
    traits
}

/// Bytes of a unit's blocks.
fn unit_bytes(dtype: DType) -> usize {
    LEN / dtype.block_len() * dtype.block_bytes()
}

/// As `dots::dots_q8`.
///
/// # Safety
/// Needs the instruction set `S`.
#[inline(always)]
pub(crate) unsafe fn dots_q8<S: Lanes, const GROUP: usize>(dtype: DType, w: &[u8], x: &[Q8Row<'_>], out: &mut [f32]) {
    assert!(x.len() == out.len() && x.len() <= MOST, "one result for each of at most 8 activation rows");
    let k = w.len() / dtype.block_bytes() * dtype.block_len();
    for x in x {
        assert!(x.k == k && x.quants.len() >= k.next_multiple_of(LEN), "rows of different lengths");
        assert!(x.scales.len() * 32 == x.quants.len() && x.sums.len() * 32 == x.quants.len());
        assert!(x.sums16.len() * 16 == x.quants.len());
    }
    // SAFETY: the lengths agree, and the instruction set is the caller's promise.
    unsafe {
        match x.len() {
            1 => row::<S, GROUP, 1>(dtype, w, x, out),
            _ => row::<S, GROUP, MOST>(dtype, w, x, out),
        }
    }
}

#[inline(always)]
unsafe fn row<S: Lanes, const GROUP: usize, const N: usize>(dtype: DType, w: &[u8], x: &[Q8Row<'_>], out: &mut [f32]) {
    let x = &x[..x.len().min(N)];
    let (traits, mut unit, mut groups) = (traits::<GROUP>(dtype), Unit::ZERO, Groups::ZERO);
    // SAFETY: the unit is readable, and the activations are padded to whole units.
    unsafe {
        let mut acc = [S::zero(); N];
        for (u, w) in w.chunks(unit_bytes(dtype)).enumerate() {
            unit.read(dtype, traits, w, &mut groups);
            one_unit::<S, Decoded<GROUP>, N>((&raw const unit).cast(), u, x, &mut acc);
        }
        for (out, acc) in out.iter_mut().zip(acc) {
            *out = S::sum(acc);
        }
    }
}

/// As `dots::dots_decoded`.
///
/// # Safety
/// Needs the instruction set `S`.
#[inline(always)]
pub(crate) unsafe fn dots_f32<S: Lanes>(dtype: DType, w: &[u8], x: &[&[f32]], out: &mut [f32]) {
    assert!(x.len() == out.len() && x.len() <= MOST, "one result for each of at most 8 activation rows");
    let k = w.len() / dtype.block_bytes() * dtype.block_len();
    assert!(x.iter().all(|x| x.len() == k), "rows of different lengths");
    let decode = dtype.traits().decode;
    // SAFETY: `have` elements were decoded, and as many activations exist: a whole number of vectors since blocks are.
    unsafe {
        let (mut acc, mut values) = ([[S::zero(); 2]; MOST], [0.0; LEN]);
        for (u, w) in w.chunks(unit_bytes(dtype)).enumerate() {
            let have = LEN.min(k - u * LEN);
            decode(w, &mut values[..have]);
            multiply_values::<S>(&values[..have], x, u * LEN, &mut acc);
        }
        for (out, acc) in out.iter_mut().zip(acc) {
            *out = S::sum(S::add(acc[0], acc[1]));
        }
    }
}

/// As `tile::unpack_q8`.
///
/// # Safety
/// Needs the instruction set `S`.
#[inline(always)]
pub(crate) unsafe fn unpack<S: Lanes, const GROUP: usize>(
    dtype: DType,
    w: &[u8],
    row_bytes: usize,
    tile: &mut Weights,
) {
    let rows = w.len() / row_bytes.max(1);
    assert!(row_bytes > 0 && w.len().is_multiple_of(row_bytes) && (1..=S::COLS_Q * S::LANES).contains(&rows));
    assert!(row_bytes.is_multiple_of(dtype.block_bytes()));
    let n = row_bytes / dtype.block_bytes() * dtype.block_len() / GROUP;
    tile.resize::<S, Decoded<GROUP>>(n);
    let (traits, mut groups, starts) = (traits::<GROUP>(dtype), Groups::ZERO, starts(n, S::LANES));
    let mut units = std::mem::take(&mut tile.units);
    units.resize(rows, Unit::ZERO);
    for u in 0..row_bytes.div_ceil(unit_bytes(dtype)) {
        for (unit, w) in units.iter_mut().zip(w.chunks_exact(row_bytes)) {
            let from = u * unit_bytes(dtype);
            unit.read(dtype, traits, &w[from..row_bytes.min(from + unit_bytes(dtype))], &mut groups);
        }
        for c in 0..S::COLS_Q {
            // Rows that are missing repeat the last one.
            let rows = std::array::from_fn(|r| (&raw const units[(c * S::LANES + r).min(rows - 1)]).cast());
            let place = Place { c, u, n, starts: &starts };
            // SAFETY: a unit is readable at each pointer; the tile has room for `n` groups.
            unsafe { tile::unpack_unit::<S, Decoded<GROUP>>(&rows, place, tile) };
        }
    }
    tile.units = units;
}

/// As `tile::multiply_q8`.
///
/// # Safety
/// Needs the instruction set `S`.
#[inline(always)]
pub(crate) unsafe fn multiply<S: Lanes, const GROUP: usize, const ROWS: usize, const COLS: usize>(
    tile: &Weights,
    x: &super::panels::Panels,
    panel: usize,
    ahead: &[u8],
    out: &mut [f32],
) {
    // SAFETY: as there.
    unsafe { tile::multiply_q8::<S, Decoded<GROUP>, ROWS, COLS>(tile, x, panel, ahead, out) }
}

/// The layout of the panels for these groups.
pub(crate) const fn layout<S: Lanes, const GROUP: usize>() -> (usize, i32) {
    (GROUP, super::formats::offset::<S, Decoded<GROUP>>())
}
