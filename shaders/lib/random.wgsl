// A counter random generator, the same on every device: pcg3d (Jarzynski and Olano 2020).

fn pcg3d(key: vec3<u32>) -> vec3<u32> {
    var v = key * 1664525u + 1013904223u;
    v.x += v.y * v.z;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v ^= v >> vec3(16u);
    v.x += v.y * v.z;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    return v;
}

// Standard Gumbel noise from the upper 23 bits of the first word: -ln(-ln u), u in (0, 1).
fn gumbel(seed: vec2<u32>, counter: u32) -> f32 {
    let u = (f32(pcg3d(vec3(seed, counter)).x >> 9u) + 0.5) * 0x1p-23;
    return -log(-log(u));
}
