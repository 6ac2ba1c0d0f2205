//! F16 to floats and back, for which WebAssembly has no instruction.

use core::arch::wasm32::*;

/// Four F16, the low halves of 32 bits. The exponent is moved by a multiplication, which takes subnormal numbers along;
/// what were infinities and NaNs is put back.
#[inline(always)]
pub(super) fn from_halves(h: v128) -> v128 {
    let bits = i32x4_shl(v128_and(h, i32x4_splat(0x7fff)), 13);
    let special = v128_and(i32x4_ge(bits, i32x4_splat(0x7c00 << 13)), i32x4_splat(0x7f80_0000));
    let value = f32x4_mul(bits, f32x4_splat(f32::from_bits((127 + 112) << 23)));
    v128_or(v128_or(value, special), i32x4_shl(v128_and(h, i32x4_splat(0x8000)), 16))
}

/// Four floats to F16 in the low halves of 32 bits, rounded half to even; a NaN becomes the quiet one with the upper
/// bits of its payload.
#[inline(always)]
pub(super) fn to_halves(v: v128) -> v128 {
    let sign = v128_and(v, i32x4_splat(i32::MIN));
    let bits = v128_xor(v, sign);
    // Normal: the exponent less 112, and half a unit in the last place, less one where that place is even.
    let odd = v128_and(u32x4_shr(bits, 13), i32x4_splat(1));
    let normal = u32x4_shr(i32x4_add(i32x4_add(bits, odd), i32x4_splat(0xfff - (112 << 23))), 13);
    // Subnormal: an addition rounds at the place where the number's last bit comes to be.
    let magic = i32x4_splat((127 - 15 + 13 + 1) << 23);
    let subnormal = i32x4_sub(f32x4_add(bits, magic), magic);
    let half = v128_bitselect(subnormal, normal, i32x4_lt(bits, i32x4_splat((127 - 14) << 23)));
    let half = v128_bitselect(i32x4_splat(0x7c00), half, i32x4_ge(bits, i32x4_splat((127 + 16) << 23)));
    let nan = v128_or(v128_and(u32x4_shr(bits, 13), i32x4_splat(0x3ff)), i32x4_splat(0x7e00));
    let half = v128_bitselect(nan, half, i32x4_gt(bits, i32x4_splat(0x7f80_0000)));
    v128_or(half, u32x4_shr(sign, 16))
}

/// What the exam asks of halves.
#[cfg(feature = "exam")]
#[allow(unreachable_pub, reason = "the exam of the crate hands it on")]
pub mod exam {
    use super::*;

    /// Panics if a half converts otherwise.
    pub fn halves_convert_as_the_library_does() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits).to_f32();
            let got = f32x4_extract_lane::<0>(from_halves(i32x4_splat(i32::from(bits))));
            assert!(got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan(), "{bits:#x}");
            // Around every half and every middle between two.
            for near in [expected.to_bits(), expected.to_bits() | 0x1000, expected.to_bits() | 0x1001] {
                for v in [near, near.wrapping_sub(1), near + 1].map(f32::from_bits) {
                    let (got, expected) = (i32x4_extract_lane::<0>(to_halves(f32x4_splat(v))), half::f16::from_f32(v));
                    assert!(
                        got == i32::from(expected.to_bits()) || v.is_nan() && half::f16::from_bits(got as u16).is_nan(),
                        "{v:e}: {got:#x}"
                    );
                }
            }
        }
    }
}
