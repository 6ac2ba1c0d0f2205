//! The many-rows form of Linear: `LANES` weight rows are unpacked into a tile once and multiplied with every panel of
//! activation rows, lanes being output columns. Written over `lanes`.
//!
//! Groups are visited lane by lane (all groups `g` with `g % LANES == lane`), lanes in the order in which a tree adds
//! them, so that every sum is formed exactly as in `dots` and has the same bits.

use std::mem::MaybeUninit;

use super::decoded::Unit;
use super::dots::{PLAIN_BLOCK, Plain, Product};
use super::formats::{Format, UNIT_BYTES, offset, pad_unit, unit};
use super::lanes::{Lanes, steps};
use super::panels::{Panels, in_lane, lane_at, starts};

/// Lanes of a vector, at most.
pub(crate) const MOST: usize = 16;

/// A tile of weight rows, used again from tile to tile.
#[derive(Debug, Default)]
pub struct Weights {
    /// Quants: position, four elements, column, element.
    quants: Vec<u8>,
    /// Scales (or, of plain types, elements): position, column.
    scales: Vec<f32>,
    /// Minima: position, column.
    mins: Vec<f32>,
    /// Rows on their way into the tile, of types without a loop of their own.
    pub(super) units: Vec<Unit>,
}

impl Weights {
    /// No tile, and no memory yet.
    pub const EMPTY: Self = Self { quants: Vec::new(), scales: Vec::new(), mins: Vec::new(), units: Vec::new() };

    /// Makes room for `n` groups of each row.
    pub(super) fn resize<S: Lanes, T: Format>(&mut self, n: usize) {
        let columns = S::COLS_Q * S::LANES;
        self.quants.resize(n * T::GROUP * columns, 0);
        self.scales.resize(n * columns, 0.0);
        self.mins.resize(if T::MINS { n * columns } else { 0 }, 0.0);
    }
}

/// Pointers to the rows of a tile of `columns` rows, from row `first` on; rows that are missing repeat the last one.
#[inline(always)]
fn row_pointers(w: &[u8], row_bytes: usize, columns: usize, first: usize) -> [*const u8; MOST] {
    assert!(row_bytes > 0 && w.len().is_multiple_of(row_bytes) && (1..=columns).contains(&(w.len() / row_bytes)));
    let last = w.len() / row_bytes - 1;
    std::array::from_fn(|r| w[(first + r).min(last) * row_bytes..].as_ptr())
}

/// Fills the tile with the rows in `w`, at most `COLS_Q * LANES` rows of `row_bytes`.
///
/// # Safety
/// Needs the instruction set `S`.
#[inline(always)]
pub(crate) unsafe fn unpack_q8<S: Lanes, T: Format>(w: &[u8], row_bytes: usize, _block: usize, tile: &mut Weights) {
    assert!(row_bytes.is_multiple_of(T::BYTES));
    let k = row_bytes / T::BYTES * T::LEN;
    let n = k / T::GROUP;
    tile.resize::<S, T>(n);
    let unit_bytes = unit::<S, T>() / T::LEN * T::BYTES;
    let starts = starts(n, S::LANES);
    for c in 0..S::COLS_Q {
        let pointers = row_pointers(w, row_bytes, S::COLS_Q * S::LANES, c * S::LANES);
        // SAFETY: whole units lie in each row; the rest is copied into zeroed units.
        unsafe {
            for u in 0..row_bytes / unit_bytes {
                let place = Place { c, u, n, starts: &starts };
                unpack_unit::<S, T>(&pointers.map(|p| p.wrapping_add(u * unit_bytes)), place, tile);
            }
            let rest = row_bytes % unit_bytes;
            if rest > 0 {
                let mut padded = [[MaybeUninit::uninit(); UNIT_BYTES]; MOST];
                let mut rests = pointers;
                for ((p, padded), row) in rests.iter_mut().zip(&mut padded).zip(pointers).take(S::LANES) {
                    let rest = std::slice::from_raw_parts(row.add(row_bytes - rest), rest);
                    *p = pad_unit::<S, T, _>(rest, padded);
                }
                unpack_unit::<S, T>(&rests, Place { c, u: row_bytes / unit_bytes, n, starts: &starts }, tile);
            }
        }
    }
}

/// Where a unit of `LANES` rows goes in a tile: which vector of columns, which unit of the rows, how many groups a row has
/// (those behind are padding and left out), and the first position of each lane.
pub(super) struct Place<'a> {
    pub(super) c: usize,
    pub(super) u: usize,
    pub(super) n: usize,
    pub(super) starts: &'a [usize; 32],
}

/// Unpacks a unit of `LANES` rows into the positions of its groups.
///
/// # Safety
/// Needs the instruction set `S`, a unit readable at each of the first `LANES` pointers, and a tile with room for `n`
/// groups.
#[inline(always)]
pub(super) unsafe fn unpack_unit<S: Lanes, T: Format>(rows: &[*const u8; MOST], place: Place<'_>, tile: &mut Weights) {
    let Place { c, u, n, starts } = place;
    let columns = S::COLS_Q * S::LANES;
    let (vectors, subs) = (T::GROUP / 4, unit::<S, T>() / (S::LANES * T::GROUP));
    // SAFETY: a unit is readable behind each of the first `LANES` row pointers, whose parts are written first; every store is to a position of a
    // group below `n`, for which `unpack_q8` made room.
    unsafe {
        let mut parts = [const { MaybeUninit::uninit() }; MOST];
        for (parts, row) in parts.iter_mut().zip(rows).take(S::LANES) {
            parts.write(T::parts::<S>(*row));
        }
        for sub in 0..subs {
            // Lane `g` of this vector of groups is at position `starts[g] + step`.
            let step = u * subs + sub;
            let exists = |lane: usize| step * S::LANES + lane < n;
            let mut scales = [S::bytes(rows[0]); MOST];
            let mut mins = scales;
            for r in 0..S::LANES {
                let (scale, min) = T::scales::<S>(rows[r], sub);
                (scales[r], mins[r]) = (S::as_bytes(scale), S::as_bytes(min));
            }
            S::transpose(&mut scales);
            if T::MINS {
                S::transpose(&mut mins);
            }
            for lane in (0..S::LANES).filter(|l| exists(*l)) {
                let at = (starts[lane] + step) * columns + c * S::LANES;
                S::bytes_store(tile.scales.as_mut_ptr().add(at).cast(), scales[lane]);
                if T::MINS {
                    S::bytes_store(tile.mins.as_mut_ptr().add(at).cast(), mins[lane]);
                }
            }
            for i in 0..vectors {
                let mut quants = scales;
                for r in 0..S::LANES {
                    quants[r] = T::quants::<S>(rows[r], parts[r].assume_init_ref(), sub * vectors + i);
                }
                S::transpose(&mut quants);
                for d in 0..S::LANES {
                    let element = (i * S::LANES + d) * 4;
                    let (lane, within) = (element / T::GROUP, element % T::GROUP);
                    if exists(lane) {
                        let at = ((starts[lane] + step) * T::GROUP + within) * columns + c * 4 * S::LANES;
                        S::bytes_store(tile.quants.as_mut_ptr().add(at), quants[d]);
                    }
                }
            }
        }
    }
}

/// Asks for the `part`-th of `parts` of the bytes that are read next.
#[inline(always)]
pub(super) unsafe fn fetch<S: Lanes>(ahead: &[u8], part: usize, parts: usize) {
    let lines = ahead.len().div_ceil(LINE);
    for line in lines * part / parts..lines * (part + 1) / parts {
        // SAFETY: a hint; the address need not be valid.
        unsafe { S::prefetch(ahead.as_ptr().wrapping_add(line * LINE)) };
    }
}

/// Bytes of a cache line, or of half of one.
const LINE: usize = 64;

/// Multiplies the tile with panel `panel`: `out[row * COLS * LANES + column]` for `ROWS` rows; meanwhile `ahead` is fetched.
///
/// # Safety
/// Needs the instruction set `S`.
#[inline(always)]
pub(crate) unsafe fn multiply_q8<S: Lanes, T: Format, const ROWS: usize, const COLS: usize>(
    tile: &Weights,
    x: &Panels,
    panel: usize,
    ahead: &[u8],
    out: &mut [f32],
) {
    let (n, first, columns) = (x.n, panel * x.n * ROWS, COLS * S::LANES);
    assert!(x.rows == ROWS && x.layout == (T::GROUP, offset::<S, T>()) && out.len() == ROWS * columns);
    assert!(COLS == S::COLS_Q && first + n * ROWS <= x.scales.len().min(x.quants.len() / T::GROUP));
    assert!(first + n * ROWS <= x.offsets.len().min(x.sums.len()));
    assert!(tile.scales.len() == n * columns && tile.quants.len() == n * columns * T::GROUP);
    assert!(tile.mins.len() == if T::MINS { n * columns } else { 0 });
    // Unknown to the compiler: a loop of known length is unrolled, and all of a group's weights loaded beforehand, for which
    // the registers do not suffice.
    let pairs = std::hint::black_box(T::GROUP / 8);
    // SAFETY: positions stay below `n`, for which both sides have room.
    unsafe {
        let mut w = (tile.quants.as_ptr(), tile.scales.as_ptr(), tile.mins.as_ptr());
        let mut x = (
            x.quants.as_ptr().add(first * T::GROUP),
            x.scales.as_ptr().add(first),
            x.offsets.as_ptr().add(first),
            x.sums.as_ptr().add(first),
        );
        let mut tree = Tree::<S, ROWS, COLS>::new();
        for rank in 0..S::LANES {
            fetch::<S>(ahead, rank, S::LANES);
            let mut acc = [[S::zero(); COLS]; ROWS];
            for _ in 0..in_lane(n, lane_at(rank, S::LANES), S::LANES) {
                let dots = group_dots::<S, T, ROWS, COLS>(w.0, x.0, x.2, pairs);
                let mut scales = [S::zero(); COLS];
                for (c, scale) in scales.iter_mut().enumerate() {
                    *scale = S::load(w.1.add(c * S::LANES));
                }
                for (r, (acc, dots)) in acc.iter_mut().zip(dots).enumerate() {
                    let x = S::splat(*x.1.add(r));
                    for ((acc, dot), scale) in acc.iter_mut().zip(dots).zip(scales) {
                        *acc = S::fma(S::mul(scale, x), S::to_f(S::close(dot, T::WIDE)), *acc);
                    }
                }
                if T::MINS {
                    for (r, acc) in acc.iter_mut().enumerate() {
                        let x = S::splat(*x.3.add(r));
                        for (c, acc) in acc.iter_mut().enumerate() {
                            *acc = S::fma(S::sub(S::zero(), S::load(w.2.add(c * S::LANES))), x, *acc);
                        }
                    }
                    w.2 = w.2.add(columns);
                }
                (w.0, w.1) = (w.0.add(T::GROUP * columns), w.1.add(columns));
                x = (x.0.add(ROWS * T::GROUP), x.1.add(ROWS), x.2.add(ROWS), x.3.add(ROWS));
            }
            tree.push(rank, acc);
        }
        tree.finish(S::LANES, out);
    }
}

/// The sums of products of one group: weights at `w`, activations at `x`, and what the sums begin with at `offsets`.
///
/// # Safety
/// Needs the instruction set `S`, and a position of a tile and of a panel behind the pointers.
#[inline(always)]
unsafe fn group_dots<S: Lanes, T: Format, const ROWS: usize, const COLS: usize>(
    w: *const u8,
    x: *const i8,
    offsets: *const i32,
    pairs: usize,
) -> [[S::A; COLS]; ROWS] {
    let (vectors, steps) = (T::GROUP / 4, const { steps(T::MOST) });
    // SAFETY: a group has `GROUP` elements on both sides.
    unsafe {
        let mut dots = [[S::open(S::int(0)); COLS]; ROWS];
        if offset::<S, T>() != 0 {
            for (r, dots) in dots.iter_mut().enumerate() {
                *dots = [S::open(S::int(*offsets.add(r))); COLS];
            }
        }
        for pair in 0..pairs {
            for four in [2 * pair, 2 * pair + 1] {
                let mut quants = [S::bytes(w.add(four * COLS * 4 * S::LANES)); COLS];
                for (c, quants) in quants.iter_mut().enumerate().skip(1) {
                    *quants = S::bytes(w.add((four * COLS + c) * 4 * S::LANES));
                }
                for (r, dots) in dots.iter_mut().enumerate() {
                    let x = S::bytes4(x.add(r * T::GROUP + four * 4).cast());
                    for (dot, w) in dots.iter_mut().zip(quants) {
                        *dot = if T::WIDE { S::dp_wide(*dot, w, x) } else { S::dp(*dot, w, x) };
                    }
                }
                if steps < vectors && (four + 1).is_multiple_of(steps) {
                    for dot in dots.as_flattened_mut() {
                        *dot = S::settle(*dot, T::WIDE);
                    }
                }
            }
        }
        if steps >= vectors || !vectors.is_multiple_of(steps) {
            for dot in dots.as_flattened_mut() {
                *dot = S::settle(*dot, T::WIDE);
            }
        }
        dots
    }
}

/// Sums of lanes on their way to the root: level `l` holds the sum of `2^l` lanes, as the digits of a binary counter.
/// A level is written before it is first read; clearing them all beforehand cost 7 % of a prefill.
struct Tree<S: Lanes, const ROWS: usize, const COLS: usize>([MaybeUninit<[[S::F; COLS]; ROWS]>; 6]);

impl<S: Lanes, const ROWS: usize, const COLS: usize> Tree<S, ROWS, COLS> {
    #[inline(always)]
    fn new() -> Self {
        Tree([const { MaybeUninit::uninit() }; 6])
    }

    /// Adds the lane of the next `rank`; ranks come in order from 0.
    #[inline(always)]
    unsafe fn push(&mut self, rank: usize, mut acc: [[S::F; COLS]; ROWS]) {
        let level = (!rank).trailing_zeros() as usize;
        for left in &self.0[..level] {
            // SAFETY: the low `level` bits of `rank` are set, so an earlier rank has written each of these levels.
            let left = unsafe { left.assume_init_ref() };
            for (acc, left) in acc.as_flattened_mut().iter_mut().zip(left.as_flattened()) {
                // SAFETY: no memory is touched.
                *acc = unsafe { S::add(*left, *acc) };
            }
        }
        self.0[level].write(acc);
    }

    /// Stores the sum of all `lanes` lanes, every rank below which has been pushed.
    #[inline(always)]
    unsafe fn finish(&self, lanes: usize, out: &mut [f32]) {
        // SAFETY: rank `lanes - 1`, all ones, has written this level.
        let root = unsafe { self.0[lanes.trailing_zeros() as usize].assume_init_ref() };
        for (out, root) in out.chunks_exact_mut(S::LANES).zip(root.as_flattened()) {
            // SAFETY: a chunk holds a vector.
            unsafe { S::store(out.as_mut_ptr(), *root) };
        }
    }
}

/// Fills the tile with columns of the rows in `w`, those of block `block`, as floats: position, column. There are at most
/// `COLS * LANES` rows of `row_bytes`. Elements are those of `PER * LANES` lanes.
///
/// # Safety
/// Needs the instruction set `S`.
#[inline(always)]
pub(crate) unsafe fn unpack_plain<S: Lanes, T: Plain, const COLS: usize, const PER: usize>(
    w: &[u8],
    row_bytes: usize,
    block: usize,
    tile: &mut Weights,
) {
    let first = block * PLAIN_BLOCK;
    assert!(T::bytes(first) < row_bytes, "a block beyond the row");
    let n = (T::elements(row_bytes) - first).min(PLAIN_BLOCK);
    tile.scales.resize(n * S::LANES * COLS, 0.0);
    let (starts, lanes) = (starts(n, PER * S::LANES), PER * S::LANES);
    for c in 0..COLS {
        let pointers = row_pointers(w, row_bytes, COLS * S::LANES, c * S::LANES);
        // SAFETY: whole vectors lie in each row, the rest is copied into zeroed buffers; elements from `n` on are left
        // out.
        unsafe {
            for at in (0..n).step_by(S::LANES) {
                let mut v = [S::as_bytes(S::zero()); MOST];
                let have = (n - at).min(S::LANES);
                for r in 0..S::LANES {
                    let (row, at) = (pointers[r], first + at);
                    let whole = have == S::LANES;
                    v[r] = S::as_bytes(if whole { T::load::<S>(row, at) } else { T::load_part::<S>(row, at, have) });
                }
                S::transpose(&mut v);
                for (i, v) in v[..have].iter().enumerate() {
                    let k = at + i;
                    let at = ((starts[k % lanes] + k / lanes) * COLS + c) * S::LANES;
                    S::bytes_store(tile.scales.as_mut_ptr().add(at).cast(), *v);
                }
            }
        }
    }
}

/// Multiplies a float tile with panel `panel`: `out[row * COLS * LANES + column]` for `ROWS` rows; meanwhile `ahead` is
/// fetched. An element of the panel is loaded once for all columns, since a processor loads no more often than it
/// multiplies.
///
/// # Safety
/// Needs the instruction set `S`.
#[inline(always)]
pub(crate) unsafe fn multiply_plain<S: Lanes, M: Product, const ROWS: usize, const COLS: usize, const PER: usize>(
    tile: &Weights,
    x: &Panels,
    panel: usize,
    ahead: &[u8],
    out: &mut [f32],
) {
    let (n, first) = (x.n, panel * x.n * ROWS);
    assert!(x.rows == ROWS && x.layout == M::LAYOUT && out.len() == ROWS * COLS * S::LANES);
    assert!(first + n * ROWS <= x.scales.len() && tile.scales.len() == n * COLS * S::LANES);
    // SAFETY: positions stay below `n`, for which both sides have room.
    unsafe {
        let (mut w, mut x) = (tile.scales.as_ptr(), x.scales.as_ptr().add(first));
        let mut tree = Tree::<S, ROWS, COLS>::new();
        for rank in 0..PER * S::LANES {
            fetch::<S>(ahead, rank, PER * S::LANES);
            let mut acc = [[S::zero(); COLS]; ROWS];
            for _ in 0..in_lane(n, lane_at(rank, PER * S::LANES), PER * S::LANES) {
                let mut v = [S::zero(); COLS];
                for (c, v) in v.iter_mut().enumerate() {
                    *v = S::load(w.add(c * S::LANES));
                }
                for (r, acc) in acc.iter_mut().enumerate() {
                    let x = S::splat(*x.add(r));
                    for (acc, v) in acc.iter_mut().zip(v) {
                        *acc = M::add::<S>(v, x, *acc);
                    }
                }
                (w, x) = (w.add(COLS * S::LANES), x.add(ROWS));
            }
            tree.push(rank, acc);
        }
        tree.finish(PER * S::LANES, out);
    }
}
