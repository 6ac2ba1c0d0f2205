// pool: the mean of neighbouring rows. One invocation per element of a mean; neighbours read neighbouring columns.
#import grid
#import step

struct Params {
    n: u32, // columns
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
    let pool = id / p.n;
    if (pool >= step[STEP_N_POOLS]) { return; }
    let rows = step[step[STEP_POOLS] + 2u * pool + 1u];
    var at = step[step[STEP_POOLS] + 2u * pool] * p.n + id % p.n;
    var sum = x[at];
    for (var i = 1u; i < rows; i++) {
        at += p.n;
        sum += x[at];
    }
    out[id] = sum / f32(rows);
}
