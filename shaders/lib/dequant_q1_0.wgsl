// Q1_0: plane 0 n1; plane 3 f16 d per 4 units. w = d (2 q - 1).
#import unit_quant

fn load_unit(i: u32) -> Unit {
    let q = word(0u, i);
    let d = half_at(p.plane3, i >> 2u);
    return Unit(ones(q), ones(q >> 16u), vec2(2.0 * d), vec2(-d));
}
