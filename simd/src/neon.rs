//! NEON: 4 lanes; two tables, without and with the dot-product extension (every Apple M, Cortex-A76 and later).
//! The three instructions that older compilers have no stable name for are written as assembly.

use std::arch::aarch64::*;
use std::arch::asm;

use super::lanes::{Lanes, lanes, straight};

/// Plain ARMv8.0, which every 64-bit ARM has.
pub(crate) mod base {
    super::super::table::table!(super::Neon<false>, "neon", "neon");
}

/// With `sdot`.
pub(crate) mod dot {
    super::super::table::table!(super::Neon<true>, "neon-dot", "neon,dotprod");
}

#[derive(Clone, Copy)]
pub(crate) struct Neon<const DOT: bool>;

#[inline(always)]
unsafe fn half4(p: *const u8) -> float32x4_t {
    let out: float32x4_t;
    // SAFETY: 8 bytes are readable; converting touches no memory.
    unsafe {
        let v = vld1_u8(p);
        asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) out, in(vreg) v, options(pure, nomem, nostack, preserves_flags));
    }
    out
}

/// Sums of four neighbouring products; fits in 32 bits for any bytes.
#[inline(always)]
unsafe fn dp<const DOT: bool>(acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: no memory is touched; `sdot` is only reached in the table that needs it.
    unsafe {
        if DOT {
            let mut acc = acc;
            asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) acc, in(vreg) w, in(vreg) x,
                options(pure, nomem, nostack, preserves_flags));
            acc
        } else {
            let low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
            let high = vmull_high_s8(w, x);
            vaddq_s32(acc, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)))
        }
    }
}

impl<const DOT: bool> Lanes for Neon<DOT> {
    type F = float32x4_t;
    type I = int32x4_t;
    type Q = int8x16_t;
    type A = int32x4_t;
    const LANES: usize = 4;
    const ROWS_Q: usize = 8;
    const ROWS_F: usize = 8;
    const COLS_F: usize = 2;
    const WIDE_OFFSET: i32 = 0;

    straight!(int32x4_t);
    lanes! {
        splat(v: f32) -> float32x4_t = vdupq_n_f32(v);
        two(a: f32, b: f32) -> float32x4_t = vcombine_f32(vdup_n_f32(a), vdup_n_f32(b));
        load(p: *const f32) -> float32x4_t = vreinterpretq_f32_u8(vld1q_u8(p.cast()));
        store(p: *mut f32, v: float32x4_t) = vst1q_u8(p.cast(), vreinterpretq_u8_f32(v));
        load_f16(p: *const u8) -> float32x4_t = half4(p);
        store_f16(p: *mut u8, v: float32x4_t) = {
            let out: uint8x8_t;
            asm!("fcvtn {0:v}.4h, {1:v}.4s", out(vreg) out, in(vreg) v, options(pure, nomem, nostack, preserves_flags));
            vst1_u8(p, out)
        };
        load_bf16(p: *const u8) -> float32x4_t =
            vreinterpretq_f32_u32(vshll_n_u16::<16>(vreinterpret_u16_u8(vld1_u8(p))));
        load_e4m3(p: *const u8) -> float32x4_t = {
            let v = vcreate_u8(u64::from(p.cast::<u32>().read_unaligned()));
            let v = vmovl_u16(vget_low_u16(vmovl_u8(v)));
            // A number below the normal ones is one with the least exponent, less that one's 1.
            let (size, least) = (vandq_u32(v, vdupq_n_u32(0x7f)), vdupq_n_u32(8));
            let below = vcltq_u32(size, least);
            let bits = vshlq_n_u32::<20>(vorrq_u32(size, vandq_u32(below, least)));
            let bits = vaddq_u32(bits, vdupq_n_u32(120 << 23));
            let one = vandq_u32(below, vdupq_n_u32(121 << 23));
            let value = vsubq_f32(vreinterpretq_f32_u32(bits), vreinterpretq_f32_u32(one));
            let nan = vandq_u32(vceqq_u32(size, vdupq_n_u32(0x7f)), vdupq_n_u32(0x7fc0_0000));
            let sign = vshlq_n_u32::<24>(vandq_u32(v, vdupq_n_u32(0x80)));
            vreinterpretq_f32_u32(vorrq_u32(vorrq_u32(vreinterpretq_u32_f32(value), sign), nan))
        };
        load_twice(p: *const f32) -> float32x4_t = {
            let v = vreinterpret_f32_u8(vld1_u8(p.cast()));
            vcombine_f32(vdup_lane_f32::<0>(v), vdup_lane_f32::<1>(v))
        };
        from_u8(p: *const u8) -> float32x4_t = {
            let v = vcreate_u8(u64::from(p.cast::<u32>().read_unaligned()));
            vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(v))))
        };
        from_i8(p: *const u8) -> float32x4_t = {
            let v = vcreate_s8(u64::from(p.cast::<u32>().read_unaligned()));
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(v))))
        };
        <const STRIDE: usize, const AT: usize> halves(p: *const u8) -> float32x4_t = {
            let half = |i: usize| u64::from(p.add(i * STRIDE + AT).cast::<u16>().read_unaligned());
            let all = half(0) | half(1) << 16 | half(2) << 32 | half(3) << 48;
            half4((&raw const all).cast())
        };
        add(a: float32x4_t, b: float32x4_t) -> float32x4_t = vaddq_f32(a, b);
        sub(a: float32x4_t, b: float32x4_t) -> float32x4_t = vsubq_f32(a, b);
        mul(a: float32x4_t, b: float32x4_t) -> float32x4_t = vmulq_f32(a, b);
        div(a: float32x4_t, b: float32x4_t) -> float32x4_t = vdivq_f32(a, b);
        fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t = vfmaq_f32(c, a, b);
        max(a: float32x4_t, b: float32x4_t) -> float32x4_t = vmaxnmq_f32(a, b);
        min_nan(a: float32x4_t, b: float32x4_t) -> float32x4_t = vminq_f32(a, b);
        max_nan(a: float32x4_t, b: float32x4_t) -> float32x4_t = vmaxq_f32(a, b);
        round(a: float32x4_t) -> float32x4_t = vrndnq_f32(a);
        exp2_int(n: float32x4_t) -> float32x4_t =
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127))));
        zero_below(v: float32x4_t, limit: float32x4_t, r: float32x4_t) -> float32x4_t =
            vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(r), vcltq_f32(v, limit)));
        sum(v: float32x4_t) -> f32 = {
            let v = vadd_f32(vget_low_f32(v), vget_high_f32(v));
            vget_lane_f32::<0>(v) + vget_lane_f32::<1>(v)
        };
        max_lane(v: float32x4_t) -> f32 = vmaxvq_f32(v);
        abs_max_bits(v: float32x4_t, max: int32x4_t) -> int32x4_t =
            vmaxq_s32(vandq_s32(vreinterpretq_s32_f32(v), vdupq_n_s32(0x7fff_ffff)), max);
        max_bits(v: int32x4_t) -> u32 = vmaxvq_s32(v) as u32;
        store_i8(p: *mut i8, v: float32x4_t) = {
            let v = vmovn_s32(vcvtnq_s32_f32(v));
            let v = vmovn_s16(vcombine_s16(v, v));
            p.cast::<u32>().write_unaligned(vget_lane_u32::<0>(vreinterpret_u32_s8(v)))
        };

        int(v: i32) -> int32x4_t = vdupq_n_s32(v);
        int_load(p: *const i32) -> int32x4_t = vreinterpretq_s32_u8(vld1q_u8(p.cast()));
        int_sub(a: int32x4_t, b: int32x4_t) -> int32x4_t = vsubq_s32(a, b);
        <const BITS: u32> int_shl(a: int32x4_t) -> int32x4_t = vshlq_s32(a, vdupq_n_s32(BITS as i32));
        to_f(v: int32x4_t) -> float32x4_t = vcvtq_f32_s32(v);
        sum_groups32(v: [int32x4_t; 8], _wide: bool) -> int32x4_t = {
            let low = vpaddq_s32(vaddq_s32(v[0], v[1]), vaddq_s32(v[2], v[3]));
            let high = vpaddq_s32(vaddq_s32(v[4], v[5]), vaddq_s32(v[6], v[7]));
            vpaddq_s32(low, high)
        };
        sum_groups16(v: [int32x4_t; 4], _wide: bool) -> int32x4_t = vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3]));

        bytes(p: *const u8) -> int8x16_t = vreinterpretq_s8_u8(vld1q_u8(p));
        bytes4(p: *const u8) -> int8x16_t = vreinterpretq_s8_u32(vdupq_n_u32(p.cast::<u32>().read_unaligned()));
        bytes_store(p: *mut u8, v: int8x16_t) = vst1q_u8(p, vreinterpretq_u8_s8(v));
        as_bytes(v: float32x4_t) -> int8x16_t = vreinterpretq_s8_f32(v);
        transpose(v: &mut [int8x16_t; 16]) = {
            let word = |v| vreinterpretq_s32_s8(v);
            let (a, b) = (vtrn1q_s32(word(v[0]), word(v[1])), vtrn2q_s32(word(v[0]), word(v[1])));
            let (c, d) = (vtrn1q_s32(word(v[2]), word(v[3])), vtrn2q_s32(word(v[2]), word(v[3])));
            let pair = |v| vreinterpretq_s64_s32(v);
            v[0] = vreinterpretq_s8_s64(vtrn1q_s64(pair(a), pair(c)));
            v[1] = vreinterpretq_s8_s64(vtrn1q_s64(pair(b), pair(d)));
            v[2] = vreinterpretq_s8_s64(vtrn2q_s64(pair(a), pair(c)));
            v[3] = vreinterpretq_s8_s64(vtrn2q_s64(pair(b), pair(d)));
        };
        or(a: int8x16_t, b: int8x16_t) -> int8x16_t = vorrq_s8(a, b);
        <const BITS: u32> shl(a: int8x16_t) -> int8x16_t = vshlq_s8(a, vdupq_n_s8(BITS as i8));
        dp(acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t = dp::<DOT>(acc, w, x);
        dp_wide(acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t = dp::<DOT>(acc, w, x);
        wide(w: int8x16_t) -> int8x16_t = w;
        nibbles16(p: *const u8, stride: usize, i: usize) -> int8x16_t = {
            let b = vld1q_u8(p.add(i / 2 * stride));
            let b = if i % 2 == 0 { vandq_u8(b, vdupq_n_u8(15)) } else { vshrq_n_u8::<4>(b) };
            vreinterpretq_s8_u8(b)
        };
        bytes32(p: *const u8, stride: usize, i: usize) -> int8x16_t =
            vreinterpretq_s8_u8(vld1q_u8(p.add(i / 2 * stride + i % 2 * 16)));
        bits32(p: *const u8, stride: usize, i: usize) -> int8x16_t = {
            let bits = p.add(i / 2 * stride + i % 2 * 2);
            let spread = vcombine_u8(vdup_n_u8(*bits), vdup_n_u8(*bits.add(1)));
            let bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
            vreinterpretq_s8_u8(vandq_u8(vtstq_u8(spread, bit), vdupq_n_u8(16)))
        };
        <const BITS: u32> planes32(p: *const u8, i: usize) -> int8x16_t = {
            let (planes, unit) = (8 / BITS as usize, i / 2);
            let all = vld1q_u8(p.add(unit / planes * 32 + i % 2 * 16));
            let shifted = vshlq_u8(all, vdupq_n_s8(-((unit % planes) as i8 * BITS as i8)));
            vreinterpretq_s8_u8(vandq_u8(shifted, vdupq_n_u8((1 << BITS) - 1)))
        };
        nibbles64(p: *const u8, i: usize) -> int8x16_t = {
            let all = vld1q_u8(p.add(i / 8 * 64 + i % 4 * 16));
            let b = if i / 4 % 2 == 0 { vandq_u8(all, vdupq_n_u8(15)) } else { vshrq_n_u8::<4>(all) };
            vreinterpretq_s8_u8(b)
        };
        lookup16(table: &[i8; 16], at: int8x16_t) -> int8x16_t =
            vqtbl1q_s8(vreinterpretq_s8_u8(vld1q_u8(table.as_ptr().cast())), vreinterpretq_u8_s8(at));
        negated(v: int8x16_t, signs: u64) -> int8x16_t = {
            let spread = vcombine_u8(vdup_n_u8(signs as u8), vdup_n_u8((signs >> 8) as u8));
            let bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
            let set = vreinterpretq_s8_u8(vtstq_u8(spread, bit));
            vsubq_s8(veorq_s8(v, set), set)
        };
        prefetch(p: *const u8) = asm!("prfm pldl1keep, [{0}]", in(reg) p, options(nostack, preserves_flags, readonly));
    }
}
