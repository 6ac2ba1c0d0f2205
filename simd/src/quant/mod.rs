//! The table of storage types, and what each row needs: one file per type holds its layout, the decoder that is the
//! definition of its meaning (scalar, plain, bit-exact with ggml), how it is laid out for a GPU, and, for the simple
//! ones, the encoder. Fast kernels over the same blocks are beside this module, not in it.
//!
//! Sources of all layouts: ggml's `ggml-common.h` (structs, grids) and `ggml-quants.c` (`dequantize_row_*`,
//! `quantize_row_*_ref`). Blocks are byte arrays of alignment 1, so a file's bytes can be viewed as blocks anywhere.

mod dtype;
pub mod encode;
pub mod f8;
pub(crate) mod grid;
pub mod half;
pub mod integers;
pub mod iq1_m;
pub mod iq1_s;
pub mod iq2_s;
pub mod iq2_xs;
pub mod iq2_xxs;
pub mod iq3_s;
pub mod iq3_xxs;
pub mod iq4_nl;
pub mod iq4_xs;
pub mod mixes;
pub mod mxfp4;
pub mod nvfp4;
pub mod planes;
pub mod q1_0;
pub mod q2_0;
pub mod q2_k;
pub mod q3_k;
pub mod q4_0;
pub mod q4_1;
pub mod q4_k;
pub mod q5_0;
pub mod q5_1;
pub mod q5_k;
pub mod q6_k;
pub mod q8_0;
pub mod q8_k;
pub mod tq1_0;
pub mod tq2_0;
mod traits;

use bytemuck::Pod;

pub use self::dtype::DType;
pub use self::encode::Importance;
pub use self::mxfp4::of_pairs;
pub use self::traits::{Encoder, GroupTraits, TypeTraits};

pub use self::f8::{VALUES as VALUES_OF_8, put_scaled};
pub use self::half::f16;
use crate::error::{Error, Result};
use planes::Planes;

/// Floats of 4 bits with a power of two for 32, which some folders have.
pub const FLOATS_OF_4: DType = DType::MXFP4;

/// Floats of 8 bits as folders have them, and the same with a scale for each block of columns.
pub const FLOATS_OF_8: [DType; 2] = [DType::F8_E4M3, DType::F8_E4M3_128];

/// The table: gives its rows to the macro `$with`, after `$first`. What a row says, in order:
///
/// - the type's name, its id in GGUF files (ggml.h, `enum ggml_type`; from [`FOLDERS`] on none: no such file holds the type),
///   where its decoder is, and its name in kernels: that of `shaders/lib/dequant_NAME.wgsl`;
/// - `block`: elements and bytes of one block;
/// - `decode`: `plain` elements, floats that are `scaled` by their block's factor, or `groups` of so many integers (16 or 32)
///   with a common scale and minimum;
/// - `encode`: whether values can be rounded to it here;
/// - `simd`: `own` if `formats.rs` (or `eights.rs`) has a loop for it, `grid` if `grids.rs` has one, else `decoded`: blocks
///   are decoded by the scalar code and multiplied by the loop that all such types share;
/// - `planes`: bytes that 32 elements take in planes 0 to 2 of a GPU's buffer, and a block in plane 3;
/// - `q8`: how far products with activations in 8 bits may be off in the exam, relatively. The activations are rounded in
///   blocks of 32 to steps of 1/127 of the largest: about 1/127/sqrt(12)*sqrt(3) of a uniform signal's own size per term,
///   averaging out over the terms. With float activations every form agrees with the definition to the order of sums.
#[macro_export]
macro_rules! block_types {
    ($with:ident $(, $first:tt)*) => {
        $with! {
            $($first)*
            /// IEEE 754 single precision.
            F32 = 0, half::F32, "f32" { block: 1 x 4, decode: plain, encode: yes, simd: own, planes: [128, 0, 0, 0], q8: 0.0 }
            /// IEEE 754 half precision.
            F16 = 1, half::F16, "f16" { block: 1 x 2, decode: plain, encode: yes, simd: own, planes: [64, 0, 0, 0], q8: 0.0 }
            /// 4 bits, one f16 scale for 32.
            Q4_0 = 2, q4_0::Q4_0, "q4_0" { block: 32 x 18, decode: groups 32, encode: yes, simd: own, planes: [16, 2, 0, 0], q8: 1e-2 }
            /// 4 bits, f16 scale and minimum for 32.
            Q4_1 = 3, q4_1::Q4_1, "q4_1" { block: 32 x 20, decode: groups 32, encode: yes, simd: own, planes: [16, 4, 0, 0], q8: 1e-2 }
            /// 5 bits, one f16 scale for 32.
            Q5_0 = 6, q5_0::Q5_0, "q5_0" { block: 32 x 22, decode: groups 32, encode: yes, simd: own, planes: [16, 2, 4, 0], q8: 1e-2 }
            /// 5 bits, f16 scale and minimum for 32.
            Q5_1 = 7, q5_1::Q5_1, "q5_1" { block: 32 x 24, decode: groups 32, encode: yes, simd: own, planes: [16, 4, 4, 0], q8: 1e-2 }
            /// 8 bits, one f16 scale for 32.
            Q8_0 = 8, q8_0::Q8_0, "q8_0" { block: 32 x 34, decode: groups 32, encode: yes, simd: own, planes: [32, 2, 0, 0], q8: 1e-2 }
            /// 2 bits, 4-bit scales and minima for 16 each, in super-blocks of 256.
            Q2_K = 10, q2_k::Q2_K, "q2_k" { block: 256 x 84, decode: groups 16, encode: yes, simd: own, planes: [8, 2, 0, 4], q8: 1e-2 }
            /// 3 bits, 6-bit scales for 16 each, in super-blocks of 256.
            Q3_K = 11, q3_k::Q3_K, "q3_k" { block: 256 x 110, decode: groups 16, encode: yes, simd: own, planes: [8, 2, 4, 2], q8: 1e-2 }
            /// 4 bits, 6-bit scales and minima for 32 each, in super-blocks of 256.
            Q4_K = 12, q4_k::Q4_K, "q4_k" { block: 256 x 144, decode: groups 32, encode: yes, simd: own, planes: [16, 2, 0, 4], q8: 1e-2 }
            /// 5 bits, 6-bit scales and minima for 32 each, in super-blocks of 256.
            Q5_K = 13, q5_k::Q5_K, "q5_k" { block: 256 x 176, decode: groups 32, encode: yes, simd: own, planes: [16, 2, 4, 4], q8: 1e-2 }
            /// 6 bits, 8-bit scales for 16 each, in super-blocks of 256.
            Q6_K = 14, q6_k::Q6_K, "q6_k" { block: 256 x 210, decode: groups 16, encode: yes, simd: own, planes: [16, 2, 8, 2], q8: 1e-2 }
            /// 8 bits, one f32 scale for 256; for intermediate results.
            Q8_K = 15, q8_k::Q8_K, "q8_k" { block: 256 x 292, decode: groups 32, encode: no, simd: decoded, planes: [32, 0, 0, 4], q8: 1e-2 }
            /// 2 bits, eights from a grid of 256, 4-bit scales for 32 each.
            IQ2_XXS = 16, iq2_xxs::IQ2_XXS, "iq2_xxs" { block: 256 x 66, decode: groups 32, encode: no, simd: grid, planes: [8, 0, 0, 2], q8: 1e-2 }
            /// 2 bits, eights from a grid of 512, 4-bit scales for 16 each.
            IQ2_XS = 17, iq2_xs::IQ2_XS, "iq2_xs" { block: 256 x 74, decode: groups 16, encode: no, simd: grid, planes: [8, 1, 0, 2], q8: 1e-2 }
            /// 3 bits, fours from a grid of 256, 4-bit scales for 32 each.
            IQ3_XXS = 18, iq3_xxs::IQ3_XXS, "iq3_xxs" { block: 256 x 98, decode: groups 32, encode: no, simd: grid, planes: [8, 0, 4, 2], q8: 1e-2 }
            /// 1.5 bits, eights from a grid of 2048, 3-bit scales for 32 each.
            IQ1_S = 19, iq1_s::IQ1_S, "iq1_s" { block: 256 x 50, decode: groups 32, encode: no, simd: own, planes: [4, 2, 0, 2], q8: 1e-2 }
            /// 4 bits on uneven steps, one f16 scale for 32.
            IQ4_NL = 20, iq4_nl::IQ4_NL, "iq4_nl" { block: 32 x 18, decode: groups 32, encode: yes, simd: own, planes: [16, 2, 0, 0], q8: 1e-2 }
            /// 3 bits, fours from a grid of 512, 4-bit scales for 32 each.
            IQ3_S = 21, iq3_s::IQ3_S, "iq3_s" { block: 256 x 110, decode: groups 32, encode: yes, simd: grid, planes: [8, 1, 4, 8], q8: 1e-2 }
            /// 2 bits, eights from a grid of 1024, 4-bit scales for 16 each.
            IQ2_S = 22, iq2_s::IQ2_S, "iq2_s" { block: 256 x 82, decode: groups 16, encode: no, simd: grid, planes: [4, 2, 4, 2], q8: 1e-2 }
            /// 4 bits on uneven steps, 6-bit scales for 32 each.
            IQ4_XS = 23, iq4_xs::IQ4_XS, "iq4_xs" { block: 256 x 136, decode: groups 32, encode: yes, simd: own, planes: [16, 1, 0, 2], q8: 1e-2 }
            /// 1.75 bits, eights from a grid of 2048, 3-bit scales for 16 each.
            IQ1_M = 29, iq1_m::IQ1_M, "iq1_m" { block: 256 x 56, decode: groups 16, encode: no, simd: own, planes: [4, 2, 0, 8], q8: 1e-2 }
            /// The upper half of an f32.
            BF16 = 30, half::BF16, "bf16" { block: 1 x 2, decode: plain, encode: yes, simd: own, planes: [64, 0, 0, 0], q8: 4e-3 }
            /// -1, 0 or 1, five in a byte, one f16 scale for 256.
            TQ1_0 = 34, tq1_0::TQ1_0, "tq1_0" { block: 256 x 54, decode: groups 32, encode: no, simd: own, planes: [0, 0, 0, 56], q8: 1e-2 }
            /// -1, 0 or 1 in 2 bits, one f16 scale for 256.
            TQ2_0 = 35, tq2_0::TQ2_0, "tq2_0" { block: 256 x 66, decode: groups 32, encode: yes, simd: own, planes: [8, 0, 0, 2], q8: 1e-2 }
            /// Floats of 4 bits, a power of two for 32.
            MXFP4 = 39, mxfp4::MXFP4, "mxfp4" { block: 32 x 17, decode: groups 32, encode: yes, simd: own, planes: [16, 1, 0, 0], q8: 1e-2 }
            /// Floats of 4 bits, a float of 8 bits for 16.
            NVFP4 = 40, nvfp4::NVFP4, "nvfp4" { block: 64 x 36, decode: groups 16, encode: no, simd: own, planes: [16, 2, 0, 0], q8: 1e-2 }
            /// 1 bit, one f16 scale for 128.
            Q1_0 = 41, q1_0::Q1_0, "q1_0" { block: 128 x 18, decode: groups 32, encode: no, simd: own, planes: [4, 0, 0, 2], q8: 1e-2 }
            /// 2 bits, one f16 scale for 64.
            Q2_0 = 42, q2_0::Q2_0, "q2_0" { block: 64 x 18, decode: groups 32, encode: no, simd: own, planes: [8, 0, 0, 2], q8: 1e-2 }
            /// Floats of 8 bits.
            F8_E4M3 = 0x1_0000, f8::F8_E4M3, "f8_e4m3" { block: 1 x 1, decode: plain, encode: yes, simd: own, planes: [32, 0, 0, 0], q8: 0.0 }
            /// Floats of 8 bits, one f32 scale for 128.
            F8_E4M3_128 = 0x1_0001, f8::F8_E4M3_128, "f8_e4m3_128" { block: 128 x 132, decode: scaled, encode: yes, simd: own, planes: [32, 0, 0, 4], q8: 0.0 }
        }
    };
}
pub use block_types;

/// The first id that is none of GGUF's: types from here on are those of folders alone.
pub const FOLDERS: u32 = 0x1_0000;

/// One block in integers: element `i` of group `g` is `scales[g] * quants[i] - mins[g]`, each step rounded to f32.
#[derive(Debug, Clone)]
pub struct Groups {
    /// The quants in the order of the elements.
    pub quants: [i8; 256],
    /// A scale for each group.
    pub scales: [f32; 16],
    /// A minimum for each group, subtracted; types without minima leave it at 0.
    pub mins: [f32; 16],
}

impl Groups {
    /// Zeros.
    pub const ZERO: Groups = Groups { quants: [0; 256], scales: [0.0; 16], mins: [0.0; 16] };
}

/// A block of small integers as it lies in a file: plain bytes, alignment 1.
pub trait Block: Pod {
    /// Scale and minimum (of the whole block, as [`Block::set_scale`] takes them) at which random bits decode to
    /// weights of a model's usual size, about 0.02.
    const USUAL: (f32, f32);

    /// The table that the type's indices point into, if it has one, as its WGSL reads it: whole 16 bytes in front of the
    /// planes.
    const GRID: &'static [u32] = &[];

    /// The integers, scales and minima: the definition of the format. Nothing beyond the block's elements is written.
    fn groups(&self, out: &mut Groups);

    /// Appends the block to the planes that its WGSL reads.
    fn planes(&self, planes: &mut Planes);

    /// Sets the block's own scale and, if the format has one, minimum; as near as the fields can hold. For tests and
    /// models of random weights.
    fn set_scale(&mut self, scale: f32, min: f32);
}

/// A block of floats that have a common factor, as it lies in memory: plain bytes, alignment 1.
trait Scaled<const LEN: usize>: Pod {
    /// The elements: the definition of the format.
    fn values(&self, out: &mut [f32; LEN]);

    /// Appends the block to the planes that its WGSL reads.
    fn planes(&self, planes: &mut Planes);
}

/// A block format that values can be rounded to here.
pub trait Encode<const LEN: usize>: Pod {
    /// Whether a block is one group, so that several blocks are searched side by side and not the groups of one.
    const ONE_GROUP: bool = false;

    /// The block that ggml's reference encoder makes of these values, where some may be more important than others; formats that
    /// do not look at it take them all alike. Groups are searched `W` at once, with the same result for any `W` that divides 8.
    fn encode<const W: usize>(values: &[f32; LEN], important: Option<&Importance<'_>>) -> Self;

    /// The same of several blocks that are one group each.
    #[inline(always)]
    fn encode_several<const W: usize>(
        values: &[[f32; LEN]; W],
        _important: Option<&[Importance<'_>; W]>,
        out: &mut [Self; W],
    ) {
        each(values, out);
    }
}

/// Encodes blocks one by one, all values alike.
#[inline(always)]
fn each<const W: usize, const LEN: usize, B: Encode<LEN>>(values: &[[f32; LEN]; W], out: &mut [B; W]) {
    for (values, out) in values.iter().zip(out) {
        *out = B::encode::<1>(values, None);
    }
}

/// Views bytes as blocks; a rest that is no whole block is left out.
pub fn blocks<B: Pod>(bytes: &[u8]) -> &[B] {
    const { assert!(align_of::<B>() == 1 && size_of::<B>() > 0) };
    let whole = bytes.len() / size_of::<B>() * size_of::<B>();
    bytemuck::cast_slice(&bytes[..whole])
}

/// The type of caches in 8 bits.
pub const CACHE_BLOCKS: DType = DType::Q8_0;

/// Rounds whole blocks of values to [`CACHE_BLOCKS`].
pub fn cache_blocks(values: &[f32], out: &mut [u8]) {
    let blocks = values.as_chunks().0.iter().zip(out.chunks_exact_mut(size_of::<q8_0::Q8_0>()));
    blocks.for_each(|(values, out)| {
        out.copy_from_slice(bytemuck::bytes_of(&q8_0::Q8_0::encode::<1>(values, None)));
    });
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
    (dtype.traits().decode)(bytes, out);
    Ok(())
}

/// Encodes values to the end of `out`.
///
/// # Errors
/// [`Error::Shape`] where the values are no whole number of blocks, [`Error::Unsupported`] for the formats that only
/// decode.
pub fn encode(dtype: DType, values: &[f32], out: &mut Vec<u8>) -> Result<()> {
    encode_by(dtype.encoder(), dtype, values, None, out)
}

/// As [`encode()`], of rows whose columns are not equally important: `important` has a weight for each.
///
/// # Errors
/// As [`encode()`], and [`Error::Shape`] where the values are no whole number of such rows.
pub fn encode_for(dtype: DType, values: &[f32], important: &[f32], out: &mut Vec<u8>) -> Result<()> {
    encode_by(dtype.encoder(), dtype, values, Some(important), out)
}

/// As these two, by a form of the type's encoder.
pub(crate) fn encode_by(
    encoder: Option<Encoder>,
    dtype: DType,
    values: &[f32],
    important: Option<&[f32]>,
    out: &mut Vec<u8>,
) -> Result<()> {
    let row = important.map_or(values.len(), <[f32]>::len);
    let whole = dtype.bytes_for(row).is_some() && (important.is_none() || row > 0 && values.len().is_multiple_of(row));
    let Some(len) = dtype.bytes_for(values.len()).filter(|_| whole) else {
        let what = if important.is_some() { "rows" } else { "blocks" };
        return Err(Error::shape(format!("{} elements are no whole number of {dtype} {what}", values.len())));
    };
    let Some(encoder) = encoder else {
        return Err(Error::unsupported(format!("{dtype} can be read but not written")));
    };
    let start = out.len();
    out.resize(start + len, 0);
    encoder(values, important, &mut out[start..]);
    Ok(())
}
