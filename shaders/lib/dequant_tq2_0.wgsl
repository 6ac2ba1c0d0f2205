// TQ2_0: plane 0 n2; plane 3 f16 d per 8 units. w = d (q - 1).
#import unit_quant

fn load_unit(i: u32) -> Unit {
    let d = half_at(p.plane3, i >> 3u);
    return Unit(twos(word(0u, 2u * i)), twos(word(0u, 2u * i + 1u)), vec2(d), vec2(-d));
}
