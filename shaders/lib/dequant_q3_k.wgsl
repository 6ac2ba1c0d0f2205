// Q3_K: plane 0 n2; plane 1 one signed scale byte per half; plane 2 n1, the third bits; plane 3 f16 d per 8 units.
// w = d scale (q - 4).
#import unit_quant

fn load_unit(i: u32) -> Unit {
    let h = word(p.plane2, i);
    let scale = half_at(p.plane3, i >> 3u) * vec2<f32>(unpack4xI8(pair(p.plane1, i)).xy);
    return Unit(
        twos(word(0u, 2u * i)) | (ones(h) << vec4(2u)),
        twos(word(0u, 2u * i + 1u)) | (ones(h >> 16u) << vec4(2u)),
        scale, -4.0 * scale,
    );
}
