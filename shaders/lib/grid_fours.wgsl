// Rows of a grid in front of plane 0: 16 bits each, four elements of four bits.

// A row's elements, each in a byte.
fn four(i: u32) -> u32 {
    let row = (word(0u, i >> 1u) >> ((i & 1u) * 16u)) & 0xffffu;
    let two = (row | (row << 8u)) & 0x00ff00ffu;
    return (two | (two << 4u)) & 0x0f0f0f0fu;
}
