// recur: the recurrence of a head over the rows of a sequence, one after the other, so that results do not depend on how a
// sequence is cut into steps. One workgroup per sequence, head, and COLS columns of its values: columns do not meet. LANES
// invocations share a column's part of the state, each with every LANES-th element of a key, in registers.
//
// K_DIM: elements of a key. DECAYS: a decay for each element of a key, and not one for a head. Others: see recurrence.
#import recurrence
#ifdef SKIP
#import constants
#endif

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
    let k_head = key_head(head);
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
        change *= gate(row, p.v_scale_start + head);
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
        change = (change - p.k_scale * column_sum(lid, had)) * gate(row, p.beta_start + head);
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
