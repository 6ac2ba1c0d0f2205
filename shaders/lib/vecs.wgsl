// 32 neighbouring numbers in registers: what a unit of weights decodes to, and what it is multiplied with.

struct Vecs {
    v0: vec4<f32>, v1: vec4<f32>, v2: vec4<f32>, v3: vec4<f32>,
    v4: vec4<f32>, v5: vec4<f32>, v6: vec4<f32>, v7: vec4<f32>,
}

fn vecs_dot(a: Vecs, b: Vecs) -> f32 {
    return dot(a.v0, b.v0) + dot(a.v1, b.v1) + dot(a.v2, b.v2) + dot(a.v3, b.v3)
        + dot(a.v4, b.v4) + dot(a.v5, b.v5) + dot(a.v6, b.v6) + dot(a.v7, b.v7);
}

fn vecs_mul(a: Vecs, b: Vecs) -> Vecs {
    return Vecs(a.v0 * b.v0, a.v1 * b.v1, a.v2 * b.v2, a.v3 * b.v3, a.v4 * b.v4, a.v5 * b.v5, a.v6 * b.v6, a.v7 * b.v7);
}

// Sums of the first and of the second 16.
fn vecs_sums(a: Vecs) -> vec2<f32> {
    let one = vec4(1.0);
    return vec2(dot(a.v0 + a.v1 + a.v2 + a.v3, one), dot(a.v4 + a.v5 + a.v6 + a.v7, one));
}
