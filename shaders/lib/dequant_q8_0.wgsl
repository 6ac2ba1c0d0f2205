// Q8_0: plane 0 32 signed bytes per unit; plane 1 one f16 scale per unit. w = d q.
#import unit_quant

fn load_unit(i: u32) -> Unit {
    let d = half_at(p.plane1, i);
    return Unit(w[2u * i], w[2u * i + 1u], vec2(d), vec2(0.0));
}
