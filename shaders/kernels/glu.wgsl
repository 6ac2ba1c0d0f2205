// glu: out = gated(gate, up) as in act (features GLU and an activation), of rows that hold runs of gates, each with its
// ups behind it. One invocation per element.
#import grid
#import step
#import act

struct Params {
    rows_at: u32,
    n: u32,   // columns of out
    run: u32, // gates of a run
    limit: f32,
    up_offset: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
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
    let at = id / p.run * 2u * p.run + id % p.run;
    out[id] = gated(x[at], x[at + p.run]);
}
