// Q5_1: plane 0 n4; plane 1 f16 scale and f16 minimum per unit; plane 2 n1, the fifth bits. w = d q + m.
#import unit_quant

fn load_unit(i: u32) -> Unit {
    let q = w[i];
    let dm = unpack2x16float(word(p.plane1, i));
    let h = word(p.plane2, i);
    return Unit(
        (q & NIBBLES) | (ones(h) << vec4(4u)),
        ((q >> vec4(4u)) & NIBBLES) | (ones(h >> 16u) << vec4(4u)),
        dm.xx, dm.yy,
    );
}
