//! WebAssembly: 4 lanes. Plain simd128, and two forms with relaxed SIMD, all chosen at build time since a module with
//! instructions that a browser does not know does not load there at all.
//!
//! Relaxed dot products are used only where every machine must give the exact result: weights of at most 7 bits in the
//! 7-bit operand, and weights of 8 bits as two halves of 4 bits. What they cost differs: where the processor has one
//! instruction for a whole sum of four ([`DOT`]), and where it has one for sums of two in 16 bits ([`PAIRS`]), which
//! then are added up in 16 bits as long as they fit. The exact results are the same.

mod halves;

use core::arch::wasm32::*;

use super::lanes::{Lanes, lanes};
use halves::{from_halves, to_halves};

/// Products in 16 bits, no relaxed instruction.
pub(crate) const PLAIN: u8 = 0;
/// Relaxed sums of two.
pub(crate) const PAIRS: u8 = 1;
/// Relaxed sums of four.
pub(crate) const DOT: u8 = 2;

/// simd128 alone.
#[cfg(any(not(target_feature = "relaxed-simd"), feature = "exam"))]
pub(crate) mod plain {
    super::super::table::table!(super::Wasm<{ super::PLAIN }>, "simd128", "simd128");
}

/// For processors that multiply bytes by `pmaddubsw` or longer.
#[cfg(target_feature = "relaxed-simd")]
pub(crate) mod pairs {
    super::super::table::table!(super::Wasm<{ super::PAIRS }>, "relaxed-pairs", "simd128,relaxed-simd");
}

/// For processors with `vpdpbusd` or `sdot`.
#[cfg(target_feature = "relaxed-simd")]
pub(crate) mod dot {
    super::super::table::table!(super::Wasm<{ super::DOT }>, "relaxed-dot", "simd128,relaxed-simd");
}

/// Whether the relaxed sum of four is one instruction here. Outside the range that all machines agree on it shows what
/// the machine does: in two steps by way of 16 bits the sum saturates.
#[cfg(target_feature = "relaxed-simd")]
pub(crate) fn sums_four() -> bool {
    // Hidden from the optimiser, which may take any of the allowed results.
    let (a, b) = std::hint::black_box((i8x16_splat(127), i8x16_splat(-1)));
    i32x4_extract_lane::<0>(i32x4_relaxed_dot_i8x16_i7x16_add(a, b, i32x4_splat(0))) != 2 * 32767
}

#[derive(Clone, Copy)]
pub(crate) struct Wasm<const MODE: u8>;

/// Products on their way to a sum. `PLAIN`: those of the lower and of the upper eight bytes, in pairs. `DOT` and
/// `PAIRS`: those of the weights' low and high 4 bits; in pairs of 16 bits in the latter, whole ones being in `sum`.
#[derive(Clone, Copy)]
pub(crate) struct Products {
    low: v128,
    high: v128,
    sum: v128,
}

#[cfg(target_feature = "relaxed-simd")]
use relaxed::*;
#[cfg(target_feature = "relaxed-simd")]
mod relaxed {
    use core::arch::wasm32::*;

    /// Sums of two neighbouring products, `w` 0 to 127.
    #[inline(always)]
    pub(super) fn pairs(w: v128, x: v128) -> v128 {
        i16x8_relaxed_dot_i8x16_i7x16(x, w)
    }

    /// Sums of four, added to `acc`.
    #[inline(always)]
    pub(super) fn fours(acc: v128, w: v128, x: v128) -> v128 {
        i32x4_relaxed_dot_i8x16_i7x16_add(x, w, acc)
    }

    #[inline(always)]
    pub(super) fn multiply_add(a: v128, b: v128, c: v128) -> v128 {
        f32x4_relaxed_madd(a, b, c)
    }
}

/// The same without relaxed instructions.
#[cfg(not(target_feature = "relaxed-simd"))]
use portable::*;
#[cfg(not(target_feature = "relaxed-simd"))]
mod portable {
    use core::arch::wasm32::*;

    #[inline(always)]
    pub(super) fn pairs(w: v128, x: v128) -> v128 {
        let (a, b) = (i16x8_extmul_low_i8x16(w, x), i16x8_extmul_high_i8x16(w, x));
        let even = i16x8_shuffle::<0, 2, 4, 6, 8, 10, 12, 14>(a, b);
        i16x8_add(even, i16x8_shuffle::<1, 3, 5, 7, 9, 11, 13, 15>(a, b))
    }

    #[inline(always)]
    pub(super) fn fours(acc: v128, w: v128, x: v128) -> v128 {
        i32x4_add(acc, i32x4_extadd_pairwise_i16x8(pairs(w, x)))
    }

    #[inline(always)]
    pub(super) fn multiply_add(a: v128, b: v128, c: v128) -> v128 {
        f32x4_add(f32x4_mul(a, b), c)
    }
}

/// `[a0 + a1, a2 + a3, b0 + b1, b2 + b3]`.
#[inline(always)]
fn add_pairs(a: v128, b: v128) -> v128 {
    i32x4_add(i32x4_shuffle::<0, 2, 4, 6>(a, b), i32x4_shuffle::<1, 3, 5, 7>(a, b))
}

/// The larger one; `b` where either is NaN. Not `pmax`, which the compiler takes for the relaxed maximum, and that may
/// give either.
#[inline(always)]
fn larger(a: v128, b: v128) -> v128 {
    v128_bitselect(a, b, f32x4_gt(a, b))
}

/// The sum of each vector's lanes.
#[inline(always)]
fn sums(v: [v128; 4]) -> v128 {
    add_pairs(add_pairs(v[0], v[1]), add_pairs(v[2], v[3]))
}

/// Sums of two in 16 bits become sums of four in 32.
#[inline(always)]
fn widen(v: v128, factor: i16) -> v128 {
    i32x4_dot_i16x8(v, i16x8_splat(factor))
}

impl<const MODE: u8> Lanes for Wasm<MODE> {
    type F = v128;
    type I = v128;
    type Q = v128;
    type A = Products;
    const LANES: usize = 4;
    const ROWS_Q: usize = 4;
    const ROWS_F: usize = 8;
    const COLS_F: usize = 1;
    const WIDE_OFFSET: i32 = if MODE == PLAIN { 0 } else { 128 };

    lanes! {
        splat(v: f32) -> v128 = f32x4_splat(v);
        two(a: f32, b: f32) -> v128 = f32x4(a, a, b, b);
        load(p: *const f32) -> v128 = v128_load(p.cast());
        store(p: *mut f32, v: v128) = v128_store(p.cast(), v);
        load_f16(p: *const u8) -> v128 = from_halves(i32x4_load_extend_u16x4(p.cast()));
        store_f16(p: *mut u8, v: v128) = {
            let halves = u16x8_narrow_i32x4(to_halves(v), i32x4_splat(0));
            v128_store64_lane::<0>(halves, p.cast());
        };
        load_bf16(p: *const u8) -> v128 = i32x4_shl(i32x4_load_extend_u16x4(p.cast()), 16);
        load_e4m3(p: *const u8) -> v128 = {
            let v = u32x4_extend_low_u16x8(u16x8_extend_low_u8x16(v128_load32_zero(p.cast())));
            // A number below the normal ones is one with the least exponent, less that one's 1.
            let (size, least) = (v128_and(v, i32x4_splat(0x7f)), i32x4_splat(8));
            let below = i32x4_lt(size, least);
            let bits = i32x4_shl(v128_or(size, v128_and(below, least)), 20);
            let bits = i32x4_add(bits, i32x4_splat(120 << 23));
            let value = f32x4_sub(bits, v128_and(below, i32x4_splat(121 << 23)));
            let nan = v128_and(i32x4_eq(size, i32x4_splat(0x7f)), i32x4_splat(0x7fc0_0000));
            let sign = i32x4_shl(v128_and(v, i32x4_splat(0x80)), 24);
            v128_or(v128_or(value, sign), nan)
        };
        load_twice(p: *const f32) -> v128 = {
            let v = v128_load64_zero(p.cast());
            i32x4_shuffle::<0, 0, 1, 1>(v, v)
        };
        from_u8(p: *const u8) -> v128 = {
            let v = u16x8_extend_low_u8x16(v128_load32_zero(p.cast()));
            f32x4_convert_i32x4(u32x4_extend_low_u16x8(v))
        };
        from_i8(p: *const u8) -> v128 = {
            let v = i16x8_extend_low_i8x16(v128_load32_zero(p.cast()));
            f32x4_convert_i32x4(i32x4_extend_low_i16x8(v))
        };
        <const STRIDE: usize, const AT: usize> halves(p: *const u8) -> v128 = {
            let half = |i: usize| p.add(i * STRIDE + AT).cast::<u16>();
            let v = v128_load16_lane::<0>(i32x4_splat(0), half(0));
            let v = v128_load16_lane::<2>(v, half(1));
            let v = v128_load16_lane::<4>(v, half(2));
            from_halves(v128_load16_lane::<6>(v, half(3)))
        };
        add(a: v128, b: v128) -> v128 = f32x4_add(a, b);
        sub(a: v128, b: v128) -> v128 = f32x4_sub(a, b);
        mul(a: v128, b: v128) -> v128 = f32x4_mul(a, b);
        div(a: v128, b: v128) -> v128 = f32x4_div(a, b);
        fma(a: v128, b: v128, c: v128) -> v128 =
            if MODE == PLAIN { f32x4_add(f32x4_mul(a, b), c) } else { multiply_add(a, b, c) };
        max(a: v128, b: v128) -> v128 = larger(a, b);
        min_nan(a: v128, b: v128) -> v128 = v128_bitselect(a, b, f32x4_lt(a, b));
        max_nan(a: v128, b: v128) -> v128 = larger(a, b);
        round(a: v128) -> v128 = f32x4_nearest(a);
        exp2_int(n: v128) -> v128 = i32x4_shl(i32x4_add(f32x4_add(n, f32x4_splat(ROUND)), i32x4_splat(127)), 23);
        zero_below(v: v128, limit: v128, r: v128) -> v128 = v128_andnot(r, f32x4_lt(v, limit));
        sum(v: v128) -> f32 = {
            let v = f32x4_add(v, i32x4_shuffle::<2, 3, 0, 1>(v, v));
            f32x4_extract_lane::<0>(v) + f32x4_extract_lane::<1>(v)
        };
        max_lane(v: v128) -> f32 = {
            let v = larger(v, i32x4_shuffle::<2, 3, 0, 1>(v, v));
            f32x4_extract_lane::<0>(larger(v, i32x4_shuffle::<1, 0, 3, 2>(v, v)))
        };
        abs_max_bits(v: v128, max: v128) -> v128 = i32x4_max(v128_and(v, i32x4_splat(i32::MAX)), max);
        max_bits(v: v128) -> u32 = {
            let v = i32x4_max(v, i32x4_shuffle::<2, 3, 0, 1>(v, v));
            i32x4_extract_lane::<0>(i32x4_max(v, i32x4_shuffle::<1, 0, 3, 2>(v, v))) as u32
        };
        store_i8(p: *mut i8, v: v128) = {
            // The lowest byte of the sum is the rounded number.
            let v = f32x4_add(v, f32x4_splat(ROUND));
            let v = i8x16_shuffle::<0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12>(v, v);
            v128_store32_lane::<0>(v, p.cast());
        };

        int(v: i32) -> v128 = i32x4_splat(v);
        int_load(p: *const i32) -> v128 = v128_load(p.cast());
        int_sub(a: v128, b: v128) -> v128 = i32x4_sub(a, b);
        <const BITS: u32> int_shl(a: v128) -> v128 = i32x4_shl(a, BITS);
        to_f(v: v128) -> v128 = f32x4_convert_i32x4(v);

        open(sum: v128) -> Products = {
            let zero = i32x4_splat(0);
            if MODE == DOT { Products { low: sum, high: zero, sum: zero } } else { Products { low: zero, high: zero, sum } }
        };
        settle(acc: Products, wide: bool) -> Products = match MODE {
            PAIRS => {
                let sum = i32x4_add(acc.sum, widen(acc.low, 1));
                let sum = if wide { i32x4_add(sum, widen(acc.high, 16)) } else { sum };
                Products { sum, ..Self::open(i32x4_splat(0)) }
            }
            _ => acc,
        };
        close(acc: Products, wide: bool) -> v128 = match MODE {
            PLAIN => i32x4_add(acc.sum, add_pairs(acc.low, acc.high)),
            PAIRS => acc.sum,
            _ if wide => i32x4_add(acc.low, i32x4_shl(acc.high, 4)),
            _ => acc.low,
        };
        sum_groups32(v: [Products; 8], wide: bool) -> v128 = {
            let whole = v.map(|v| partial::<MODE>(v, wide));
            let two = |i: usize| i32x4_add(whole[i], whole[i + 1]);
            sums([two(0), two(2), two(4), two(6)])
        };
        sum_groups16(v: [Products; 4], wide: bool) -> v128 = sums(v.map(|v| partial::<MODE>(v, wide)));

        bytes(p: *const u8) -> v128 = v128_load(p.cast());
        bytes4(p: *const u8) -> v128 = v128_load32_splat(p.cast());
        bytes_store(p: *mut u8, v: v128) = v128_store(p.cast(), v);
        as_bytes(v: v128) -> v128 = v;
        transpose(v: &mut [v128; 16]) = {
            let (a, b) = (i32x4_shuffle::<0, 4, 1, 5>(v[0], v[1]), i32x4_shuffle::<2, 6, 3, 7>(v[0], v[1]));
            let (c, d) = (i32x4_shuffle::<0, 4, 1, 5>(v[2], v[3]), i32x4_shuffle::<2, 6, 3, 7>(v[2], v[3]));
            v[0] = i64x2_shuffle::<0, 2>(a, c);
            v[1] = i64x2_shuffle::<1, 3>(a, c);
            v[2] = i64x2_shuffle::<0, 2>(b, d);
            v[3] = i64x2_shuffle::<1, 3>(b, d);
        };
        or(a: v128, b: v128) -> v128 = v128_or(a, b);
        <const BITS: u32> shl(a: v128) -> v128 = u16x8_shl(a, BITS);
        dp(acc: Products, w: v128, x: v128) -> Products = match MODE {
            PLAIN => both_halves(acc, w, x),
            PAIRS => Products { low: i16x8_add(acc.low, pairs(w, x)), ..acc },
            _ => Products { low: fours(acc.low, w, x), ..acc },
        };
        dp_wide(acc: Products, w: v128, x: v128) -> Products = {
            let fifteen = u8x16_splat(15);
            let (low, high) = (v128_and(w, fifteen), v128_and(u16x8_shr(w, 4), fifteen));
            match MODE {
                PLAIN => both_halves(acc, w, x),
                PAIRS => Products {
                    low: i16x8_add(acc.low, pairs(low, x)),
                    high: i16x8_add(acc.high, pairs(high, x)),
                    ..acc
                },
                _ => Products { low: fours(acc.low, low, x), high: fours(acc.high, high, x), ..acc },
            }
        };
        wide(w: v128) -> v128 = if MODE == PLAIN { w } else { v128_xor(w, u8x16_splat(128)) };
        nibbles16(p: *const u8, stride: usize, i: usize) -> v128 = {
            let b = v128_load(p.add(i / 2 * stride).cast());
            v128_and(if i % 2 == 0 { b } else { u16x8_shr(b, 4) }, u8x16_splat(15))
        };
        bytes32(p: *const u8, stride: usize, i: usize) -> v128 = v128_load(p.add(i / 2 * stride + i % 2 * 16).cast());
        bits32(p: *const u8, stride: usize, i: usize) -> v128 = {
            let bits = v128_load16_splat(p.add(i / 2 * stride + i % 2 * 2).cast());
            let spread = i8x16_shuffle::<0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1>(bits, bits);
            let bit = u64x2_splat(0x8040_2010_0804_0201);
            v128_and(i8x16_eq(v128_and(spread, bit), bit), u8x16_splat(16))
        };
        <const BITS: u32> planes32(p: *const u8, i: usize) -> v128 = {
            let (planes, unit) = (8 / BITS as usize, i / 2);
            let all = v128_load(p.add(unit / planes * 32 + i % 2 * 16).cast());
            v128_and(u16x8_shr(all, (unit % planes) as u32 * BITS), u8x16_splat((1 << BITS) - 1))
        };
        nibbles64(p: *const u8, i: usize) -> v128 = {
            let all = v128_load(p.add(i / 8 * 64 + i % 4 * 16).cast());
            v128_and(if i / 4 % 2 == 0 { all } else { u16x8_shr(all, 4) }, u8x16_splat(15))
        };
        lookup16(table: &[i8; 16], at: v128) -> v128 = i8x16_swizzle(v128_load(table.as_ptr().cast()), at);
        negated(v: v128, signs: u64) -> v128 = {
            let bits = i16x8_splat(signs as i16);
            let spread = i8x16_shuffle::<0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1>(bits, bits);
            let bit = u64x2_splat(0x8040_2010_0804_0201);
            let set = i8x16_eq(v128_and(spread, bit), bit);
            i8x16_sub(v128_xor(v, set), set)
        };
        prefetch(_p: *const u8) = ();
    }
}

/// 1.5 * 2^23: added to a small number it leaves the integer nearest to it, half to even, in the low bits.
const ROUND: f32 = 12_582_912.0;

/// The products of the lower eight bytes and of the upper eight, in pairs.
#[inline(always)]
fn both_halves(acc: Products, w: v128, x: v128) -> Products {
    let low = i32x4_dot_i16x8(i16x8_extend_low_i8x16(w), i16x8_extend_low_i8x16(x));
    let high = i32x4_dot_i16x8(i16x8_extend_high_i8x16(w), i16x8_extend_high_i8x16(x));
    Products { low: i32x4_add(acc.low, low), high: i32x4_add(acc.high, high), ..acc }
}

/// Four numbers that add up to the sum of a vector's products after one `dp`.
#[inline(always)]
fn partial<const MODE: u8>(v: Products, wide: bool) -> v128 {
    match MODE {
        PLAIN => i32x4_add(v.low, v.high),
        PAIRS if wide => i32x4_add(widen(v.low, 1), widen(v.high, 16)),
        PAIRS => widen(v.low, 1),
        _ if wide => i32x4_add(v.low, i32x4_shl(v.high, 4)),
        _ => v.low,
    }
}

/// What the exam asks of the products themselves.
#[cfg(feature = "exam")]
pub mod exam {
    use super::*;
    pub use halves::exam::halves_convert_as_the_library_does;

    /// Every weight that a form takes with every activation, at each place of a vector.
    fn same_as_portable<const MODE: u8>(weights: std::ops::Range<i32>, wide: bool) {
        for w in weights {
            for x in -127..=127 {
                // Neighbours at their ends, so that sums of two and four are as large as they get.
                let (other_w, other_x) = ((if wide { -128 } else { 127 }) as i8, if x < 0 { -127 } else { 127 });
                let w = [w as i8, other_w, other_w, w as i8].repeat(4);
                let x = [x as i8, other_x, other_x, x as i8].repeat(4);
                let expected: i32 = (0..4).map(|i| i32::from(w[i]) * i32::from(x[i])).sum();
                type S<const M: u8> = Wasm<M>;
                // SAFETY: the arrays hold a vector.
                let got = unsafe {
                    let (wv, xv) = (v128_load(w.as_ptr().cast()), v128_load(x.as_ptr().cast()));
                    let zero = S::<MODE>::open(i32x4_splat(0));
                    let acc = if wide {
                        S::<MODE>::dp_wide(zero, S::<MODE>::wide(wv), xv)
                    } else {
                        S::<MODE>::dp(zero, wv, xv)
                    };
                    let dot = S::<MODE>::close(S::<MODE>::settle(acc, wide), wide);
                    let sum: i32 = x[..4].iter().map(|x| i32::from(*x)).sum();
                    let offset = if wide { S::<MODE>::WIDE_OFFSET * sum } else { 0 };
                    i32x4_sub(dot, i32x4_splat(offset))
                };
                assert!(i32x4_all_true(i32x4_eq(got, i32x4_splat(expected))), "{MODE} {w:?} {x:?}: {got:?}");
            }
        }
    }

    /// Panics if a form of the product is not exact.
    pub fn all_forms_give_the_exact_sums() {
        same_as_portable::<PLAIN>(0..128, false);
        same_as_portable::<PAIRS>(0..128, false);
        same_as_portable::<DOT>(0..128, false);
        same_as_portable::<PLAIN>(-128..128, true);
        same_as_portable::<PAIRS>(-128..128, true);
        same_as_portable::<DOT>(-128..128, true);
    }
}
