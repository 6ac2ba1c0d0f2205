// Q5_0: plane 0 n4; plane 1 one f16 scale per unit; plane 2 n1, the fifth bits. w = d (q - 16).
#import unit_quant

fn load_unit(i: u32) -> Unit {
    let q = w[i];
    let d = half_at(p.plane1, i);
    let h = word(p.plane2, i);
    return Unit(
        (q & NIBBLES) | (ones(h) << vec4(4u)),
        ((q >> vec4(4u)) & NIBBLES) | (ones(h >> 16u) << vec4(4u)),
        vec2(d), vec2(-16.0 * d),
    );
}
