//! Where the planes of a weight lie in its buffer, and the rearrangement that happens in the one copy to the device. How
//! a block lies in planes is its type's: `quant`. No device here.
//!
//! Weights are taken in units of 32 neighbouring columns. A part's planes lie in one buffer, each from a multiple of 16
//! bytes on, behind the grid of types that have one: it is a few kilobytes, and so costs kernels neither a binding nor a
//! parameter.

use crate::dtype::DType;
use crate::quant::planes::Planes;

/// Columns in a unit.
pub(super) const UNIT: usize = 32;

/// The feature that makes a kernel read this type.
pub(super) fn feature(dtype: DType) -> &'static str {
    dtype.traits().feature
}

/// The table that the type's indices point into, empty for most: at the beginning of its parts' buffers.
pub(super) fn grid(dtype: DType) -> &'static [u32] {
    dtype.traits().groups.as_ref().map_or(&[], |traits| traits.grid)
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
        let mut at = (4 * grid(dtype).len() as u64).next_multiple_of(16);
        for (start, size) in starts.iter_mut().zip(sizes) {
            *start = at;
            at += size.next_multiple_of(16);
        }
        Layout { starts, bytes: at }
    }
}

/// Bytes that each plane takes for `units` units.
pub(super) fn plane_sizes(dtype: DType, units: u64) -> [u64; 4] {
    let bytes = dtype.traits().plane_bytes;
    let per_block = (dtype.block_len() / UNIT).max(1) as u64;
    std::array::from_fn(|i| if i == 3 { units.div_ceil(per_block) * bytes[3] as u64 } else { units * bytes[i] as u64 })
}

/// Units of a row of `cols` columns.
pub(super) fn units(cols: usize) -> usize {
    cols.div_ceil(UNIT)
}

/// Appends rows of blocks to the planes. `bytes` are whole rows of `cols` columns; plain types are filled up with zeros to
/// whole units.
pub(super) fn rearrange(dtype: DType, bytes: &[u8], cols: usize, planes: &mut Planes) {
    match dtype.traits().rearrange {
        Some(rearrange) => rearrange(bytes, planes),
        None => plain(dtype, bytes, cols, &mut planes[0]),
    }
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
            let grid = 4 * grid(*dtype).len();
            assert!(
                layout.bytes as usize - grid <= bytes.len() + bytes.len() / 20 + 64,
                "{dtype} takes {}",
                layout.bytes
            );
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
