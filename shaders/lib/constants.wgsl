// A plan's small vectors: norms, biases, factors, rotation frequencies. One buffer holds them all, each from a multiple of
// four words on; parameters say where a vector begins, in words.

@group(0) @binding(9) var<storage, read> constants: array<vec4<u32>>;

const NONE: u32 = 0xffffffffu; // in place of a vector's beginning: there is none

fn constant(at: u32) -> f32 {
    return bitcast<f32>(constants[at / 4u][at % 4u]);
}

// Four neighbours; `at` is a multiple of four.
fn constant_quad(at: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(constants[at / 4u]);
}
