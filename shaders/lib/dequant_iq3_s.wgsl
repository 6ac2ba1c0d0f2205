// IQ3_S: a grid of 1 KiB; plane 0 eight index bytes per unit; plane 1 a byte per unit, the indices' upper bits; plane 2 n1,
// the signs; plane 3 two words per 8 units, eight 4-bit scales, and f16 d. w = d (1 + 2 scale) (2 q + 1).
#import unit_quant
#import grid_eights
#import grid_fours

const PLANE0: u32 = 64u;

fn element(at: u32, high: u32, signs: u32) -> u32 {
    return signed(2u * four((at & 255u) | ((high & 1u) << 8u)) + 0x01010101u, signs);
}

// The elements of four indices, with signs.
fn sixteen(at: u32, high: u32, signs: u32) -> vec4<u32> {
    return vec4(
        element(at, high, signs), element(at >> 8u, high >> 1u, signs >> 4u),
        element(at >> 16u, high >> 2u, signs >> 8u), element(at >> 24u, high >> 3u, signs >> 12u),
    );
}

fn load_unit(i: u32) -> Unit {
    let high = (word(p.plane1, i >> 2u) >> ((i & 3u) * 8u)) & 255u;
    let signs = word(p.plane2, i);
    let block = 2u * (i >> 3u);
    let s = (word(p.plane3, block) >> ((i & 7u) * 4u)) & 15u;
    let scale = unpack2x16float(word(p.plane3, block + 1u)).x * f32(1u + 2u * s);
    return Unit(
        sixteen(word(PLANE0, 2u * i), high, signs), sixteen(word(PLANE0, 2u * i + 1u), high >> 4u, signs >> 16u),
        vec2(scale), vec2(0.0),
    );
}
