// take_rows: the rows whose logits are wanted. One invocation per element.
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
    let row = id / p.n;
    if (row >= step[STEP_N_OUTPUTS]) { return; }
    out[id] = x[step[step[STEP_OUTPUTS] + row] * p.n + id % p.n];
}
