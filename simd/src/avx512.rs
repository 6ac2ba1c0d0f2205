//! AVX-512 (F, BW, VL, DQ) with VNNI: 16 lanes. Machines without VNNI use AVX2. With VBMI grids are looked up by permutations
//! of bytes, with AVX512_BF16 pairs of such numbers are multiplied.

use std::arch::x86_64::*;

use super::index;
use super::lanes::{Lanes, each_row, lanes, straight};
use super::table::{pairs, table, types_of_grids};
use crate::quant::grid::Grid;

table!(Avx512<false>, "avx512", "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c");

/// As `TABLE`, for processors with VBMI.
pub(crate) static TABLE_VBMI: Table = Table {
    types: block_types!(
        types_of_grids,
        (Avx512<true>, "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi,avx2,fma,f16c")
    ),
    ..TABLE
};

/// As `TABLE_VBMI`, for processors that multiply pairs of BF16 numbers (AVX512_BF16).
pub(crate) static TABLE_BF16: Table = {
    let mut types = TABLE_VBMI.types;
    types[index(DType::BF16)].pairs =
        Some(pairs!(Avx512<false>, "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,avx2,fma,f16c"));
    Table { types, ..TABLE_VBMI }
};

/// With or without VBMI.
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const VBMI: bool>;

/// Codes of the rows that 32 indices name.
///
/// # Safety
/// Needs the instruction set.
#[inline(always)]
unsafe fn codes<const ROWS: usize>(codes: &[u16; ROWS], indices: __m512i) -> __m512i {
    const { assert!(ROWS.is_power_of_two() && ROWS >= 64) };
    // SAFETY: 64 codes are read at a time.
    unsafe {
        let of = |part: usize| {
            let p = codes.as_ptr().add(part * 64);
            let (low, high) = (_mm512_loadu_si512(p.cast()), _mm512_loadu_si512(p.add(32).cast()));
            _mm512_permutex2var_epi16(low, indices, high)
        };
        // A binary tree over the bits of the index beyond the six that a permutation takes.
        let mut parts = [of(0); 16];
        for (part, to) in parts[..ROWS / 64].iter_mut().enumerate() {
            *to = of(part);
        }
        let (mut n, mut bit) = (ROWS / 64, 64);
        while n > 1 {
            let upper = _mm512_test_epi16_mask(indices, _mm512_set1_epi16(bit));
            for i in 0..n / 2 {
                parts[i] = _mm512_mask_blend_epi16(upper, parts[2 * i], parts[2 * i + 1]);
            }
            (n, bit) = (n / 2, bit << 1);
        }
        parts[0]
    }
}

/// The elements of a vector of codes: eight of 2 bits in each, or four of 4 bits, as bytes.
///
/// # Safety
/// Needs the instruction set with VBMI.
#[inline(always)]
unsafe fn elements<const EIGHT: bool>(codes: __m512i, part: usize, levels: __m512i) -> __m512i {
    // SAFETY: no memory is touched.
    unsafe {
        let (spread, bits, mask) = if EIGHT {
            // A code in each 64 bits.
            let first = _mm512_set1_epi64(8 * part as i64);
            let at = _mm512_add_epi64(first, _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
            (_mm512_permutexvar_epi16(at, codes), 0x0e0c_0a08_0604_0200, 3)
        } else {
            // A code in each 32 bits.
            let half = if part == 0 { _mm512_castsi512_si256(codes) } else { _mm512_extracti64x4_epi64::<1>(codes) };
            (_mm512_cvtepu16_epi32(half), 0x2c28_2420_0c08_0400, 15)
        };
        let shifted = _mm512_multishift_epi64_epi8(_mm512_set1_epi64(bits), spread);
        _mm512_shuffle_epi8(levels, _mm512_and_si512(shifted, _mm512_set1_epi8(mask)))
    }
}

/// As `Lanes::look_up`.
///
/// # Safety
/// As there; needs the instruction set with VBMI.
#[inline(always)]
unsafe fn permuted<T: Copy, const N: usize, const ROWS: usize>(grid: &Grid<T, ROWS>, indices: &[u16; N], out: *mut u8) {
    const { assert!(N.is_multiple_of(32) && (size_of::<T>() == 8 || size_of::<T>() == 4)) };
    // SAFETY: 32 indices are readable in each step, and their rows writable.
    unsafe {
        let levels = _mm512_broadcast_i32x4(_mm_loadu_si128(grid.levels.as_ptr().cast()));
        for i in 0..N / 32 {
            let codes = codes(&grid.codes, _mm512_loadu_si512(indices.as_ptr().add(32 * i).cast()));
            let n = size_of::<T>() / 2;
            for part in 0..n {
                let v = if size_of::<T>() == 8 {
                    elements::<true>(codes, part, levels)
                } else {
                    elements::<false>(codes, part, levels)
                };
                _mm512_storeu_si512(out.add((i * n + part) * 64).cast(), v);
            }
        }
    }
}

/// Word indices that gather the F16 at byte `AT` of blocks `4 * quad` to `4 * quad + 3` out of the 128 bytes at `base(quad)`.
const fn gather_index<const STRIDE: usize, const AT: usize>(quad: usize) -> [u16; 32] {
    let mut index = [0; 32];
    let mut j = 0;
    while j < 4 {
        let block = quad * 4 + j;
        index[block] = ((block * STRIDE + AT - gather_base::<STRIDE>(quad)) / 2) as u16;
        j += 1;
    }
    index
}

/// Where the 128 bytes for four blocks start: at the first of them, but not beyond the end of the 16 blocks.
const fn gather_base<const STRIDE: usize>(quad: usize) -> usize {
    let (start, last) = (quad * 4 * STRIDE, 16 * STRIDE - 128);
    if start < last { start } else { last }
}

#[inline(always)]
unsafe fn gather<const STRIDE: usize, const AT: usize>(p: *const u8, quad: usize) -> __m512i {
    // SAFETY: the 128 bytes from `base` lie inside the 16 blocks.
    unsafe {
        let index = [
            const { gather_index::<STRIDE, AT>(0) },
            const { gather_index::<STRIDE, AT>(1) },
            const { gather_index::<STRIDE, AT>(2) },
            const { gather_index::<STRIDE, AT>(3) },
        ];
        let base = p.add(gather_base::<STRIDE>(quad));
        let index = _mm512_loadu_si512(index[quad].as_ptr().cast());
        let (a, b) = (_mm512_loadu_si512(base.cast()), _mm512_loadu_si512(base.add(64).cast()));
        _mm512_maskz_permutex2var_epi16(0xf << (quad * 4), a, index, b)
    }
}

#[inline(always)]
unsafe fn add_pairs32(a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: no memory is touched; the instruction set is there by the contract of `Lanes`.
    unsafe { _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b)) }
}

#[inline(always)]
unsafe fn add_pairs64(a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: no memory is touched; the instruction set is there by the contract of `Lanes`.
    unsafe { _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b)) }
}

impl<const VBMI: bool> Lanes for Avx512<VBMI> {
    type F = __m512;
    type I = __m512i;
    type Q = __m512i;
    type A = __m512i;
    const LANES: usize = 16;
    const ROWS_Q: usize = 4;
    const COLS_Q: usize = 2;
    const ROWS_F: usize = 8;
    const COLS_F: usize = 2;
    const WIDE_OFFSET: i32 = 128;

    #[inline(always)]
    unsafe fn look_up<T: Copy, const N: usize, const ROWS: usize>(
        grid: &Grid<T, ROWS>,
        indices: &[u16; N],
        out: *mut u8,
    ) {
        // SAFETY: the contract of `Lanes`, and of `Avx512<true>`.
        unsafe { if VBMI { permuted(grid, indices, out) } else { each_row(grid, indices, out) } }
    }

    straight!(__m512i);
    lanes! {
        splat(v: f32) -> __m512 = _mm512_set1_ps(v);
        two(a: f32, b: f32) -> __m512 = _mm512_insertf32x8::<1>(_mm512_set1_ps(a), _mm256_set1_ps(b));
        load(p: *const f32) -> __m512 = _mm512_loadu_ps(p);
        store(p: *mut f32, v: __m512) = _mm512_storeu_ps(p, v);
        load_f16(p: *const u8) -> __m512 = _mm512_cvtph_ps(_mm256_loadu_si256(p.cast()));
        half(p: *const u8) -> f32 =
            _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(p.cast::<u16>().read_unaligned()))));
        store_f16(p: *mut u8, v: __m512) = _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v));
        load_bf16(p: *const u8) -> __m512 =
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()))));
        load_e4m3(p: *const u8) -> __m512 = {
            // Sign and low bits where f16 has them, whose exponents are 8 more; the bit between is the sign's copy.
            let shifted = _mm256_slli_epi16::<7>(_mm256_cvtepi8_epi16(_mm_loadu_si128(p.cast())));
            let (bits, nan) = (_mm256_and_si256(shifted, _mm256_set1_epi16(0xbf80_u16 as i16)), _mm256_set1_epi16(0x3f80));
            let is_nan = _mm256_cmpeq_epi16_mask(_mm256_and_si256(bits, nan), nan);
            let bits = _mm256_mask_blend_epi16(is_nan, bits, _mm256_or_si256(bits, _mm256_set1_epi16(0x7e00)));
            _mm512_mul_ps(_mm512_cvtph_ps(bits), _mm512_set1_ps(256.0))
        };
        load_twice(p: *const f32) -> __m512 = _mm512_permutexvar_ps(
            _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7),
            _mm512_castps256_ps512(_mm256_loadu_ps(p)));
        from_u8(p: *const u8) -> __m512 = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())));
        from_i8(p: *const u8) -> __m512 = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast())));
        <const STRIDE: usize, const AT: usize> halves(p: *const u8) -> __m512 = {
            let low = _mm512_or_si512(gather::<STRIDE, AT>(p, 0), gather::<STRIDE, AT>(p, 1));
            let high = _mm512_or_si512(gather::<STRIDE, AT>(p, 2), gather::<STRIDE, AT>(p, 3));
            _mm512_cvtph_ps(_mm512_castsi512_si256(_mm512_or_si512(low, high)))
        };
        add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        div(a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
        fma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        fma_pairs(a: __m512, b: __m512, c: __m512) -> __m512 =
            _mm512_dpbf16_ps(c, std::mem::transmute::<__m512, __m512bh>(a), std::mem::transmute::<__m512, __m512bh>(b));
        max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        min_nan(a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
        max_nan(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        round(a: __m512) -> __m512 = _mm512_roundscale_ps::<_MM_FROUND_TO_NEAREST_INT>(a);
        exp2_int(n: __m512) -> __m512 = _mm512_castsi512_ps(_mm512_slli_epi32::<23>(
            _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127))));
        zero_below(v: __m512, limit: __m512, r: __m512) -> __m512 =
            _mm512_maskz_mov_ps(!_mm512_cmp_ps_mask::<_CMP_LT_OQ>(v, limit), r);
        sum(v: __m512) -> f32 = {
            let v = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            super::avx2::sum256(v)
        };
        max_lane(v: __m512) -> f32 = _mm512_reduce_max_ps(v);
        abs_max_bits(v: __m512, max: __m512i) -> __m512i = _mm512_max_epu32(
            _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7fff_ffff)), max);
        max_bits(v: __m512i) -> u32 = _mm512_reduce_max_epu32(v);
        store_i8(p: *mut i8, v: __m512) = _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));

        int(v: i32) -> __m512i = _mm512_set1_epi32(v);
        int_load(p: *const i32) -> __m512i = _mm512_loadu_si512(p.cast());
        int_sub(a: __m512i, b: __m512i) -> __m512i = _mm512_sub_epi32(a, b);
        <const BITS: u32> int_shl(a: __m512i) -> __m512i = _mm512_slli_epi32::<BITS>(a);
        to_f(v: __m512i) -> __m512 = _mm512_cvtepi32_ps(v);
        sum_groups32(v: [__m512i; 8], _wide: bool) -> __m512i = {
            let a = add_pairs64(add_pairs32(v[0], v[1]), add_pairs32(v[2], v[3]));
            let b = add_pairs64(add_pairs32(v[4], v[5]), add_pairs32(v[6], v[7]));
            let sum = _mm512_add_epi32(_mm512_shuffle_i32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b));
            _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15), sum)
        };
        sum_groups16(v: [__m512i; 4], _wide: bool) -> __m512i = _mm512_permutexvar_epi32(
            _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
            add_pairs64(add_pairs32(v[0], v[1]), add_pairs32(v[2], v[3])));

        bytes(p: *const u8) -> __m512i = _mm512_loadu_si512(p.cast());
        bytes4(p: *const u8) -> __m512i = _mm512_set1_epi32(p.cast::<i32>().read_unaligned());
        bytes_store(p: *mut u8, v: __m512i) = _mm512_storeu_si512(p.cast(), v);
        as_bytes(v: __m512) -> __m512i = _mm512_castps_si512(v);
        transpose(v: &mut [__m512i; 16]) = {
            let mut t = *v;
            for i in 0..8 {
                t[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
                t[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
            }
            // In each 128-bit part: v[4q + c] has column c (of the part's four) of rows 4q to 4q + 3.
            for q in 0..4 {
                v[4 * q] = _mm512_unpacklo_epi64(t[4 * q], t[4 * q + 2]);
                v[4 * q + 1] = _mm512_unpackhi_epi64(t[4 * q], t[4 * q + 2]);
                v[4 * q + 2] = _mm512_unpacklo_epi64(t[4 * q + 1], t[4 * q + 3]);
                v[4 * q + 3] = _mm512_unpackhi_epi64(t[4 * q + 1], t[4 * q + 3]);
            }
            for c in 0..4 {
                let a = _mm512_shuffle_i32x4::<0b10_00_10_00>(v[c], v[4 + c]);
                let b = _mm512_shuffle_i32x4::<0b11_01_11_01>(v[c], v[4 + c]);
                let d = _mm512_shuffle_i32x4::<0b10_00_10_00>(v[8 + c], v[12 + c]);
                let e = _mm512_shuffle_i32x4::<0b11_01_11_01>(v[8 + c], v[12 + c]);
                t[c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, d);
                t[8 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(a, d);
                t[4 + c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(b, e);
                t[12 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(b, e);
            }
            *v = t;
        };
        or(a: __m512i, b: __m512i) -> __m512i = _mm512_or_si512(a, b);
        <const BITS: u32> shl(a: __m512i) -> __m512i = _mm512_slli_epi16::<BITS>(a);
        dp(acc: __m512i, w: __m512i, x: __m512i) -> __m512i = _mm512_dpbusd_epi32(acc, w, x);
        dp_wide(acc: __m512i, w: __m512i, x: __m512i) -> __m512i = _mm512_dpbusd_epi32(acc, w, x);
        wide(w: __m512i) -> __m512i = _mm512_xor_si512(w, _mm512_set1_epi8(-128));
        nibbles16(p: *const u8, stride: usize, i: usize) -> __m512i = {
            let a = _mm_loadu_si128(p.add(2 * i * stride).cast());
            let b = _mm_loadu_si128(p.add((2 * i + 1) * stride).cast());
            let both = _mm512_mask_broadcast_i32x4(_mm512_broadcast_i32x4(a), 0xff00, b);
            let shifted = _mm512_srlv_epi64(both, _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4));
            _mm512_and_si512(shifted, _mm512_set1_epi8(15))
        };
        bytes32(p: *const u8, stride: usize, i: usize) -> __m512i = {
            let a = _mm256_loadu_si256(p.add(2 * i * stride).cast());
            let b = _mm256_loadu_si256(p.add((2 * i + 1) * stride).cast());
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b)
        };
        bits32(p: *const u8, stride: usize, i: usize) -> __m512i = {
            let a = p.add(2 * i * stride).cast::<u32>().read_unaligned();
            let b = p.add((2 * i + 1) * stride).cast::<u32>().read_unaligned();
            _mm512_maskz_set1_epi8(u64::from(a) | u64::from(b) << 32, 16)
        };
        <const BITS: u32> planes32(p: *const u8, i: usize) -> __m512i = {
            let planes = 8 / BITS as usize;
            let (chunk, plane) = (2 * i / planes, 2 * i % planes);
            let both = _mm512_broadcast_i64x4(_mm256_loadu_si256(p.add(chunk * 32).cast()));
            let (low, high) = (plane as i64 * i64::from(BITS), (plane as i64 + 1) * i64::from(BITS));
            let shifted = _mm512_srlv_epi64(both, _mm512_setr_epi64(low, low, low, low, high, high, high, high));
            _mm512_and_si512(shifted, _mm512_set1_epi8((1 << BITS) - 1))
        };
        nibbles64(p: *const u8, i: usize) -> __m512i = {
            let both = _mm512_loadu_si512(p.add(i / 2 * 64).cast());
            let shifted = if i.is_multiple_of(2) { both } else { _mm512_srli_epi16::<4>(both) };
            _mm512_and_si512(shifted, _mm512_set1_epi8(15))
        };
        lookup16(table: &[i8; 16], at: __m512i) -> __m512i =
            _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())), at);
        negated(v: __m512i, signs: u64) -> __m512i = _mm512_mask_sub_epi8(v, signs, _mm512_setzero_si512(), v);
        prefetch(p: *const u8) = _mm_prefetch::<_MM_HINT_T0>(p.cast());
    }
}
