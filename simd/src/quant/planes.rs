//! How blocks lie in a GPU's buffer: in planes of equal pieces for each unit of 32 neighbouring elements, as
//! `shaders/lib/dequant_*.wgsl` read them. Plane 0 holds the integers (their low bits), plane 1 scales, plane 2 high bits,
//! plane 3 what blocks of several units have once. A type may use them
//! otherwise; its WGSL says how. How planes lie in a buffer is in `gpu/planes.rs`.

/// The planes of some blocks, appended to block by block.
pub type Planes = [Vec<u8>; 4];

/// Appends to the four planes.
pub(super) fn put(planes: &mut Planes, a: &[u8], b: &[u8], c: &[u8], d: &[u8]) {
    for (plane, bytes) in planes.iter_mut().zip([a, b, c, d]) {
        plane.extend_from_slice(bytes);
    }
}

/// Two fields of two bytes.
pub(super) fn join(a: [u8; 2], b: [u8; 2]) -> [u8; 4] {
    [a[0], a[1], b[0], b[1]]
}

/// Layout n4: byte `i` holds element `i` in its low and element `i + 16` in its high four bits.
pub(super) fn n4(q: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|i| q[i] & 15 | q[i + 16] << 4)
}

/// Layout n2: byte `b` of word `h` holds elements `16 h + 4 j + b` in bits `2 j`.
pub(super) fn n2(q: &[u8; 32]) -> [u8; 8] {
    std::array::from_fn(|i| (0..4).fold(0, |byte, j| byte | (q[i / 4 * 16 + 4 * j + i % 4] & 3) << (2 * j)))
}

/// Layout n1: bit `i` belongs to element `i`.
pub(super) fn n1(q: &[u8; 32]) -> [u8; 4] {
    std::array::from_fn(|i| (0..8).fold(0, |byte, j| byte | (q[8 * i + j] & 1) << j))
}
