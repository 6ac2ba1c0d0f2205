// Rows of a grid of -1, 0 and 1, shifted by an eighth, in eighths.
#import grid_eights

// Eight elements of a row, each an eighth down or up.
fn eight_eighths(row: u32, down: bool) -> vec2<u32> {
    // 16 more than the element, which is not negative; taken off within each byte.
    let codes = 8u * vec2(spread(row & 255u), spread(row >> 8u)) + vec2(select(0x09090909u, 0x07070707u, down));
    return (codes + vec2(0x70707070u)) ^ vec2(0x80808080u);
}
