//! Blocks of given integers: which type holds integers of a range with one f16 scale for 32, and such blocks. For weights
//! that were quantised elsewhere, which these types then hold without a further error.

use super::DType;
use super::half::{f16, to_f16};
use super::q4_0::Q4_0;
use super::q5_0::{self, Q5_0};
use super::q8_0::Q8_0;

/// The smallest type that holds all integers of a range.
pub fn holding(least: i32, most: i32) -> Option<DType> {
    let types = [(-8, 7, DType::Q4_0), (-16, 15, DType::Q5_0), (-128, 127, DType::Q8_0)];
    types.into_iter().find(|(from, to, _)| *from <= least && most <= *to).map(|(.., dtype)| dtype)
}

/// Appends a block of 32 integers, each times `scale`, of a type that [`holding`] gave.
pub fn push(dtype: DType, scale: f32, levels: &[i32; 32], out: &mut Vec<u8>) {
    let d = to_f16(scale);
    match dtype {
        DType::Q4_0 => {
            let q = |i: usize| (levels[i] + 8) as u8 & 15;
            let block = Q4_0 { d, qs: std::array::from_fn(|i| q(i) | q(i + 16) << 4) };
            out.extend_from_slice(bytemuck::bytes_of(&block));
        }
        DType::Q5_0 => {
            let (qs, qh) = q5_0::part(&levels.map(|l| (l + 16) as u8 & 31));
            out.extend_from_slice(bytemuck::bytes_of(&Q5_0 { d, qh, qs }));
        }
        _ => {
            let block = Q8_0 { d, qs: levels.map(|l| l as i8) };
            out.extend_from_slice(bytemuck::bytes_of(&block));
        }
    }
}

/// Multiplies the scales of blocks of a type that [`holding`] gave, each of which begins with its scale.
#[cfg_attr(target_arch = "wasm32", allow(dead_code, reason = "files are written where there are files"))]
pub fn multiply(dtype: DType, blocks: &mut [u8], factor: f32) {
    for block in blocks.chunks_exact_mut(dtype.block_bytes()) {
        if let Some(d) = block.first_chunk_mut() {
            *d = to_f16(f16(*d) * factor);
        }
    }
}

/// Whether an f16 holds a scale.
pub fn holds(scale: f32) -> bool {
    f16(to_f16(scale)) == scale
}
