// IQ1_S: a grid of 4 KiB; plane 0 four index bytes per unit; plane 1 two bytes per unit, four times 3 upper bits of the
// indices, a 3-bit scale, and the sign of the shift; plane 3 f16 d per 8 units. w = d (2 scale + 1) (q + shift).
#import unit_quant
#import grid_eighths

const PLANE0: u32 = 256u;

fn load_unit(i: u32) -> Unit {
    let at = word(PLANE0, i);
    let h = pair(p.plane1, i);
    let down = (h & 0x8000u) != 0u;
    let a = eight_eighths(grid_row((at & 255u) | ((h & 7u) << 8u)), down);
    let b = eight_eighths(grid_row(((at >> 8u) & 255u) | (((h >> 3u) & 7u) << 8u)), down);
    let c = eight_eighths(grid_row(((at >> 16u) & 255u) | (((h >> 6u) & 7u) << 8u)), down);
    let d = eight_eighths(grid_row((at >> 24u) | (((h >> 9u) & 7u) << 8u)), down);
    let scale = half_at(p.plane3, i >> 3u) * f32(2u * ((h >> 12u) & 7u) + 1u) * 0.125;
    return Unit(vec4(a, b), vec4(c, d), vec2(scale), vec2(0.0));
}
