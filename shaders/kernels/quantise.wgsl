// quantise: rows of x to blocks of 32 signed bytes with their scale and the scaled sums of both halves, for the DOT4 forms
// of linear. One invocation per block. NORM: x is multiplied by factors first, and behind the sums stand the squares of its
// own elements, for what the norm divides a row by, which is applied to the sums of its products.
#import grid
#import step
#import bytes
#ifdef NORM
#import constants
#endif

struct Params {
    rows_at: u32,
    units: u32, // blocks of a row
    norm_at: u32,
    scales_at: u32, // where the scales begin, in vectors
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
// Two vectors of bytes per block; from scales_at on one per block, as floats: scale, scaled sums of both halves, squares.
@group(0) @binding(3) var<storage, read_write> x_bytes: array<vec4<u32>>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let block = flat_id(wid, n_wg) * WG + lid;
    if (block >= step[p.rows_at] * p.units) { return; }
    let at = block * 8u;
    let v = Vecs(x[at], x[at + 1u], x[at + 2u], x[at + 3u], x[at + 4u], x[at + 5u], x[at + 6u], x[at + 7u]);
#ifdef NORM
    let f = p.norm_at + block % p.units * 32u;
    let factors = Vecs(
        constant_quad(f), constant_quad(f + 4u), constant_quad(f + 8u), constant_quad(f + 12u),
        constant_quad(f + 16u), constant_quad(f + 20u), constant_quad(f + 24u), constant_quad(f + 28u),
    );
    let b = bytes_of(vecs_mul(v, factors), vecs_dot(v, v));
#else
    let b = bytes_of(v, 0.0);
#endif
    x_bytes[2u * block] = b.lo;
    x_bytes[2u * block + 1u] = b.hi;
    x_bytes[p.scales_at + block] = bitcast<vec4<u32>>(b.s);
}
