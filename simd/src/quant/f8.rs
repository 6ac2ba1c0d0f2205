//! Floats of 8 bits with 4 of exponent and 3 of mantissa (E4M3 without infinities; Micikevicius et al. 2022), alone and in
//! blocks of 128 with an f32 scale. Types of folders: no GGUF file holds them.

use bytemuck::{Pod, Zeroable};

use super::encode::{Importance, magnitude};
use super::half::Plain;
use super::planes::{Planes, put};
use super::{Encode, Scaled};

/// The largest number.
const MOST: f32 = 448.0;

/// An element that stands for itself.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[allow(non_camel_case_types, reason = "safetensors writes F8_E4M3")]
#[repr(transparent)]
pub struct F8_E4M3(u8);

impl Plain for F8_E4M3 {
    #[inline]
    fn value(&self) -> f32 {
        VALUES[usize::from(self.0)]
    }
}

impl Encode<1> for F8_E4M3 {
    #[inline(always)]
    fn encode<const W: usize>(values: &[f32; 1], _: Option<&Importance<'_>>) -> Self {
        F8_E4M3(nearest(values[0]))
    }
}

/// 128 elements `d * qs[i]`, as models have them whose matrices have a scale for every 128 x 128.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[allow(non_camel_case_types, reason = "named after the type of its elements")]
#[repr(C)]
pub struct F8_E4M3_128 {
    /// f32 scale.
    d: [u8; 4],
    /// One element in a byte.
    qs: [u8; 128],
}

impl Scaled<128> for F8_E4M3_128 {
    fn values(&self, out: &mut [f32; 128]) {
        let d = f32::from_le_bytes(self.d);
        for (out, q) in out.iter_mut().zip(self.qs) {
            *out = d * VALUES[usize::from(q)];
        }
    }

    fn planes(&self, planes: &mut Planes) {
        put(planes, &self.qs, &[], &[], &self.d);
    }
}

impl Encode<128> for F8_E4M3_128 {
    /// `d` is the largest magnitude over that of the type.
    #[inline(always)]
    fn encode<const W: usize>(x: &[f32; 128], _: Option<&Importance<'_>>) -> Self {
        let d = magnitude(x) / MOST;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        F8_E4M3_128 { d: d.to_le_bytes(), qs: x.map(|x| nearest(x * inverse)) }
    }
}

/// Appends bytes of a row with one scale as whole blocks.
pub fn put_scaled(scale: f32, bytes: &[u8], out: &mut Vec<u8>) {
    for qs in bytes.as_chunks::<128>().0 {
        out.extend_from_slice(&scale.to_le_bytes());
        out.extend_from_slice(qs);
    }
}

/// The value of every byte.
pub static VALUES: [f32; 256] = {
    let (mut values, mut byte) = ([0.0; 256], 0);
    while byte < 256 {
        values[byte] = value(byte as u8);
        byte += 1;
    }
    values
};

const fn value(byte: u8) -> f32 {
    let (exponent, mantissa) = ((byte >> 3 & 15) as u32, (byte & 7) as u32);
    let magnitude = match exponent {
        // There are no infinities, and one NaN of each sign.
        15 if mantissa == 7 => f32::from_bits(0x7fc0_0000),
        0 => mantissa as f32 / 512.0,
        _ => f32::from_bits((exponent + 120) << 23 | mantissa << 20),
    };
    f32::from_bits(magnitude.to_bits() | (byte as u32 & 0x80) << 24)
}

/// The byte whose value is nearest, of two the even one; what is too large becomes the largest.
fn nearest(x: f32) -> u8 {
    let (sign, size) = ((x.to_bits() >> 24) as u8 & 0x80, x.abs());
    if size.is_nan() {
        return sign | 0x7f;
    }
    // Below the least normal number steps are equal.
    if size < 1.0 / 64.0 {
        return sign | (size * 512.0).round_ties_even() as u8;
    }
    let bits = size.min(MOST).to_bits();
    let rounded = (bits + 0x7_ffff + (bits >> 20 & 1)) >> 20;
    sign | (rounded - (120 << 3)) as u8
}
