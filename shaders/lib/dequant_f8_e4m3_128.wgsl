// F8_E4M3_128: plane 0 holds 32 bytes per unit; plane 3 f32 d per 4 units. w = d q.
#import unit_f8

struct Unit { a: vec4<u32>, b: vec4<u32>, scale: f32 }

fn load_unit(i: u32) -> Unit {
    return Unit(w[2u * i], w[2u * i + 1u], bitcast<f32>(w[p.plane3 + (i >> 4u)][(i >> 2u) & 3u]));
}

fn unit_vecs(u: Unit) -> Vecs {
    let s = u.scale;
    return Vecs(
        s * e4m3(u.a.x), s * e4m3(u.a.y), s * e4m3(u.a.z), s * e4m3(u.a.w),
        s * e4m3(u.b.x), s * e4m3(u.b.y), s * e4m3(u.b.z), s * e4m3(u.b.w),
    );
}
