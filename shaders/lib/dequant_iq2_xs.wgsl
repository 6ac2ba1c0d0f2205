// IQ2_XS: a grid of 1 KiB; plane 0 two words per unit, each two times 9 bits of index below 7 signs; plane 1 a byte per
// unit, a 4-bit scale for each half; plane 3 f16 d per 8 units. w = d (scale + 0.5) / 4 q.
#import unit_quant
#import grid_eights

const PLANE0: u32 = 64u;

fn half_word(code: u32) -> vec2<u32> {
    return eight(grid_row(code & 511u), with_parity((code >> 9u) & 127u));
}

fn load_unit(i: u32) -> Unit {
    let x = word(PLANE0, 2u * i);
    let y = word(PLANE0, 2u * i + 1u);
    let s = (word(p.plane1, i >> 2u) >> ((i & 3u) * 8u)) & 255u;
    let scale = half_at(p.plane3, i >> 3u) * (vec2(f32(s & 15u), f32(s >> 4u)) + 0.5) * 0.25;
    return Unit(
        vec4(half_word(x & 0xffffu), half_word(x >> 16u)), vec4(half_word(y & 0xffffu), half_word(y >> 16u)),
        scale, vec2(0.0),
    );
}
