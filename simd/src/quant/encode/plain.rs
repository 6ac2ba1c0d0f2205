//! Encoders that look at nothing but the largest value.

use super::super::Encode;
use super::super::half::to_f16;
use super::super::mxfp4::{MXFP4, STEPS, power};
use super::super::tq2_0::TQ2_0;
use super::{Importance, magnitude, rounded};

impl Encode<32> for MXFP4 {
    #[inline(always)]
    fn encode<const W: usize>(x: &[f32; 32], _: Option<&Importance<'_>>) -> Self {
        let most = magnitude(x);
        // 6 is the largest step: two powers of two above 1.
        let exponent = if most > 0.0 && most.is_finite() { most.log2().floor() as i32 - 2 + 127 } else { 0 };
        let e = exponent.clamp(0, 254) as u8;
        let scale = power(e);
        let mut least: [f32; 32] = [0.0; 32];
        for i in 0..32 {
            least[i] = (f32::from(STEPS[0]) * scale - x[i]).abs();
        }
        let mut nearest = [0u32; 32];
        for q in 1..16 {
            let step = f32::from(STEPS[q]) * scale;
            for i in 0..32 {
                let off = (step - x[i]).abs();
                nearest[i] = if off < least[i] { q as u32 } else { nearest[i] };
                least[i] = if off < least[i] { off } else { least[i] };
            }
        }
        let mut qs = [0; 16];
        for i in 0..16 {
            qs[i] = nearest[i] as u8 | (nearest[i + 16] as u8) << 4;
        }
        MXFP4 { e, qs }
    }
}

impl Encode<256> for TQ2_0 {
    #[inline(always)]
    fn encode<const W: usize>(x: &[f32; 256], _: Option<&Importance<'_>>) -> Self {
        let d = magnitude(x);
        let inverse = if d > 0.0 { 1.0 / d } else { 0.0 };
        let mut codes = [0; 256];
        for i in 0..256 {
            codes[i] = (rounded(x[i] * inverse, -1.0, 1.0) + 1) as u8;
        }
        TQ2_0 { qs: super::k::quarters(&codes), d: to_f16(d) }
    }
}
