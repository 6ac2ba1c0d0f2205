// Q4_K: plane 0 n4; plane 1 two bytes per unit, 6-bit scale and 6-bit minimum; plane 3 f16 d and f16 dmin per 8 units.
// w = d scale q - dmin minimum.
#import unit_quant

fn load_unit(i: u32) -> Unit {
    let q = w[i];
    let s = pair(p.plane1, i);
    let d = unpack2x16float(word(p.plane3, i >> 3u)) * vec2<f32>(vec2(s & 255u, (s >> 8u) & 255u));
    return Unit(q & NIBBLES, (q >> vec4(4u)) & NIBBLES, d.xx, -d.yy);
}
