// quantise: rows of x to blocks of 32 signed bytes with their scale and the scaled sums of both halves, for the DOT4 forms
// of linear. One invocation per block. NORM: x is multiplied by factors and by its row's 1 / rms first; one workgroup
// per row then.
#import grid
#import step
#import vecs
#ifdef NORM
#import reduce
#import constants
#endif

struct Params {
    rows_at: u32,
    units: u32, // blocks of a row
    eps: f32,   // with NORM
    norm_at: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> x_bytes: array<vec4<u32>>; // two per block
@group(0) @binding(4) var<storage, read_write> x_scale: array<vec4<f32>>; // scale, scaled sums of both halves, 0
#ifdef NORM
fn norm_weight(quad: u32) -> vec4<f32> {
    return constant_quad(p.norm_at + 4u * quad);
}
#endif

fn load(at: u32) -> Vecs {
    return Vecs(x[at], x[at + 1u], x[at + 2u], x[at + 3u], x[at + 4u], x[at + 5u], x[at + 6u], x[at + 7u]);
}

fn top(v: vec4<f32>) -> f32 {
    let a = abs(v);
    return max(max(a.x, a.y), max(a.z, a.w));
}

fn pack(v: vec4<f32>) -> u32 {
    return pack4xI8(vec4<i32>(round(v)));
}

fn store(block: u32, v: Vecs) {
    let peak = max(max(max(top(v.v0), top(v.v1)), max(top(v.v2), top(v.v3))),
        max(max(top(v.v4), top(v.v5)), max(top(v.v6), top(v.v7))));
    let scale = peak / 127.0;
    let inverse = select(0.0, 127.0 / peak, peak > 0.0);
    let lo = vec4(pack(v.v0 * inverse), pack(v.v1 * inverse), pack(v.v2 * inverse), pack(v.v3 * inverse));
    let hi = vec4(pack(v.v4 * inverse), pack(v.v5 * inverse), pack(v.v6 * inverse), pack(v.v7 * inverse));
    x_bytes[2u * block] = lo;
    x_bytes[2u * block + 1u] = hi;
    let one = vec4(1);
    let a = unpack4xI8(lo.x) + unpack4xI8(lo.y) + unpack4xI8(lo.z) + unpack4xI8(lo.w);
    let b = unpack4xI8(hi.x) + unpack4xI8(hi.y) + unpack4xI8(hi.z) + unpack4xI8(hi.w);
    x_scale[block] = vec4(scale, scale * f32(dot(a, one)), scale * f32(dot(b, one)), 0.0);
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
#ifdef NORM
#ifdef SUBGROUPS
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) n_subgroups: u32,
#endif
#endif
) {
#ifdef NORM
    let row = flat_id(wid, n_wg);
    if (row >= step[p.rows_at]) { return; }
#ifdef SUBGROUPS
    let here = Lane(lid, lane, subgroup, n_subgroups);
#else
    let here = Lane(lid);
#endif
    var sum = 0.0;
    for (var i = lid; i < p.units * 8u; i += WG) {
        let v = x[row * p.units * 8u + i];
        sum += dot(v, v);
    }
    let factor = inverseSqrt(reduce_sum(here, sum) / f32(p.units * 32u) + p.eps);
    for (var u = lid; u < p.units; u += WG) {
        let q = u * 8u;
        let f = Vecs(
            norm_weight(q) * factor, norm_weight(q + 1u) * factor, norm_weight(q + 2u) * factor,
            norm_weight(q + 3u) * factor, norm_weight(q + 4u) * factor, norm_weight(q + 5u) * factor,
            norm_weight(q + 6u) * factor, norm_weight(q + 7u) * factor,
        );
        store(row * p.units + u, vecs_mul(load((row * p.units + u) * 8u), f));
    }
#else
    let block = flat_id(wid, n_wg) * WG + lid;
    if (block >= step[p.rows_at] * p.units) { return; }
    store(block, load(block * 8u));
#endif
}
