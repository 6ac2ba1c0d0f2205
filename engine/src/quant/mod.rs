//! Block formats: how stored weights decode to numbers. One file per format holds its layout, the decoder that is the
//! definition of its meaning (scalar, plain, bit-exact with ggml), and, for the simple formats, the encoder.
//! Fast kernels over the same blocks are in `cpu/simd`, not here.
//!
//! Sources of all layouts: ggml's `ggml-common.h` (structs) and `ggml-quants.c` (`dequantize_row_*`,
//! `quantize_row_*_ref`). Blocks are byte arrays of alignment 1, so a file's bytes can be viewed as blocks anywhere.

mod half;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;

use bytemuck::Pod;

pub use self::half::{BF16, F16, F32, f16};
pub use q2_k::Q2_K;
pub use q3_k::Q3_K;
pub use q4_0::Q4_0;
pub use q4_1::Q4_1;
pub use q4_k::{Q4_K, scale_min};
pub use q5_0::Q5_0;
pub use q5_1::Q5_1;
pub use q5_k::Q5_K;
pub use q6_k::Q6_K;
pub use q8_0::Q8_0;

use crate::dtype::DType;
use crate::error::{Error, Result};

/// A block as it lies in a file: plain bytes, alignment 1, `LEN` elements.
pub trait Block<const LEN: usize>: Pod {
    /// The format.
    const DTYPE: DType;

    /// The elements this block stands for.
    fn decode(&self, out: &mut [f32; LEN]);
}

/// A block format that values can be rounded to here.
pub trait Encode<const LEN: usize>: Block<LEN> {
    /// The block that ggml's reference encoder makes of these values.
    fn encode(values: &[f32; LEN]) -> Self;
}

/// Views bytes as blocks; a rest that is no whole block is left out.
pub fn blocks<B: Pod>(bytes: &[u8]) -> &[B] {
    const { assert!(align_of::<B>() == 1 && size_of::<B>() > 0) };
    let whole = bytes.len() / size_of::<B>() * size_of::<B>();
    bytemuck::cast_slice(&bytes[..whole])
}

/// Decodes `out.len()` elements.
///
/// # Errors
/// [`Error::Shape`] where `bytes` is not exactly what that many elements of this type take.
pub fn decode(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    if dtype.bytes_for(out.len()) != Some(bytes.len()) {
        let (n, have) = (out.len(), bytes.len());
        return Err(Error::shape(format!("{n} elements of {dtype} do not take {have} bytes")));
    }
    match dtype {
        DType::F32 => decode_all::<1, F32>(bytes, out),
        DType::F16 => decode_all::<1, F16>(bytes, out),
        DType::BF16 => decode_all::<1, BF16>(bytes, out),
        DType::Q4_0 => decode_all::<32, Q4_0>(bytes, out),
        DType::Q4_1 => decode_all::<32, Q4_1>(bytes, out),
        DType::Q5_0 => decode_all::<32, Q5_0>(bytes, out),
        DType::Q5_1 => decode_all::<32, Q5_1>(bytes, out),
        DType::Q8_0 => decode_all::<32, Q8_0>(bytes, out),
        DType::Q2_K => decode_all::<256, Q2_K>(bytes, out),
        DType::Q3_K => decode_all::<256, Q3_K>(bytes, out),
        DType::Q4_K => decode_all::<256, Q4_K>(bytes, out),
        DType::Q5_K => decode_all::<256, Q5_K>(bytes, out),
        DType::Q6_K => decode_all::<256, Q6_K>(bytes, out),
    }
    Ok(())
}

fn decode_all<const LEN: usize, B: Block<LEN>>(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in blocks::<B>(bytes).iter().zip(out.as_chunks_mut().0) {
        block.decode(out);
    }
}

/// Encodes values to the end of `out`.
///
/// # Errors
/// [`Error::Shape`] where the values are no whole number of blocks, [`Error::Unsupported`] for the K formats, which
/// only decode.
pub fn encode(dtype: DType, values: &[f32], out: &mut Vec<u8>) -> Result<()> {
    let Some(len) = dtype.bytes_for(values.len()) else {
        return Err(Error::shape(format!("{} elements are no whole number of {dtype} blocks", values.len())));
    };
    out.reserve(len);
    match dtype {
        DType::F32 => encode_all::<1, F32>(values, out),
        DType::F16 => encode_all::<1, F16>(values, out),
        DType::BF16 => encode_all::<1, BF16>(values, out),
        DType::Q4_0 => encode_all::<32, Q4_0>(values, out),
        DType::Q4_1 => encode_all::<32, Q4_1>(values, out),
        DType::Q5_0 => encode_all::<32, Q5_0>(values, out),
        DType::Q5_1 => encode_all::<32, Q5_1>(values, out),
        DType::Q8_0 => encode_all::<32, Q8_0>(values, out),
        DType::Q2_K | DType::Q3_K | DType::Q4_K | DType::Q5_K | DType::Q6_K => {
            return Err(Error::unsupported(format!("{dtype} can be read but not written")));
        }
    }
    Ok(())
}

fn encode_all<const LEN: usize, B: Encode<LEN>>(values: &[f32], out: &mut Vec<u8>) {
    for values in values.as_chunks().0 {
        out.extend_from_slice(bytemuck::bytes_of(&B::encode(values)));
    }
}

#[cfg(test)]
mod tests;
