//! The plain formats F32, F16 and BF16, and the f16 fields of the blocks.

use bytemuck::{Pod, Zeroable};

use super::{Encode, Importance};

/// The value of a little-endian f16 field. No branch and no call, so that loops over many of them become vectors.
#[inline(always)]
pub fn f16(field: [u8; 2]) -> f32 {
    let bits = u32::from(u16::from_le_bytes(field));
    let (sign, rest) = ((bits & 0x8000) << 16, (bits & 0x7fff) << 13);
    // The exponents' biases differ by 112; such a product is exact, and makes normal numbers of subnormal ones.
    let finite = (f32::from_bits(rest) * f32::from_bits((112 + 127) << 23)).to_bits();
    let quiet = if rest > 31 << 23 { 1 << 22 } else { 0 };
    let other = (255 << 23) | rest | quiet;
    f32::from_bits(sign | if rest >= 31 << 23 { other } else { finite })
}

/// The f16 field nearest to a value (ties to even).
#[inline]
pub fn to_f16(value: f32) -> [u8; 2] {
    ::half::f16::from_f32(value).to_le_bytes()
}

/// An element that stands for itself.
pub trait Plain: Pod {
    /// Its value.
    fn value(&self) -> f32;
}

macro_rules! plain {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $bits:ident => $decode:expr, $value:ident => $encode:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Pod, Zeroable)]
        #[repr(transparent)]
        pub struct $name([u8; $bytes]);

        impl Plain for $name {
            #[inline]
            fn value(&self) -> f32 {
                let $bits = self.0;
                $decode
            }
        }

        impl Encode<1> for $name {
            #[inline(always)]
            fn encode<const W: usize>(values: &[f32; 1], _: Option<&Importance<'_>>) -> Self {
                let $value = values[0];
                $name($encode)
            }
        }
    };
}

plain!(/// IEEE 754 single precision, little-endian.
    F32, 4, bits => f32::from_le_bytes(bits), value => value.to_le_bytes());
plain!(/// IEEE 754 half precision, little-endian.
    F16, 2, bits => f16(bits), value => to_f16(value));
plain!(/// The upper half of an f32, little-endian.
    BF16, 2, bits => ::half::bf16::from_le_bytes(bits).to_f32(),
    value => ::half::bf16::from_f32(value).to_le_bytes());
