// IQ2_S: a grid of 2 KiB; plane 0 four index bytes per unit; plane 1 two bytes per unit, four times 2 upper bits of the
// indices, and a 4-bit scale for each half; plane 2 n1, the signs; plane 3 f16 d per 8 units. w = d (scale + 0.5) / 4 q.
#import unit_quant
#import grid_eights

const PLANE0: u32 = 128u;

fn load_unit(i: u32) -> Unit {
    let at = word(PLANE0, i);
    let other = pair(p.plane1, i);
    let signs = word(p.plane2, i);
    let a = eight(grid_row((at & 255u) | ((other & 3u) << 8u)), signs);
    let b = eight(grid_row(((at >> 8u) & 255u) | ((other & 12u) << 6u)), signs >> 8u);
    let c = eight(grid_row(((at >> 16u) & 255u) | ((other & 48u) << 4u)), signs >> 16u);
    let d = eight(grid_row((at >> 24u) | ((other & 192u) << 2u)), signs >> 24u);
    let scale = half_at(p.plane3, i >> 3u) * (vec2(f32((other >> 8u) & 15u), f32((other >> 12u) & 15u)) + 0.5) * 0.25;
    return Unit(vec4(a, b), vec4(c, d), scale, vec2(0.0));
}
