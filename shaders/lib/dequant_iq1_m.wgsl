// IQ1_M: a grid of 4 KiB; plane 0 four index bytes per unit; plane 1 two bytes per unit, four times 3 upper bits of the indices
// and the sign of a shift; plane 3 two words per 8 units, each two times four 3-bit scales below four bits of f16 d.
// w = d (2 scale + 1) (q + shift).
#import unit_quant
#import grid_eighths

const PLANE0: u32 = 256u;

fn indexed(at: u32, h: u32) -> vec2<u32> {
    return eight_eighths(grid_row((at & 255u) | ((h & 7u) << 8u)), (h & 8u) != 0u);
}

fn load_unit(i: u32) -> Unit {
    let at = word(PLANE0, i);
    let h = pair(p.plane1, i);
    let block = 2u * (i >> 3u);
    let low = word(p.plane3, block);
    let high = word(p.plane3, block + 1u);
    let bits = ((low >> 12u) & 15u) | ((low >> 24u) & 0xf0u) | ((high >> 4u) & 0xf00u) | ((high >> 16u) & 0xf000u);
    let d = unpack2x16float(bits).x;
    let s = select(low, high, (i & 4u) != 0u) >> ((i & 2u) * 8u + (i & 1u) * 6u);
    let scale = d * vec2(f32(2u * (s & 7u) + 1u), f32(2u * ((s >> 3u) & 7u) + 1u)) * 0.125;
    return Unit(
        vec4(indexed(at, h), indexed(at >> 8u, h >> 4u)), vec4(indexed(at >> 16u, h >> 8u), indexed(at >> 24u, h >> 12u)),
        scale, vec2(0.0),
    );
}
