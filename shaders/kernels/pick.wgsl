// pick: one token per output row: the largest (logit - maximum) / temperature plus Gumbel noise, which is a sample of the
// softmax at that temperature (Gumbel-max), among tokens whose logit is not too far below the maximum (min-p). Ties go to
// the smaller token. One workgroup per row; the step holds (draw, draw, 1 / temperature, ln min-p) for each, floats as
// bits; 1 / temperature is 0 where the largest logit is wanted.
//
// A row that holds a NaN or +infinity, or nothing but -infinity, gives 0xffffffff.
#import grid
#import step
#import random

struct Params {
    n: u32, // columns of the logits
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> logits: array<f32>;
@group(0) @binding(3) var<storage, read_write> picked: array<u32>;

const NO_TOKEN: u32 = 0xffffffffu;

var<workgroup> value_s: array<f32, WG>;
var<workgroup> token_s: array<u32, WG>;
var<workgroup> bad_s: atomic<u32>;

// The largest value of the workgroup, the smallest token among equals; both end at index 0.
fn best(lid: u32) {
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
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let row = flat_id(wid, n_wg);
    if (row >= step[STEP_N_OUTPUTS]) { return; }
    let at = step[STEP_SEEDS] + row * 4u;
    let draw = vec2(step[at], step[at + 1u]);
    let scale = bitcast<f32>(step[at + 2u]);
    let low = bitcast<f32>(step[STEP_MINUS_INFINITY]);
    if (lid == 0u) { atomicStore(&bad_s, 0u); }
    workgroupBarrier();
    var value = low;
    var token = NO_TOKEN;
    for (var i = lid; i < p.n; i += WG) {
        // By its bits: compilers may assume that floats are finite.
        let bits = bitcast<u32>(logits[row * p.n + i]);
        if ((bits & 0x7f800000u) == 0x7f800000u && bits != step[STEP_MINUS_INFINITY]) { atomicStore(&bad_s, 1u); }
        let v = logits[row * p.n + i];
        if (v > value) {
            value = v;
            token = i;
        }
    }
    value_s[lid] = value;
    token_s[lid] = token;
    best(lid);
    let top = value_s[0];
    if (scale > 0.0) {
        let least = top + bitcast<f32>(step[at + 3u]);
        value = low;
        token = NO_TOKEN;
        for (var i = lid; i < p.n; i += WG) {
            let v = logits[row * p.n + i];
            if (v > low && v >= least) {
                let score = (v - top) * scale + gumbel(draw, i);
                if (score > value) {
                    value = score;
                    token = i;
                }
            }
        }
        workgroupBarrier();
        value_s[lid] = value;
        token_s[lid] = token;
        best(lid);
    }
    if (lid == 0u) {
        picked[row] = select(token_s[0], NO_TOKEN, atomicLoad(&bad_s) != 0u);
    }
}
