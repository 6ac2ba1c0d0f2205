// pick: one token per output row: the largest logit / temperature plus Gumbel noise, which is a sample of the softmax at
// that temperature (Gumbel-max); without noise where the temperature is 0. Ties go to the smaller token. One workgroup
// per row; the step holds (seed, seed, temperature as bits) for each.
#import grid
#import step
#import random

struct Params {
    n: u32, // columns of the logits
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> logits: array<f32>;
@group(0) @binding(3) var<storage, read_write> picked: array<u32>;

var<workgroup> value_s: array<f32, WG>;
var<workgroup> token_s: array<u32, WG>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let row = flat_id(wid, n_wg);
    if (row >= step[STEP_N_OUTPUTS]) { return; }
    let at = step[STEP_SEEDS] + row * 3u;
    let seed = vec2(step[at], step[at + 1u]);
    let temperature = bitcast<f32>(step[at + 2u]);
    var value = bitcast<f32>(step[STEP_MINUS_INFINITY]);
    var token = 0u;
    for (var i = lid; i < p.n; i += WG) {
        var v = logits[row * p.n + i];
        if (temperature > 0.0) { v = v / temperature + gumbel(seed, i); }
        if (v > value) {
            value = v;
            token = i;
        }
    }
    value_s[lid] = value;
    token_s[lid] = token;
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lid < half) {
            let v = value_s[lid + half];
            let t = token_s[lid + half];
            if (v > value_s[lid] || (v == value_s[lid] && t < token_s[lid])) {
                value_s[lid] = v;
                token_s[lid] = t;
            }
        }
    }
    workgroupBarrier();
    if (lid == 0u) { picked[row] = token_s[0]; }
}
