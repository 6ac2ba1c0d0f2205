// IQ3_XXS: a grid of 512 bytes; plane 0 eight index bytes per unit; plane 2 a word per unit, four times 7 signs below a 4-bit
// scale; plane 3 f16 d per 8 units. w = d (scale + 0.5) / 2 q.
#import unit_quant
#import grid_eights
#import grid_fours

const PLANE0: u32 = 32u;

// 8 q + 4, but 62 for 7.
fn levels(q: u32) -> u32 {
    return 8u * q + 0x04040404u + 2u * (q & (q >> 1u) & (q >> 2u) & 0x01010101u);
}

// The elements of four indices, with signs.
fn sixteen(at: u32, signs: u32) -> vec4<u32> {
    let s = with_parity(signs) | (with_parity(signs >> 7u) << 8u);
    return vec4(
        signed(levels(four(at & 255u)), s), signed(levels(four((at >> 8u) & 255u)), s >> 4u),
        signed(levels(four((at >> 16u) & 255u)), s >> 8u), signed(levels(four(at >> 24u)), s >> 12u),
    );
}

fn load_unit(i: u32) -> Unit {
    let s = word(p.plane2, i);
    let scale = half_at(p.plane3, i >> 3u) * (f32(s >> 28u) + 0.5) * 0.5;
    return Unit(sixteen(word(PLANE0, 2u * i), s), sixteen(word(PLANE0, 2u * i + 1u), s >> 14u), vec2(scale), vec2(0.0));
}
