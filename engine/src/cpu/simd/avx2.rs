//! AVX2 with FMA and F16C: 8 lanes. Also AVX-VNNI, the same with one instruction for the 8-bit products.

use std::arch::x86_64::*;

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
