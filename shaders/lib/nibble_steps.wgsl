// Nibbles that stand for sixteen uneven steps, which a type gives as STEPS: signed bytes in a vec4<u32>.

// The steps of four nibbles, each in a byte.
fn four_steps(q: u32) -> u32 {
    let at = (vec4(q) >> vec4(0u, 8u, 16u, 24u)) & vec4(15u);
    let words = vec4(STEPS[at.x >> 2u], STEPS[at.y >> 2u], STEPS[at.z >> 2u], STEPS[at.w >> 2u]);
    let bytes = (words >> ((at & vec4(3u)) * 8u)) & vec4(255u);
    return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}

// The unit of an n4 plane.
fn step_unit(q: vec4<u32>, scale: vec2<f32>) -> Unit {
    let lo = q & NIBBLES;
    let hi = (q >> vec4(4u)) & NIBBLES;
    return Unit(
        vec4(four_steps(lo.x), four_steps(lo.y), four_steps(lo.z), four_steps(lo.w)),
        vec4(four_steps(hi.x), four_steps(hi.y), four_steps(hi.z), four_steps(hi.w)),
        scale, vec2(0.0),
    );
}

fn byte_at(plane: u32, i: u32) -> u32 {
    return (word(plane, i >> 2u) >> ((i & 3u) * 8u)) & 255u;
}
