// Q4_0: plane 0 n4; plane 1 one f16 scale per unit. w = d (q - 8).
#import unit_quant

fn load_unit(i: u32) -> Unit {
    let q = w[i];
    let d = half_at(p.plane1, i);
    return Unit(q & NIBBLES, (q >> vec4(4u)) & NIBBLES, vec2(d), vec2(-8.0 * d));
}
