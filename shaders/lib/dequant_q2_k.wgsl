// Q2_K: plane 0 n2; plane 1 two bytes per unit, for each half a 4-bit scale below a 4-bit minimum; plane 3 f16 d and f16
// dmin per 8 units. w = d scale q - dmin minimum.
#import unit_quant

fn load_unit(i: u32) -> Unit {
    let s = pair(p.plane1, i);
    let d = unpack2x16float(word(p.plane3, i >> 3u));
    let scale = vec2<f32>(vec2(s & 15u, (s >> 8u) & 15u));
    let minimum = vec2<f32>(vec2((s >> 4u) & 15u, (s >> 12u) & 15u));
    return Unit(twos(word(0u, 2u * i)), twos(word(0u, 2u * i + 1u)), d.x * scale, -d.y * minimum);
}
