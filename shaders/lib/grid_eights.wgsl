// Rows of a grid in front of plane 0: 16 bits each, eight elements of two bits; and signs.

fn grid_row(i: u32) -> u32 {
    return (word(0u, i >> 1u) >> ((i & 1u) * 16u)) & 0xffffu;
}

// Four 2-bit numbers, each in a byte.
fn spread(bits: u32) -> u32 {
    return (bits | (bits << 6u) | (bits << 12u) | (bits << 18u)) & 0x03030303u;
}

// Four bytes, none of them 0, negated where one of four bits is set.
fn signed(bytes: u32, signs: u32) -> u32 {
    let negative = ((signs & 15u) * 0x00204081u) & 0x01010101u;
    return (bytes ^ (negative * 255u)) + negative;
}

// Eight elements of 8, 25 or 43 in a row, negated where one of eight bits is set.
fn eight(row: u32, signs: u32) -> vec2<u32> {
    let codes = vec2(spread(row & 255u), spread(row >> 8u));
    let levels = vec2(0x08080808u) + codes * 17u + ((codes >> vec2(1u)) & vec2(0x01010101u));
    return vec2(signed(levels.x, signs), signed(levels.y, signs >> 4u));
}

// Seven signs, and the eighth such that their number is even.
fn with_parity(signs: u32) -> u32 {
    return (signs & 127u) | ((countOneBits(signs & 127u) & 1u) << 7u);
}
