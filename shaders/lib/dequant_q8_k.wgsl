// Q8_K: plane 0 32 signed bytes per unit; plane 3 f32 d per 8 units. w = d q.
#import unit_quant

fn load_unit(i: u32) -> Unit {
    let d = bitcast<f32>(word(p.plane3, i >> 3u));
    return Unit(w[2u * i], w[2u * i + 1u], vec2(d), vec2(0.0));
}
