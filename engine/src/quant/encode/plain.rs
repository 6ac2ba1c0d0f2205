//! Encoders that look at nothing but the largest value.

use super::super::Encode;
use super::super::half::to_f16;
use super::super::mxfp4::{MXFP4, STEPS, power};
use super::super::tq2_0::TQ2_0;

impl Encode<32> for MXFP4 {
    fn encode(values: &[f32; 32]) -> Self {
        let most = values.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        // 6 is the largest step: two powers of two above 1.
        let exponent = if most > 0.0 && most.is_finite() { most.log2().floor() as i32 - 2 + 127 } else { 0 };
        let e = exponent.clamp(0, 254) as u8;
        let scale = power(e);
        let nearest = |x: f32| {
            let off = |q: &usize| (f32::from(STEPS[*q]) * scale - x).abs();
            (0..16).min_by(|a, b| off(a).total_cmp(&off(b))).unwrap_or(0) as u8
        };
        MXFP4 { e, qs: std::array::from_fn(|i| nearest(values[i]) | nearest(values[i + 16]) << 4) }
    }
}

impl Encode<256> for TQ2_0 {
    fn encode(values: &[f32; 256]) -> Self {
        let d = values.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        let inverse = if d > 0.0 { 1.0 / d } else { 0.0 };
        let q = |i: usize| ((values[i] * inverse).round() as i32).clamp(-1, 1) as u8 & 3;
        let code = |i: usize| q(i).wrapping_add(1) & 3;
        let byte = |i: usize| (0..4).fold(0, |bits, k| bits | code(i / 32 * 128 + 32 * k + i % 32) << (2 * k));
        TQ2_0 { qs: std::array::from_fn(byte), d: to_f16(d) }
    }
}
