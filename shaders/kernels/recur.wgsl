// recur: the recurrence of a head over the rows of a sequence, one after the other, so that results do not depend on how a
// sequence is cut into steps. One workgroup per sequence, head, and COLS columns of its values: columns do not meet. LANES
// invocations share a column's part of the state, each with every LANES-th element of a key, in registers.
//
// K_DIM: elements of a key. BETA: a strength of correction; V_SCALE: a factor on the values; both are columns of `gates`.
// DECAYS: a decay for each element of a key, and not one for a head. SKIP: a factor on the values that are passed on.
// K_APART: keys do not lie beside queries.
#import grid
#import step
#import runs
#ifdef SKIP
#import constants
#endif

struct Params {
    n_heads: u32,    // of values, which are those of the state
    n_k_heads: u32,  // of queries and keys
    tiled: u32,      // 1: head h has key head h % n_k_heads, else h / (n_heads / n_k_heads)
    v_dim: u32,
    q_scale: f32,
    k_scale: f32,
    q_start: u32,    // first columns of the views, and columns of their slots
    q_stride: u32,
    k_start: u32,
    k_stride: u32,
    v_start: u32,
    v_stride: u32,
    decay_start: u32,
    decay_stride: u32,
    beta_start: u32,
    v_scale_start: u32,
    gates_stride: u32,
    skip_at: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> q: array<f32>;
#ifdef K_APART
@group(0) @binding(3) var<storage, read> k: array<f32>;
#endif
@group(0) @binding(4) var<storage, read> v: array<f32>;
@group(0) @binding(5) var<storage, read> decay: array<f32>;
#ifdef GATES
@group(0) @binding(6) var<storage, read> gates: array<f32>;
#endif
@group(0) @binding(7) var<storage, read_write> states: array<f32>; // [slot][head][K_DIM][v_dim]
@group(0) @binding(8) var<storage, read_write> out: array<f32>;

const WG: u32 = 64u;
const COLS: u32 = 16u;
const LANES: u32 = WG / COLS;
const OWN: u32 = (K_DIM + LANES - 1u) / LANES; // elements of a column's state that an invocation has

var<workgroup> q_s: array<f32, OWN * LANES>;
var<workgroup> k_s: array<f32, OWN * LANES>;
#ifdef DECAYS
var<workgroup> decay_s: array<f32, OWN * LANES>;
#endif
var<workgroup> part_s: array<f32, WG>;

fn key(row: u32, i: u32) -> f32 {
#ifdef K_APART
    return k[row * p.k_stride + p.k_start + i];
#else
    return q[row * p.k_stride + p.k_start + i];
#endif
}

// The sum over the invocations that share a column.
fn column_sum(lid: u32, value: f32) -> f32 {
    workgroupBarrier();
    part_s[lid] = value;
    workgroupBarrier();
    var sum = 0.0;
    for (var lane = 0u; lane < LANES; lane++) { sum += part_s[lane * COLS + lid % COLS]; }
    return sum;
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let blocks = (p.v_dim + COLS - 1u) / COLS;
    let id = flat_id(wid, n_wg);
    let head = id / blocks % p.n_heads;
    if (id / blocks / p.n_heads >= step[STEP_N_RUNS]) { return; }
    let run = run_at(id / blocks / p.n_heads);
    let k_head = select(head / (p.n_heads / p.n_k_heads), head % p.n_k_heads, p.tiled == 1u);
    let column = id % blocks * COLS + lid % COLS;
    let lane = lid / COLS;
    let inside = column < p.v_dim;

    var s = array<f32, OWN>();
    for (var n = 0u; n < OWN; n++) {
        let i = lane + LANES * n;
        if (inside && i < K_DIM && run.from_slot != NO_STATE) {
            s[n] = states[((run.from_slot * p.n_heads + head) * K_DIM + i) * p.v_dim + column];
        }
    }
    for (var row = run.first; row < run.first + run.rows; row++) {
        workgroupBarrier();
        for (var i = lid; i < OWN * LANES; i += WG) {
            var q_i = 0.0;
            var k_i = 0.0;
            if (i < K_DIM) {
                q_i = q[row * p.q_stride + p.q_start + k_head * K_DIM + i];
                k_i = key(row, k_head * K_DIM + i);
            }
            q_s[i] = q_i;
            k_s[i] = k_i;
#ifdef DECAYS
            var d = 0.0;
            if (i < K_DIM) { d = exp(decay[row * p.decay_stride + p.decay_start + head * K_DIM + i]); }
            decay_s[i] = d;
#endif
        }
        workgroupBarrier();
#ifndef DECAYS
        let shrink = exp(decay[row * p.decay_stride + p.decay_start + head]);
#endif
        var value = 0.0;
        if (inside) { value = v[row * p.v_stride + p.v_start + head * p.v_dim + column]; }
        var change = value;
#ifdef V_SCALE
        change *= gates[row * p.gates_stride + p.v_scale_start + head];
#endif
        var had = 0.0;
        for (var n = 0u; n < OWN; n++) {
            let i = lane + LANES * n;
#ifdef DECAYS
            s[n] *= decay_s[i];
#else
            s[n] *= shrink;
#endif
            had += k_s[i] * s[n];
        }
#ifdef BETA
        change = (change - p.k_scale * column_sum(lid, had)) * gates[row * p.gates_stride + p.beta_start + head];
#endif
        var seen = 0.0;
        for (var n = 0u; n < OWN; n++) {
            let i = lane + LANES * n;
            s[n] += p.k_scale * k_s[i] * change;
            seen += q_s[i] * s[n];
        }
        var result = p.q_scale * column_sum(lid, seen);
#ifdef SKIP
        result += constant(p.skip_at + head) * value;
#endif
        if (inside && lane == 0u) { out[(row * p.n_heads + head) * p.v_dim + column] = result; }
    }
    for (var n = 0u; n < OWN; n++) {
        let i = lane + LANES * n;
        if (inside && i < K_DIM) {
            states[((run.to_slot * p.n_heads + head) * K_DIM + i) * p.v_dim + column] = s[n];
        }
    }
}
