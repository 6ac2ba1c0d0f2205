// halve: rows of x to halves, for the HALVES forms of linear, filled up with zeros to whole units. A row whose largest number
// is beyond 2^15 is divided by a power of two, which x_factor gives back: no sum overflows then. One workgroup per row.
//
// NORM: x is multiplied by factors and by its row's 1 / rms first. RAGGED: see rows.
#import grid
#import step
#import reduce
#import rows
#ifdef NORM
#import constants
#endif

struct Params {
    rows_at: u32,
    units: u32,    // of 32 columns of a row of x_halves
    cols: u32,     // of x
    x_stride: u32, // columns from a row of x to the next
    eps: f32,      // with NORM
    norm_at: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
#ifdef RAGGED
@group(0) @binding(2) var<storage, read> x: array<f32>;
#else
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
#endif
@group(0) @binding(3) var<storage, read_write> x_halves: array<vec4<f16>>;
@group(0) @binding(4) var<storage, read_write> x_factor: array<f32>; // of each row

// A quad of the row; with NORM times its factors.
fn value(row: u32, quad: u32) -> vec4<f32> {
#ifdef NORM
    return x_quad(row, quad) * constant_quad(p.norm_at + 4u * quad);
#else
    return x_quad(row, quad);
#endif
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
#ifdef SUBGROUPS
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) n_subgroups: u32,
#endif
) {
    let row = flat_id(wid, n_wg);
    if (row >= step[p.rows_at]) { return; }
#ifdef SUBGROUPS
    let here = Lane(lid, lane, subgroup, n_subgroups);
#else
    let here = Lane(lid);
#endif
    let quads = p.units * 8u;
    var norm = 1.0;
#ifdef NORM
    var sum = 0.0;
    for (var i = lid; i < quads; i += WG) {
        let v = x_quad(row, i);
        sum += dot(v, v);
    }
    norm = inverseSqrt(reduce_sum(here, sum) / f32(p.cols) + p.eps);
#endif
    var most = vec4(0.0);
    for (var i = lid; i < quads; i += WG) { most = max(most, abs(value(row, i))); }
    let top = reduce_max(here, max(max(most.x, most.y), max(most.z, most.w))) * norm;
    var factor = 1.0;
    if (top > 32768.0) { factor = exp2(ceil(log2(top / 32768.0))); }
    if (lid == 0u) { x_factor[row] = factor; }
    for (var i = lid; i < quads; i += WG) {
        x_halves[row * quads + i] = vec4<f16>(value(row, i) * (norm / factor));
    }
}
