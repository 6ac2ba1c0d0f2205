// mask: logits of forbidden tokens become -infinity, in place. Per output row the step names where its bits begin (bit t
// of word t / 32: token t is allowed), or 0 for a row without a mask. One invocation per logit.
#import grid
#import step

struct Params {
    n: u32, // columns of the logits
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read_write> logits: array<f32>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let id = flat_id(wid, n_wg) * WG + lid;
    let row = id / p.n;
    if (row >= step[STEP_N_OUTPUTS]) { return; }
    let bits = step[step[STEP_MASKS] + row];
    let token = id % p.n;
    if (bits == 0u || ((step[bits + token / 32u] >> (token % 32u)) & 1u) == 1u) { return; }
    logits[id] = bitcast<f32>(step[STEP_MINUS_INFINITY]); // no constant of WGSL may be infinite
}
