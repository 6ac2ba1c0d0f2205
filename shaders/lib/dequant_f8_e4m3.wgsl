// F8_E4M3: plane 0 holds 32 bytes per unit.
#import unit_f8

struct Unit { a: vec4<u32>, b: vec4<u32> }

fn load_unit(i: u32) -> Unit {
    return Unit(w[2u * i], w[2u * i + 1u]);
}

fn unit_vecs(u: Unit) -> Vecs {
    return Vecs(
        e4m3(u.a.x), e4m3(u.a.y), e4m3(u.a.z), e4m3(u.a.w),
        e4m3(u.b.x), e4m3(u.b.y), e4m3(u.b.z), e4m3(u.b.w),
    );
}
