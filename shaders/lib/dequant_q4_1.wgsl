// Q4_1: plane 0 n4; plane 1 f16 scale and f16 minimum per unit. w = d q + m.
#import unit_quant

fn load_unit(i: u32) -> Unit {
    let q = w[i];
    let dm = unpack2x16float(word(p.plane1, i));
    return Unit(q & NIBBLES, (q >> vec4(4u)) & NIBBLES, dm.xx, dm.yy);
}
