// adapter_scales: what of each adapter is added to the products of a row, as the step brings it. One invocation per element.
#import grid
#import step

struct Params {
    n: u32, // adapters
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let id = flat_id(wid, n_wg) * WG + lid;
    if (id >= step[STEP_N_TOKENS] * p.n) { return; }
    out[id] = bitcast<f32>(step[step[STEP_ADAPTERS] + id]);
}
