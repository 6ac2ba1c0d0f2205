// Q6_K: plane 0 n4; plane 1 one signed scale byte per half; plane 2 n2, the upper two bits; plane 3 f16 d per 8 units.
// w = d scale (q - 32).
#import unit_quant

fn load_unit(i: u32) -> Unit {
    let q = w[i];
    let scale = half_at(p.plane3, i >> 3u) * vec2<f32>(unpack4xI8(pair(p.plane1, i)).xy);
    return Unit(
        (q & NIBBLES) | (twos(word(p.plane2, 2u * i)) << vec4(4u)),
        ((q >> vec4(4u)) & NIBBLES) | (twos(word(p.plane2, 2u * i + 1u)) << vec4(4u)),
        scale, -32.0 * scale,
    );
}
