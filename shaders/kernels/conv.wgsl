// conv: causal convolution of columns over the rows of a sequence, and the state that it leaves. One invocation per column
// of a sequence, which takes its rows one after the other.
//
// TAPS factors to a column. BIAS: a summand. ACT: an activation, which is a feature too.
#import grid
#import step
#import runs
#import constants
#ifdef ACT
#import act
#endif

struct Params {
    start: u32,     // first column of the view of x
    stride: u32,    // columns of x
    cols: u32,      // of the view
    weight_at: u32, // the taps of a column one after the other, the last of which is the row's own
    bias_at: u32,   // with BIAS
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> states: array<f32>; // [slot][the last TAPS - 1 rows][column]
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

const KEPT: u32 = TAPS - 1u;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let id = flat_id(wid, n_wg) * WG + lid;
    if (id / p.cols >= step[STEP_N_RUNS]) { return; }
    let run = run_at(id / p.cols);
    let c = id % p.cols;
    var past = array<f32, max(KEPT, 1u)>();
    if (run.from_slot != NO_STATE) {
        for (var j = 0u; j < KEPT; j++) { past[j] = states[(run.from_slot * KEPT + j) * p.cols + c]; }
    }
    let weight = p.weight_at + c * TAPS;
    for (var r = run.first; r < run.first + run.rows; r++) {
        let now = x[r * p.stride + p.start + c];
        var sum = 0.0;
#ifdef BIAS
        sum = constant(p.bias_at + c);
#endif
        for (var j = 0u; j < KEPT; j++) { sum += constant(weight + j) * past[j]; }
        sum += constant(weight + KEPT) * now;
#ifdef ACT
        sum = act(sum);
#endif
        out[r * p.cols + c] = sum;
        for (var j = 0u; j + 1u < KEPT; j++) { past[j] = past[j + 1u]; }
        past[max(KEPT, 1u) - 1u] = now;
    }
    for (var j = 0u; j < KEPT; j++) { states[(run.to_slot * KEPT + j) * p.cols + c] = past[j]; }
}
