//! Rows of the grids that the indices of some types point into, and signs, eight bytes at a time.

/// A byte of 1, eight times.
pub(crate) const ONES: u64 = 0x0101_0101_0101_0101;

/// Row `i` of a grid: 16 bits, two rows in a word.
pub(super) fn row(grid: &[u32], i: usize) -> u16 {
    (grid[i / 2] >> (i % 2 * 16)) as u16
}

/// Seven signs, and the eighth such that their number is even (ggml's `ksigns_iq2xs`).
#[inline]
pub(crate) fn with_parity(signs: u32) -> u8 {
    with_parities(signs & 127) as u8
}

/// As [`with_parity`] in each of four bytes, whose eighth bits are 0.
#[inline]
pub(crate) fn with_parities(signs: u32) -> u32 {
    let ones = ONES as u32;
    let odd = signs ^ ((signs >> 4) & (0x0f * ones));
    let odd = odd ^ ((odd >> 2) & (0x03 * ones));
    signs | ((odd ^ odd >> 1) & ones) << 7
}

/// The bits of a byte, each as a byte of 0 or 1.
#[inline]
pub(crate) fn bits(byte: u8) -> u64 {
    // Bit `i` alone in byte `i`; then 1 for what is not 0.
    let alone = (u64::from(byte) * ONES) & 0x8040_2010_0804_0201;
    (alone + 0x7f * ONES) >> 7 & ONES
}

/// The elements of eight bytes, none of them 0, negated where a sign is set.
pub(super) fn negated(bytes: u64, signs: u8) -> [i8; 8] {
    let negative = bits(signs);
    ((bytes ^ (negative * 255)) + negative).to_le_bytes().map(|byte| byte as i8)
}

/// The eight 2-bit codes of a row, each in a byte.
#[inline]
pub(crate) fn eight(row: u16) -> u64 {
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

/// A grid as the loops read it.
pub(crate) struct Grid<T, const ROWS: usize> {
    /// The rows' elements, a byte each.
    pub(crate) rows: [T; ROWS],
    /// The codes of its rows, 16 bits for each.
    pub(crate) codes: [u16; ROWS],
    /// What codes stand for.
    pub(crate) levels: [u8; 16],
}

impl<const ROWS: usize> Grid<u64, ROWS> {
    /// Of rows of eight codes of 2 bits.
    pub(crate) const fn eights<const N: usize>(grid: &[u32; N], levels: [u8; 4]) -> Self {
        let rows = eights(grid, levels);
        Grid { rows, codes: codes(grid), levels: repeated(levels) }
    }
}

impl<const ROWS: usize> Grid<u32, ROWS> {
    /// Of rows of four codes of 4 bits.
    pub(crate) const fn fours<const N: usize>(grid: &[u32; N], levels: [u8; 8]) -> Self {
        let rows = fours(grid, levels);
        Grid { rows, codes: codes(grid), levels: repeated(levels) }
    }
}

const fn codes<const N: usize, const ROWS: usize>(grid: &[u32; N]) -> [u16; ROWS] {
    assert!(ROWS == 2 * N);
    let mut codes = [0; ROWS];
    let mut i = 0;
    while i < ROWS {
        codes[i] = (grid[i / 2] >> (i % 2 * 16)) as u16;
        i += 1;
    }
    codes
}

const fn repeated<const N: usize>(levels: [u8; N]) -> [u8; 16] {
    let mut all = [0; 16];
    let mut i = 0;
    while i < 16 {
        all[i] = levels[i % N];
        i += 1;
    }
    all
}

/// The rows of a grid of eights, expanded to the levels that their 2-bit codes stand for.
pub(crate) const fn eights<const N: usize, const ROWS: usize>(grid: &[u32; N], levels: [u8; 4]) -> [u64; ROWS] {
    assert!(ROWS == 2 * N);
    let mut rows = [0; ROWS];
    let mut i = 0;
    while i < 8 * ROWS {
        let code = grid[i / 16] >> (i % 16 * 2) & 3;
        rows[i / 8] |= (levels[code as usize] as u64) << (i % 8 * 8);
        i += 1;
    }
    rows
}

/// The same for a grid of fours, with codes of 4 bits.
pub(crate) const fn fours<const N: usize, const ROWS: usize>(grid: &[u32; N], levels: [u8; 8]) -> [u32; ROWS] {
    assert!(ROWS == 2 * N);
    let mut rows = [0; ROWS];
    let mut i = 0;
    while i < 4 * ROWS {
        let code = grid[i / 8] >> (i % 8 * 4) & 7;
        rows[i / 4] |= (levels[code as usize] as u32) << (i % 4 * 8);
        i += 1;
    }
    rows
}
