// IQ4_NL: plane 0 n4; plane 1 one f16 scale per unit. w = d steps[q].
#import unit_quant

// What the sixteen nibbles stand for, as signed bytes.
const STEPS: vec4<u32> = vec4(0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u);

// The steps of four nibbles, each in a byte.
fn steps(q: u32) -> u32 {
    let at = (vec4(q) >> vec4(0u, 8u, 16u, 24u)) & vec4(15u);
    let words = vec4(STEPS[at.x >> 2u], STEPS[at.y >> 2u], STEPS[at.z >> 2u], STEPS[at.w >> 2u]);
    let bytes = (words >> ((at & vec4(3u)) * 8u)) & vec4(255u);
    return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}

fn load_unit(i: u32) -> Unit {
    let q = w[i];
    let lo = q & NIBBLES;
    let hi = (q >> vec4(4u)) & NIBBLES;
    return Unit(
        vec4(steps(lo.x), steps(lo.y), steps(lo.z), steps(lo.w)),
        vec4(steps(hi.x), steps(hi.y), steps(hi.z), steps(hi.w)),
        vec2(half_at(p.plane1, i)), vec2(0.0),
    );
}
