//! The plain formats F32, F16 and BF16, as blocks of one element, and the f16 fields of the other blocks.

use bytemuck::{Pod, Zeroable};

use super::{Block, Encode};
use crate::dtype::DType;

/// The value of a little-endian f16 field.
#[inline]
pub fn f16(field: [u8; 2]) -> f32 {
    ::half::f16::from_le_bytes(field).to_f32()
}

/// The f16 field nearest to a value (ties to even).
#[inline]
pub(super) fn to_f16(value: f32) -> [u8; 2] {
    ::half::f16::from_f32(value).to_le_bytes()
}

macro_rules! plain {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $bits:ident => $decode:expr, $value:ident => $encode:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Pod, Zeroable)]
        #[repr(transparent)]
        pub struct $name(pub [u8; $bytes]);

        impl Block<1> for $name {
            const DTYPE: DType = DType::$name;

            #[inline]
            fn decode(&self, out: &mut [f32; 1]) {
                let $bits = self.0;
                out[0] = $decode;
            }
        }

        impl Encode<1> for $name {
            #[inline]
            fn encode(values: &[f32; 1]) -> Self {
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
