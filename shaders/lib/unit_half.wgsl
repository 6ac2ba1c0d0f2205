// Units of 16-bit floats: plane 0 holds 64 bytes per unit.
#import unit_plain

struct Unit { a: vec4<u32>, b: vec4<u32>, c: vec4<u32>, d: vec4<u32> }

fn load_unit(i: u32) -> Unit {
    let at = i * 4u;
    return Unit(w[at], w[at + 1u], w[at + 2u], w[at + 3u]);
}

fn unit_vecs(u: Unit) -> Vecs {
    return Vecs(
        halves(u.a.xy), halves(u.a.zw), halves(u.b.xy), halves(u.b.zw),
        halves(u.c.xy), halves(u.c.zw), halves(u.d.xy), halves(u.d.zw),
    );
}
