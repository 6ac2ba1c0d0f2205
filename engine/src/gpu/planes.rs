//! From the file's blocks to aligned planes: the layout that `shaders/lib/dequant_*.wgsl` read, and the rearrangement
//! that happens in the one copy to the device. No device here.
//!
//! Weights are taken in units of 32 neighbouring columns. A part's planes lie in one buffer, each from a multiple of 16
//! bytes on: plane 0 the integers (their low bits), plane 1 scales, plane 2 high bits, plane 3 scales per 8 units.

use crate::dtype::DType;
use crate::quant::{Block, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, blocks, scale_min};

/// Columns in a unit.
pub(super) const UNIT: usize = 32;

/// Bytes per unit of planes 0 to 2, and per 8 units of plane 3.
fn plane_bytes(dtype: DType) -> [usize; 4] {
    match dtype {
        DType::F32 => [128, 0, 0, 0],
        DType::F16 | DType::BF16 => [64, 0, 0, 0],
        DType::Q4_0 => [16, 2, 0, 0],
        DType::Q4_1 => [16, 4, 0, 0],
        DType::Q5_0 => [16, 2, 4, 0],
        DType::Q5_1 => [16, 4, 4, 0],
        DType::Q8_0 => [32, 2, 0, 0],
        DType::Q2_K => [8, 2, 0, 4],
        DType::Q3_K => [8, 2, 4, 2],
        DType::Q4_K => [16, 2, 0, 4],
        DType::Q5_K => [16, 2, 4, 4],
        DType::Q6_K => [16, 2, 8, 2],
    }
}

/// The feature that makes a kernel read this type.
pub(super) fn feature(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "F16W",
        other => other.name(),
    }
}

/// Where the planes of a number of units lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// First byte of each plane.
    pub starts: [u64; 4],
    /// Bytes of all, a multiple of 16.
    pub bytes: u64,
}

impl Layout {
    /// The layout of `units` units.
    pub(super) fn new(dtype: DType, units: u64) -> Layout {
        let sizes = plane_sizes(dtype, units);
        let mut starts = [0; 4];
        let mut at = 0;
        for (start, size) in starts.iter_mut().zip(sizes) {
            *start = at;
            at += size.next_multiple_of(16);
        }
        Layout { starts, bytes: at }
    }
}

/// Bytes that each plane takes for `units` units.
pub(super) fn plane_sizes(dtype: DType, units: u64) -> [u64; 4] {
    let bytes = plane_bytes(dtype);
    std::array::from_fn(|i| if i == 3 { units.div_ceil(8) * bytes[3] as u64 } else { units * bytes[i] as u64 })
}

/// Units of a row of `cols` columns.
pub(super) fn units(cols: usize) -> usize {
    cols.div_ceil(UNIT)
}

/// Appends rows of blocks to the planes. `bytes` are whole rows of `cols` columns; plain types are filled up with zeros to
/// whole units.
pub(super) fn rearrange(dtype: DType, bytes: &[u8], cols: usize, planes: &mut [Vec<u8>; 4]) {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => plain(dtype, bytes, cols, &mut planes[0]),
        DType::Q4_0 => each(bytes, |b: &Q4_0| put(planes, &b.qs, &b.d, &[], &[])),
        DType::Q4_1 => each(bytes, |b: &Q4_1| put(planes, &b.qs, &join(b.d, b.m), &[], &[])),
        DType::Q5_0 => each(bytes, |b: &Q5_0| put(planes, &b.qs, &b.d, &b.qh, &[])),
        DType::Q5_1 => each(bytes, |b: &Q5_1| put(planes, &b.qs, &join(b.d, b.m), &b.qh, &[])),
        DType::Q8_0 => each(bytes, |b: &Q8_0| put(planes, bytemuck::cast_slice(&b.qs), &b.d, &[], &[])),
        DType::Q2_K => each(bytes, |b: &Q2_K| q2_k(b, planes)),
        DType::Q3_K => each(bytes, |b: &Q3_K| q3_k(b, planes)),
        DType::Q4_K => each(bytes, |b: &Q4_K| q4_k(b, planes)),
        DType::Q5_K => each(bytes, |b: &Q5_K| q5_k(b, planes)),
        DType::Q6_K => each(bytes, |b: &Q6_K| q6_k(b, planes)),
    }
}

fn each<const LEN: usize, B: Block<LEN>>(bytes: &[u8], f: impl FnMut(&B)) {
    blocks::<B>(bytes).iter().for_each(f);
}

fn put(planes: &mut [Vec<u8>; 4], a: &[u8], b: &[u8], c: &[u8], d: &[u8]) {
    for (plane, bytes) in planes.iter_mut().zip([a, b, c, d]) {
        plane.extend_from_slice(bytes);
    }
}

fn join(a: [u8; 2], b: [u8; 2]) -> [u8; 4] {
    [a[0], a[1], b[0], b[1]]
}

fn plain(dtype: DType, bytes: &[u8], cols: usize, plane: &mut Vec<u8>) {
    let row_bytes = cols * dtype.block_bytes();
    let padding = (units(cols) * UNIT - cols) * dtype.block_bytes();
    if padding == 0 {
        return plane.extend_from_slice(bytes);
    }
    for row in bytes.chunks_exact(row_bytes) {
        plane.extend_from_slice(row);
        plane.resize(plane.len() + padding, 0);
    }
}

/// Byte `i` holds element `i` in its low and element `i + 16` in its high four bits.
fn n4(q: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|i| q[i] & 15 | q[i + 16] << 4)
}

/// Byte `b` of word `h` holds elements `16 h + 4 j + b` in bits `2 j`.
fn n2(q: &[u8; 32]) -> [u8; 8] {
    std::array::from_fn(|i| (0..4).fold(0, |byte, j| byte | (q[i / 4 * 16 + 4 * j + i % 4] & 3) << (2 * j)))
}

/// Bit `i` belongs to element `i`.
fn n1(q: &[u8; 32]) -> [u8; 4] {
    std::array::from_fn(|i| (0..8).fold(0, |byte, j| byte | (q[8 * i + j] & 1) << j))
}

fn q2_k(b: &Q2_K, planes: &mut [Vec<u8>; 4]) {
    for u in 0..8 {
        let q = std::array::from_fn(|i| b.qs[u / 4 * 32 + i] >> (u % 4 * 2));
        put(planes, &n2(&q), &b.scales[2 * u..2 * u + 2], &[], &[]);
    }
    planes[3].extend_from_slice(&join(b.d, b.dmin));
}

fn q3_k(b: &Q3_K, planes: &mut [Vec<u8>; 4]) {
    for u in 0..8 {
        let low = std::array::from_fn(|i| b.qs[u / 4 * 32 + i] >> (u % 4 * 2));
        let high = std::array::from_fn(|i| b.hmask[i] >> u);
        let scales = [b.scale(2 * u) as u8, b.scale(2 * u + 1) as u8];
        put(planes, &n2(&low), &scales, &n1(&high), &[]);
    }
    planes[3].extend_from_slice(&b.d);
}

fn q4_k(b: &Q4_K, planes: &mut [Vec<u8>; 4]) {
    for u in 0..8 {
        let q = std::array::from_fn(|i| b.qs[u / 2 * 32 + i] >> (u % 2 * 4));
        let (scale, min) = scale_min(u, &b.scales);
        put(planes, &n4(&q), &[scale, min], &[], &[]);
    }
    planes[3].extend_from_slice(&join(b.d, b.dmin));
}

fn q5_k(b: &Q5_K, planes: &mut [Vec<u8>; 4]) {
    for u in 0..8 {
        let low = std::array::from_fn(|i| b.qs[u / 2 * 32 + i] >> (u % 2 * 4));
        let high = std::array::from_fn(|i| b.qh[i] >> u);
        let (scale, min) = scale_min(u, &b.scales);
        put(planes, &n4(&low), &[scale, min], &n1(&high), &[]);
    }
    planes[3].extend_from_slice(&join(b.d, b.dmin));
}

fn q6_k(b: &Q6_K, planes: &mut [Vec<u8>; 4]) {
    for u in 0..8 {
        let (half, i_half) = (u / 4, u % 4 * 32);
        let low = std::array::from_fn(|i| b.ql[half * 64 + (i_half + i) % 64] >> (i_half / 64 * 4));
        let high = std::array::from_fn(|i| b.qh[half * 32 + i] >> (i_half / 32 * 2));
        put(planes, &n4(&low), bytemuck::cast_slice(&b.scales[2 * u..2 * u + 2]), &n2(&high), &[]);
    }
    planes[3].extend_from_slice(&b.d);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_have_their_sizes() {
        for dtype in DType::ALL {
            let cols = 512;
            let rows = 3;
            let bytes = vec![1; rows * dtype.bytes_for(cols).unwrap()];
            let mut planes = Default::default();
            rearrange(*dtype, &bytes, cols, &mut planes);
            let sizes = plane_sizes(*dtype, (rows * units(cols)) as u64);
            assert_eq!(planes.each_ref().map(|p| p.len() as u64), sizes, "{dtype}");
            let layout = Layout::new(*dtype, (rows * units(cols)) as u64);
            assert!(layout.starts.iter().all(|s| s % 16 == 0) && layout.bytes >= sizes.iter().sum());
            // No type grows by more than a twentieth on the device.
            assert!(layout.bytes as usize <= bytes.len() + bytes.len() / 20 + 64, "{dtype} takes {}", layout.bytes);
        }
    }

    #[test]
    fn ragged_rows_are_filled_up() {
        let mut planes: [Vec<u8>; 4] = Default::default();
        rearrange(DType::F16, &[7; 2 * 33 * 2], 33, &mut planes);
        assert_eq!(planes[0].len(), 2 * 64 * 2);
        assert_eq!(planes[0][65..69], [7, 0, 0, 0]);
        assert_eq!(planes[0][127..130], [0, 7, 7]);
    }
}
