// penalise: sparse changes of logits, in place, before top_k: a bias is added, then a repetition factor applied
// (positive logits are divided by it, others multiplied; Keskar et al. 2019), then presence and frequency penalties
// subtracted. One invocation per entry (row, token, bias, factor, penalty); a row names a token at most once.
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
    if (id >= step[STEP_N_PENALTIES]) { return; }
    let entry = step[STEP_PENALTIES] + id * 5u;
    let row = step[entry];
    let token = step[entry + 1u];
    if (row >= step[STEP_N_OUTPUTS] || token >= p.n) { return; }
    let x = logits[row * p.n + token] + bitcast<f32>(step[entry + 2u]);
    let factor = bitcast<f32>(step[entry + 3u]);
    logits[row * p.n + token] = select(x * factor, x / factor, x > 0.0) - bitcast<f32>(step[entry + 4u]);
}
