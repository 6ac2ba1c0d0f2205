// Q5_K: as Q4_K, and plane 2 n1, the fifth bits.
#import unit_quant

fn load_unit(i: u32) -> Unit {
    let q = w[i];
    let h = word(p.plane2, i);
    let s = pair(p.plane1, i);
    let d = unpack2x16float(word(p.plane3, i >> 3u)) * vec2<f32>(vec2(s & 255u, (s >> 8u) & 255u));
    return Unit(
        (q & NIBBLES) | (ones(h) << vec4(4u)),
        ((q >> vec4(4u)) & NIBBLES) | (ones(h >> 16u) << vec4(4u)),
        d.xx, -d.yy,
    );
}
