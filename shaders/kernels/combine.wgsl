// combine: the sum over a row's picks of their weights times their columns of x. One invocation per element.
//
// UNWEIGHTED: of their columns as they are.
#import grid
#import step

struct Params {
    rows_at: u32,
    n: u32,    // columns of out
    used: u32, // picks of a row
    n_stack: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
#ifndef UNWEIGHTED
#import picks
#endif
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let id = flat_id(wid, n_wg) * WG + lid;
    if (id >= step[p.rows_at] * p.n) { return; }
    let row = id / p.n;
    var sum = 0.0;
    for (var j = 0u; j < p.used; j++) {
        let value = x[(row * p.used + j) * p.n + id % p.n];
#ifdef UNWEIGHTED
        sum += value;
#else
        sum += pick_weight(row, j) * value;
#endif
    }
    out[id] = sum;
}
