//! Rounding of values to storage types and back for files, by what this machine has. The encoders are written in `quant/encode`, as
//! loops over several groups of values side by side; here those loops become vectors of eight. The bytes are the same everywhere.

use std::sync::LazyLock;

#[cfg(target_arch = "x86_64")]
use super::index;
use super::{Table, detect};
use crate::error::Result;
use crate::quant::{self, DType, Encoder};

/// The encoders of block types with AVX2; those of plain types gain nothing.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use crate::quant::DType;
    use crate::quant::encode::{SIDE_BY_SIDE, encode_blocks};
    use crate::quant::*;

    macro_rules! encoder {
        (groups yes $len:literal, $block:ty) => {{
            #[target_feature(enable = "avx2,fma,f16c")]
            fn inner(values: &[f32], important: Option<&[f32]>, out: &mut [u8]) {
                encode_blocks::<SIDE_BY_SIDE, $len, $block>(values, important, out);
            }
            fn entry(values: &[f32], important: Option<&[f32]>, out: &mut [u8]) {
                // SAFETY: an encoder leaves this file only where the instruction set was detected.
                unsafe { inner(values, important, out) }
            }
            Some(entry)
        }};
        ($decode:ident $encode:ident $len:literal, $block:ty) => {
            None
        };
    }

    macro_rules! encoders {
        ($($(#[$doc:meta])* $name:ident = $id:literal, $block:ty, $feature:literal {
            block: $len:literal x $bytes:literal, decode: $kind:ident $($group:literal)?, encode: $encode:ident,
            $($rest:tt)*
        })*) => {
            [$(encoder!($kind $encode $len, $block)),*]
        };
    }

    /// In the order of [`DType::ALL`].
    pub(super) static ENCODERS: [Option<Encoder>; DType::ALL.len()] = block_types!(encoders);
}

/// The encoder of a type that suits this machine, if the type can be written.
pub fn encoder(dtype: DType) -> Option<Encoder> {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx2") && has!("fma") && has!("f16c") && avx2::ENCODERS[index(dtype)].is_some() {
            return avx2::ENCODERS[index(dtype)];
        }
    }
    if dtype == DType::F16 {
        return Some(|values, _, out| (TABLE.to_f16)(values, out));
    }
    dtype.encoder()
}

static TABLE: LazyLock<&'static Table> = LazyLock::new(detect);

/// Encodes values to the end of `out`; if `important` has a weight for each column, whole rows by these.
///
/// # Errors
/// As [`quant::encode()`] and [`quant::encode_for`].
pub fn encode(dtype: DType, values: &[f32], important: Option<&[f32]>, out: &mut Vec<u8>) -> Result<()> {
    quant::encode_by(encoder(dtype), dtype, values, important, out)
}

/// Decodes `out.len()` elements.
///
/// # Errors
/// As [`quant::decode`].
pub fn decode(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    if dtype == DType::F16 && bytes.len() == 2 * out.len() {
        (TABLE.from_f16)(bytes, out);
        return Ok(());
    }
    quant::decode(dtype, bytes, out)
}
