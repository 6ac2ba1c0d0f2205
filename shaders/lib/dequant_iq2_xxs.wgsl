// IQ2_XXS: a grid of 512 bytes; plane 0 two words per unit, four indices, then four times 7 signs below a 4-bit scale;
// plane 3 f16 d per 8 units. w = d (scale + 0.5) / 4 q.
#import unit_quant
#import grid_eights

const PLANE0: u32 = 32u;

fn load_unit(i: u32) -> Unit {
    let at = word(PLANE0, 2u * i);
    let s = word(PLANE0, 2u * i + 1u);
    let a = eight(grid_row(at & 255u), with_parity(s));
    let b = eight(grid_row((at >> 8u) & 255u), with_parity(s >> 7u));
    let c = eight(grid_row((at >> 16u) & 255u), with_parity(s >> 14u));
    let d = eight(grid_row(at >> 24u), with_parity(s >> 21u));
    let scale = half_at(p.plane3, i >> 3u) * (f32(s >> 28u) + 0.5) * 0.25;
    return Unit(vec4(a, b), vec4(c, d), vec2(scale), vec2(0.0));
}
