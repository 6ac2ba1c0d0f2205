//! The vocabulary that the fast kernels are written in: vectors of floats, of 32-bit sums and of 8-bit quants, and the
//! few shuffles that the block formats need. An instruction set is an implementation of [`Lanes`]; the kernels
//! themselves are in `floats`, `dots` and `tile`, written once.

use crate::quant::f16;
use crate::quant::grid::Grid;

/// An instruction set.
///
/// # Safety
/// Every function needs a machine that has the instruction set (the tables are only handed out where it was detected)
/// and, where it takes pointers, that many readable or writable elements behind them, at any alignment. All functions
/// are to be inlined into one that enables the instruction set.
///
/// `F` holds `LANES` floats, `I` `LANES` 32-bit integers and `Q` `4 * LANES` bytes. "The natural order" of quants is
/// that of the elements of the row: vector `i` holds elements `i * 4 * LANES` and following.
pub(crate) trait Lanes: Copy {
    type F: Copy;
    type I: Copy;
    type Q: Copy;
    /// Products on their way to sums of four: as `I`, or narrower as long as they fit.
    type A: Copy;
    /// Floats of a vector, a power of two.
    const LANES: usize;
    /// Activation rows of the 8-bit tile kernel: as many as the registers hold.
    const ROWS_Q: usize;
    /// Vectors of columns of the 8-bit tile kernel: an activation is loaded once for all of them.
    const COLS_Q: usize = 1;
    /// Whether two weight rows are multiplied at once with some activation rows (`dot_rows`).
    const DOT_ROWS: bool = false;
    /// Activation rows of the float tile kernel.
    const ROWS_F: usize;
    /// Vectors of columns of the float tile kernel: `ROWS_F * COLS_F` sums stay in registers.
    const COLS_F: usize;
    /// What `wide` adds to each quant.
    const WIDE_OFFSET: i32;

    unsafe fn splat(v: f32) -> Self::F;
    /// `a` in the lower half of the lanes, `b` in the upper.
    unsafe fn two(a: f32, b: f32) -> Self::F;
    unsafe fn load(p: *const f32) -> Self::F;
    unsafe fn store(p: *mut f32, v: Self::F);
    unsafe fn load_f16(p: *const u8) -> Self::F;
    unsafe fn store_f16(p: *mut u8, v: Self::F);
    unsafe fn load_bf16(p: *const u8) -> Self::F;
    /// One F16.
    #[inline(always)]
    unsafe fn half(p: *const u8) -> f32 {
        // SAFETY: two bytes are readable.
        f16(unsafe { p.cast::<[u8; 2]>().read() })
    }
    /// Floats of 8 bits, 4 of them of exponent.
    unsafe fn load_e4m3(p: *const u8) -> Self::F;
    /// `LANES / 2` floats, each twice.
    unsafe fn load_twice(p: *const f32) -> Self::F;
    unsafe fn from_u8(p: *const u8) -> Self::F;
    unsafe fn from_i8(p: *const u8) -> Self::F;
    /// The F16 at byte `AT` of each of `LANES` blocks of `STRIDE` bytes. Reads nothing beyond the last block.
    unsafe fn halves<const STRIDE: usize, const AT: usize>(p: *const u8) -> Self::F;
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once where the instruction set can.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `c` plus the products of pairs of BF16 numbers, two in each lane of `a` and `b`. Only where a table says that the
    /// instruction set has it.
    #[inline(always)]
    unsafe fn fma_pairs(_a: Self::F, _b: Self::F, _c: Self::F) -> Self::F {
        unreachable!("no table of this instruction set multiplies pairs")
    }
    /// The larger one; `b` where `a` is NaN.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// The smaller one; NaN where `b` is NaN.
    unsafe fn min_nan(a: Self::F, b: Self::F) -> Self::F;
    /// The larger one; NaN where `b` is NaN.
    unsafe fn max_nan(a: Self::F, b: Self::F) -> Self::F;
    /// Rounded to the nearest integer, half to even.
    unsafe fn round(a: Self::F) -> Self::F;
    /// `2^n` for integral `n` from -126 to 127.
    unsafe fn exp2_int(n: Self::F) -> Self::F;
    /// `r`, or 0 where `v < limit`.
    unsafe fn zero_below(v: Self::F, limit: Self::F, r: Self::F) -> Self::F;
    /// The sum as a tree: lanes `i` and `i + LANES / 2` first, then halves of halves.
    unsafe fn sum(v: Self::F) -> f32;
    unsafe fn max_lane(v: Self::F) -> f32;
    /// The largest absolute value by its bits: infinity above all numbers, NaN above infinity.
    unsafe fn abs_max_bits(v: Self::F, max: Self::I) -> Self::I;
    unsafe fn max_bits(v: Self::I) -> u32;
    /// Rounded half to even, to `LANES` bytes; |v| at most 127.
    unsafe fn store_i8(p: *mut i8, v: Self::F);

    unsafe fn int(v: i32) -> Self::I;
    unsafe fn int_load(p: *const i32) -> Self::I;
    unsafe fn int_sub(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn int_shl<const BITS: u32>(a: Self::I) -> Self::I;
    unsafe fn to_f(v: Self::I) -> Self::F;
    /// The sums of 32-groups: `v` are eight vectors of products in natural order, one `dp` (of weights up to 64) or `dp_wide`
    /// each, opened with 0.
    unsafe fn sum_groups32(v: [Self::A; 8], wide: bool) -> Self::I;
    /// The sums of 16-groups, from four such vectors.
    unsafe fn sum_groups16(v: [Self::A; 4], wide: bool) -> Self::I;
    /// The beginning of a sum of products on top of `sum`.
    unsafe fn open(sum: Self::I) -> Self::A;
    /// Makes room in a narrow sum; to be called after at most [`steps`] times `dp`, or 8 times `dp_wide`.
    unsafe fn settle(acc: Self::A, wide: bool) -> Self::A;
    /// The sums of four neighbours, settled.
    unsafe fn close(acc: Self::A, wide: bool) -> Self::I;

    unsafe fn bytes(p: *const u8) -> Self::Q;
    /// Four bytes in every lane.
    unsafe fn bytes4(p: *const u8) -> Self::Q;
    unsafe fn bytes_store(p: *mut u8, v: Self::Q);
    /// The bits of floats.
    unsafe fn as_bytes(v: Self::F) -> Self::Q;
    /// Transposes the first `LANES` vectors as a matrix of four-byte elements.
    unsafe fn transpose(v: &mut [Self::Q; 16]);
    unsafe fn or(a: Self::Q, b: Self::Q) -> Self::Q;
    /// Each byte shifted; no bit may leave its byte.
    unsafe fn shl<const BITS: u32>(a: Self::Q) -> Self::Q;
    /// Sums of four neighbouring products added to `acc`: `w` 0 to 127, `x` -127 to 127.
    unsafe fn dp(acc: Self::A, w: Self::Q, x: Self::Q) -> Self::A;
    /// The same for any signed quants that went through `wide`.
    unsafe fn dp_wide(acc: Self::A, w: Self::Q, x: Self::Q) -> Self::A;
    /// Signed quants made ready for `dp_wide`: `WIDE_OFFSET` is added.
    unsafe fn wide(w: Self::Q) -> Self::Q;
    /// Vector `i` of blocks of 16 bytes that lie `stride` apart, the low nibbles before the high ones.
    unsafe fn nibbles16(p: *const u8, stride: usize, i: usize) -> Self::Q;
    /// Vector `i` of blocks of 32 bytes that lie `stride` apart.
    unsafe fn bytes32(p: *const u8, stride: usize, i: usize) -> Self::Q;
    /// Vector `i` of blocks of 32 bits that lie `stride` apart, each bit as a byte 0 or 16.
    unsafe fn bits32(p: *const u8, stride: usize, i: usize) -> Self::Q;
    /// Vector `i` of runs of 32 bytes that each hold `8 / BITS` planes of 32 small numbers, the lowest bits first.
    unsafe fn planes32<const BITS: u32>(p: *const u8, i: usize) -> Self::Q;
    /// Vector `i` of runs of 64 bytes, the low nibbles before the high ones.
    unsafe fn nibbles64(p: *const u8, i: usize) -> Self::Q;
    /// The entries of a table of 16 that bytes of 0 to 15 name.
    unsafe fn lookup16(table: &[i8; 16], at: Self::Q) -> Self::Q;
    /// The rows of a grid that the indices name, one after the other.
    ///
    /// # Safety
    /// The indices are below `ROWS`, and as many bytes as their rows have are writable at `out`.
    #[inline(always)]
    unsafe fn look_up<T: Copy, const N: usize, const ROWS: usize>(
        grid: &Grid<T, ROWS>,
        indices: &[u16; N],
        out: *mut u8,
    ) {
        // SAFETY: the caller's promise.
        unsafe { each_row(grid, indices, out) };
    }
    /// Each byte, negated where its bit of `signs` is set, the lowest bit for the first byte.
    unsafe fn negated(v: Self::Q, signs: u64) -> Self::Q;
    /// A hint that this address is read soon; it need not be valid.
    unsafe fn prefetch(p: *const u8);

    /// The first `n` floats, then zeros.
    #[inline(always)]
    unsafe fn load_part(p: *const f32, n: usize) -> Self::F {
        let mut buffer = [0.0_f32; 16];
        // SAFETY: `n` floats are readable, `n <= LANES <= 16`.
        unsafe {
            std::ptr::copy_nonoverlapping(p.cast::<u8>(), buffer.as_mut_ptr().cast(), n * 4);
            Self::load(buffer.as_ptr())
        }
    }

    /// Stores the first `n` floats.
    #[inline(always)]
    unsafe fn store_part(p: *mut f32, v: Self::F, n: usize) {
        let mut buffer = [0.0_f32; 16];
        // SAFETY: `n` floats are writable, `n <= LANES <= 16`.
        unsafe {
            Self::store(buffer.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(buffer.as_ptr(), p, n);
        }
    }

    #[inline(always)]
    unsafe fn zero() -> Self::F {
        // SAFETY: as the trait's.
        unsafe { Self::splat(0.0) }
    }
}

/// As [`Lanes::look_up`], row by row.
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn each_row<T: Copy, const N: usize, const ROWS: usize>(
    grid: &Grid<T, ROWS>,
    indices: &[u16; N],
    out: *mut u8,
) {
    for (i, index) in indices.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { out.cast::<T>().add(i).write_unaligned(*grid.rows.get_unchecked(usize::from(*index))) };
    }
}

/// How many sums of two products fit in 16 bits, for weights up to `most` and activations up to 127; at most 8.
pub(crate) const fn steps(most: i32) -> usize {
    let fit = i16::MAX as i32 / (2 * 127 * most);
    if fit < 8 { fit as usize } else { 8 }
}

/// Defines functions of an implementation of [`Lanes`], each inlined and with the trait's contract.
macro_rules! lanes {
    ($($(<$(const $c:ident: $ct:ty),+>)? $name:ident($($a:ident: $t:ty),*) $(-> $r:ty)? = $body:expr;)*) => {
        $(
            #[inline(always)]
            #[allow(unused_unsafe, reason = "where the instruction set is the target's base, most of them are safe")]
            unsafe fn $name$(<$(const $c: $ct),+>)?($($a: $t),*) $(-> $r)? {
                // SAFETY: the contract of `Lanes`: the instruction set is there and the pointers hold.
                unsafe { $body }
            }
        )*
    };
}
pub(crate) use lanes;

/// For instruction sets whose products go straight into sums of 32 bits.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! straight {
    ($i:ty) => {
        lanes! {
            open(sum: $i) -> $i = sum;
            settle(acc: $i, _wide: bool) -> $i = acc;
            close(acc: $i, _wide: bool) -> $i = acc;
        }
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use straight;
