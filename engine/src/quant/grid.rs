//! Rows of the grids that the indices of some types point into, and signs, eight bytes at a time.

/// A byte of 1, eight times.
pub(super) const ONES: u64 = 0x0101_0101_0101_0101;

/// Row `i` of a grid: 16 bits, two rows in a word.
pub(super) fn row(grid: &[u32], i: usize) -> u16 {
    (grid[i / 2] >> (i % 2 * 16)) as u16
}

/// Seven signs, and the eighth such that their number is even (ggml's `ksigns_iq2xs`).
pub(super) fn with_parity(signs: u32) -> u8 {
    let signs = (signs & 127) as u8;
    signs | ((signs.count_ones() & 1) as u8) << 7
}

/// The elements of eight bytes, none of them 0, negated where a sign is set.
pub(super) fn negated(bytes: u64, signs: u8) -> [i8; 8] {
    // Bit `i` alone in byte `i`; then 1 for what is not 0.
    let bits = (u64::from(signs) * ONES) & 0x8040_2010_0804_0201;
    let negative = (bits + 0x7f * ONES) >> 7 & ONES;
    ((bytes ^ negative * 255) + negative).to_le_bytes().map(|byte| byte as i8)
}

/// The eight 2-bit codes of a row, each in a byte.
fn eight(row: u16) -> u64 {
    let x = u64::from(row);
    let x = (x | x << 24) & 0x0000_00ff_0000_00ff;
    let x = (x | x << 12) & 0x000f_000f_000f_000f;
    (x | x << 6) & 0x0303_0303_0303_0303
}

/// Two rows of four 4-bit codes, each in a byte.
pub(super) fn two_fours(rows: [u16; 2]) -> u64 {
    let x = u64::from(rows[0]) | u64::from(rows[1]) << 32;
    let x = (x | x << 8) & 0x00ff_00ff_00ff_00ff;
    (x | x << 4) & 0x0f0f_0f0f_0f0f_0f0f
}

/// The elements of a row of eight 2-bit codes for 8, 25 and 43, negated where a sign is set.
pub(super) fn levels(row: u16, signs: u8) -> [i8; 8] {
    let codes = eight(row);
    negated(8 * ONES + 17 * codes + (codes >> 1 & ONES), signs)
}

/// The elements of a row of eight 2-bit codes for -1, 0 and 1, in eighths, each an eighth up or down.
pub(super) fn eighths(row: u16, down: bool) -> [i8; 8] {
    // 16 more than the element, which is not negative; taken off within each byte.
    let raised = 8 * eight(row) + if down { 7 * ONES } else { 9 * ONES };
    ((raised + 0x70 * ONES) ^ (0x80 * ONES)).to_le_bytes().map(|byte| byte as i8)
}
