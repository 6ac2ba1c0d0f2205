// F32: plane 0 holds 128 bytes per unit.
#import unit_plain

alias Unit = Vecs;

fn load_unit(i: u32) -> Unit {
    let at = i * 8u;
    return Vecs(
        bitcast<vec4<f32>>(w[at]), bitcast<vec4<f32>>(w[at + 1u]),
        bitcast<vec4<f32>>(w[at + 2u]), bitcast<vec4<f32>>(w[at + 3u]),
        bitcast<vec4<f32>>(w[at + 4u]), bitcast<vec4<f32>>(w[at + 5u]),
        bitcast<vec4<f32>>(w[at + 6u]), bitcast<vec4<f32>>(w[at + 7u]),
    );
}

fn unit_vecs(u: Unit) -> Vecs {
    return u;
}
