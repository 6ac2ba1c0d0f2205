//! AVX2 with FMA and F16C: 8 lanes.

use std::arch::x86_64::*;

use super::lanes::{Lanes, lanes};
use super::table::table;

table!(Avx2, "avx2", "avx2,fma,f16c");

#[derive(Clone, Copy)]
pub(crate) struct Avx2;

/// Products on their way to sums of four: sums of two in 16 bits, which take one instruction less each as long as they fit,
/// and whole ones.
#[derive(Clone, Copy)]
pub(crate) struct Products {
    pairs: __m256i,
    sum: __m256i,
}

/// Sums of two in 16 bits become sums of four in 32.
#[inline(always)]
unsafe fn widen(pairs: __m256i) -> __m256i {
    // SAFETY: no memory is touched; the instruction set is there by the contract of `Lanes`.
    unsafe { _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)) }
}

/// `add_pairs` of the sums of four of `a` and of `b`, one product each. Those of weights up to 64 fit in 16 bits.
#[inline(always)]
unsafe fn add_products(a: Products, b: Products, wide: bool) -> __m256i {
    // SAFETY: no memory is touched; the instruction set is there by the contract of `Lanes`.
    unsafe { if wide { add_pairs(a.sum, b.sum) } else { widen(_mm256_hadd_epi16(a.pairs, b.pairs)) } }
}

/// The sum of eight lanes as a tree.
#[inline(always)]
pub(crate) unsafe fn sum256(v: __m256) -> f32 {
    // SAFETY: no memory is touched; the instruction set is there by the contract of `Lanes`.
    unsafe {
        let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
        _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
    }
}

/// `[a0 + a1, a2 + a3, b0 + b1, b2 + b3]` of each 128-bit part.
#[inline(always)]
unsafe fn add_pairs(a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: no memory is touched; the instruction set is there by the contract of `Lanes`.
    unsafe { _mm256_hadd_epi32(a, b) }
}

impl Lanes for Avx2 {
    type F = __m256;
    type I = __m256i;
    type Q = __m256i;
    type A = Products;
    const LANES: usize = 8;
    const ROWS_Q: usize = 4;
    const DOT_ROWS: bool = true;
    const ROWS_F: usize = 6;
    const COLS_F: usize = 2;
    const WIDE_OFFSET: i32 = 0;

    lanes! {
        open(sum: __m256i) -> Products = Products { pairs: _mm256_setzero_si256(), sum };
        settle(acc: Products, wide: bool) -> Products = if wide {
            acc
        } else {
            Products { pairs: _mm256_setzero_si256(), sum: _mm256_add_epi32(acc.sum, widen(acc.pairs)) }
        };
        close(acc: Products, _wide: bool) -> __m256i = acc.sum;
        splat(v: f32) -> __m256 = _mm256_set1_ps(v);
        two(a: f32, b: f32) -> __m256 = _mm256_insertf128_ps::<1>(_mm256_set1_ps(a), _mm_set1_ps(b));
        load(p: *const f32) -> __m256 = _mm256_loadu_ps(p);
        store(p: *mut f32, v: __m256) = _mm256_storeu_ps(p, v);
        load_f16(p: *const u8) -> __m256 = _mm256_cvtph_ps(_mm_loadu_si128(p.cast()));
        half(p: *const u8) -> f32 =
            _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(p.cast::<u16>().read_unaligned()))));
        store_f16(p: *mut u8, v: __m256) = _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v));
        load_bf16(p: *const u8) -> __m256 =
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()))));
        load_e4m3(p: *const u8) -> __m256 = {
            // Sign and low bits where f16 has them, whose exponents are 8 more; the bit between is the sign's copy.
            let shifted = _mm_slli_epi16::<7>(_mm_cvtepi8_epi16(_mm_loadl_epi64(p.cast())));
            let (bits, nan) = (_mm_and_si128(shifted, _mm_set1_epi16(0xbf80_u16 as i16)), _mm_set1_epi16(0x3f80));
            let nan = _mm_cmpeq_epi16(_mm_and_si128(bits, nan), nan);
            let bits = _mm_or_si128(bits, _mm_and_si128(nan, _mm_set1_epi16(0x7e00)));
            _mm256_mul_ps(_mm256_cvtph_ps(bits), _mm256_set1_ps(256.0))
        };
        load_twice(p: *const f32) -> __m256 = _mm256_permutevar8x32_ps(
            _mm256_castps128_ps256(_mm_loadu_ps(p)), _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
        from_u8(p: *const u8) -> __m256 = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast())));
        from_i8(p: *const u8) -> __m256 = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast())));
        <const STRIDE: usize, const AT: usize> halves(p: *const u8) -> __m256 = {
            let half = |i: usize| p.add(i * STRIDE + AT).cast::<i16>().read_unaligned();
            _mm256_cvtph_ps(_mm_setr_epi16(half(0), half(1), half(2), half(3), half(4), half(5), half(6), half(7)))
        };
        add(a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
        sub(a: __m256, b: __m256) -> __m256 = _mm256_sub_ps(a, b);
        mul(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
        div(a: __m256, b: __m256) -> __m256 = _mm256_div_ps(a, b);
        fma(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
        max(a: __m256, b: __m256) -> __m256 = _mm256_max_ps(a, b);
        min_nan(a: __m256, b: __m256) -> __m256 = _mm256_min_ps(a, b);
        max_nan(a: __m256, b: __m256) -> __m256 = _mm256_max_ps(a, b);
        round(a: __m256) -> __m256 = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
        exp2_int(n: __m256) -> __m256 = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(
            _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127))));
        zero_below(v: __m256, limit: __m256, r: __m256) -> __m256 =
            _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(v, limit), r);
        sum(v: __m256) -> f32 = sum256(v);
        max_lane(v: __m256) -> f32 = {
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        };
        abs_max_bits(v: __m256, max: __m256i) -> __m256i = _mm256_max_epu32(
            _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(0x7fff_ffff)), max);
        max_bits(v: __m256i) -> u32 = {
            let v = _mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
            let v = _mm_max_epu32(v, _mm_shuffle_epi32::<0b01_00_11_10>(v));
            _mm_cvtsi128_si32(_mm_max_epu32(v, _mm_shuffle_epi32::<0b10_11_00_01>(v))) as u32
        };
        store_i8(p: *mut i8, v: __m256) = {
            let v = _mm256_cvtps_epi32(v);
            let v = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
            _mm_storel_epi64(p.cast(), _mm_packs_epi16(v, v));
        };

        int(v: i32) -> __m256i = _mm256_set1_epi32(v);
        int_load(p: *const i32) -> __m256i = _mm256_loadu_si256(p.cast());
        int_sub(a: __m256i, b: __m256i) -> __m256i = _mm256_sub_epi32(a, b);
        <const BITS: u32> int_shl(a: __m256i) -> __m256i = _mm256_sll_epi32(a, _mm_cvtsi32_si128(BITS as i32));
        to_f(v: __m256i) -> __m256 = _mm256_cvtepi32_ps(v);
        sum_groups32(v: [Products; 8], wide: bool) -> __m256i = {
            let two = |i: usize| add_products(v[i], v[i + 1], wide);
            let (a, b) = (add_pairs(two(0), two(2)), add_pairs(two(4), two(6)));
            _mm256_add_epi32(_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b))
        };
        sum_groups16(v: [Products; 4], wide: bool) -> __m256i = _mm256_permutevar8x32_epi32(
            add_pairs(add_products(v[0], v[1], wide), add_products(v[2], v[3], wide)),
            _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));

        bytes(p: *const u8) -> __m256i = _mm256_loadu_si256(p.cast());
        bytes4(p: *const u8) -> __m256i = _mm256_set1_epi32(p.cast::<i32>().read_unaligned());
        bytes_store(p: *mut u8, v: __m256i) = _mm256_storeu_si256(p.cast(), v);
        as_bytes(v: __m256) -> __m256i = _mm256_castps_si256(v);
        transpose(v: &mut [__m256i; 16]) = {
            let mut t = *v;
            for i in 0..4 {
                t[2 * i] = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
                t[2 * i + 1] = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
            }
            for q in 0..2 {
                v[4 * q] = _mm256_unpacklo_epi64(t[4 * q], t[4 * q + 2]);
                v[4 * q + 1] = _mm256_unpackhi_epi64(t[4 * q], t[4 * q + 2]);
                v[4 * q + 2] = _mm256_unpacklo_epi64(t[4 * q + 1], t[4 * q + 3]);
                v[4 * q + 3] = _mm256_unpackhi_epi64(t[4 * q + 1], t[4 * q + 3]);
            }
            for c in 0..4 {
                t[c] = _mm256_permute2x128_si256::<0x20>(v[c], v[4 + c]);
                t[4 + c] = _mm256_permute2x128_si256::<0x31>(v[c], v[4 + c]);
            }
            *v = t;
        };
        or(a: __m256i, b: __m256i) -> __m256i = _mm256_or_si256(a, b);
        <const BITS: u32> shl(a: __m256i) -> __m256i = _mm256_sll_epi16(a, _mm_cvtsi32_si128(BITS as i32));
        // Sums of two products stay below 2 * 127 * 127 in 16 bits.
        dp(acc: Products, w: __m256i, x: __m256i) -> Products =
            Products { pairs: _mm256_add_epi16(acc.pairs, _mm256_maddubs_epi16(w, x)), ..acc };
        // |w| is up to 128 and x at least -127, so that 2 * 128 * 127 fits in 16 bits.
        dp_wide(acc: Products, w: __m256i, x: __m256i) -> Products = {
            let products = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
            Products { sum: _mm256_add_epi32(acc.sum, widen(products)), ..acc }
        };
        wide(w: __m256i) -> __m256i = w;
        nibbles16(p: *const u8, stride: usize, i: usize) -> __m256i = {
            let b = _mm_loadu_si128(p.add(i * stride).cast());
            let both = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(b), _mm_srli_epi16::<4>(b));
            _mm256_and_si256(both, _mm256_set1_epi8(15))
        };
        bytes32(p: *const u8, stride: usize, i: usize) -> __m256i = _mm256_loadu_si256(p.add(i * stride).cast());
        bits32(p: *const u8, stride: usize, i: usize) -> __m256i = {
            let bits = _mm256_set1_epi32(p.add(i * stride).cast::<i32>().read_unaligned());
            let spread = _mm256_shuffle_epi8(bits, _mm256_setr_epi64x(
                0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303));
            let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            let set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit);
            _mm256_and_si256(set, _mm256_set1_epi8(16))
        };
        <const BITS: u32> planes32(p: *const u8, i: usize) -> __m256i = {
            let planes = 8 / BITS as usize;
            let all = _mm256_loadu_si256(p.add(i / planes * 32).cast());
            let shifted = _mm256_srl_epi16(all, _mm_cvtsi32_si128((i % planes) as i32 * BITS as i32));
            _mm256_and_si256(shifted, _mm256_set1_epi8((1 << BITS) - 1))
        };
        nibbles64(p: *const u8, i: usize) -> __m256i = {
            let all = _mm256_loadu_si256(p.add(i / 4 * 64 + i % 2 * 32).cast());
            let shifted = if (i / 2).is_multiple_of(2) { all } else { _mm256_srli_epi16::<4>(all) };
            _mm256_and_si256(shifted, _mm256_set1_epi8(15))
        };
        lookup16(table: &[i8; 16], at: __m256i) -> __m256i =
            _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())), at);
        negated(v: __m256i, signs: u64) -> __m256i = {
            let spread = _mm256_shuffle_epi8(_mm256_set1_epi32(signs as i32), _mm256_setr_epi64x(
                0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303));
            let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            let set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit);
            _mm256_sub_epi8(_mm256_xor_si256(v, set), set)
        };
        prefetch(p: *const u8) = _mm_prefetch::<_MM_HINT_T0>(p.cast());
    }
}

/// What the exam asks of the sums themselves.
pub mod exam {
    use super::*;
    use crate::lanes::steps;

    /// Sums at their largest: every weight as large as a type's quants may be, every activation at an end.
    ///
    /// Panics if a sum is not exact. Gives `false` if this processor has no AVX2.
    pub fn narrow_sums_hold_the_largest_products() -> bool {
        if !is_x86_feature_detected!("avx2") {
            return false;
        }
        for (most, x) in (1..=64).flat_map(|most| [(most, 127_i8), (most, -127)]) {
            let product = most * i32::from(x);
            // SAFETY: AVX2 was detected; the arrays hold a vector.
            let (long, groups32, groups16) = unsafe { sums(most as u8, x, steps(most)) };
            assert_eq!(long, [steps(most) as i32 * 4 * product; 8], "{most} times {x}");
            assert_eq!((groups32, groups16), ([32 * product; 8], [16 * product; 8]), "{most} times {x}");
        }
        true
    }

    /// A sum of `steps` products, closed, and the sums of groups.
    #[target_feature(enable = "avx2")]
    unsafe fn sums(w: u8, x: i8, steps: usize) -> ([i32; 8], [i32; 8], [i32; 8]) {
        // SAFETY: the instruction set is there.
        unsafe {
            let (w, x) = (_mm256_set1_epi8(w.cast_signed()), _mm256_set1_epi8(x));
            let zero = Avx2::open(Avx2::int(0));
            let long = (0..steps).fold(zero, |sum, _| Avx2::dp(sum, w, x));
            let one = Avx2::dp(zero, w, x);
            let all = [
                Avx2::close(Avx2::settle(long, false), false),
                Avx2::sum_groups32([one; 8], false),
                Avx2::sum_groups16([one; 4], false),
            ];
            let [long, groups32, groups16] = all.map(|v| {
                let mut lanes = [0; 8];
                _mm256_storeu_si256(lanes.as_mut_ptr().cast(), v);
                lanes
            });
            (long, groups32, groups16)
        }
    }
}
