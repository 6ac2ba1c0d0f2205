// recur where heads have rates by which their decay acts on each element of a key (Mamba): one invocation per sequence and
// column of values, since such heads are many and have few columns. It holds its column's part of the state in registers and
// takes the rows one after the other.
//
// K_DIM: elements of a key. RATES is always among the features. Others: see recurrence.
#import recurrence
#import constants

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let columns = p.n_heads * p.v_dim;
    let id = flat_id(wid, n_wg) * WG + lid;
    if (id / columns >= step[STEP_N_RUNS]) { return; }
    let run = run_at(id / columns);
    let column = id % columns;
    let head = column / p.v_dim;
    let first_key = key_head(head) * K_DIM;
    let at = head * K_DIM * p.v_dim + column % p.v_dim; // in a slot of states
    let size = p.n_heads * K_DIM * p.v_dim;

    var s = array<f32, K_DIM>();
    var rate = array<f32, K_DIM>();
    for (var i = 0u; i < K_DIM; i++) {
        rate[i] = constant(p.rates_at + head * K_DIM + i);
        if (run.from_slot != NO_STATE) { s[i] = states[run.from_slot * size + at + i * p.v_dim]; }
    }
    for (var row = run.first; row < run.first + run.rows; row++) {
        let shrink = decay[row * p.decay_stride + p.decay_start + head];
        let value = v[row * p.v_stride + p.v_start + column];
        var change = value;
#ifdef V_SCALE
        change *= gate(row, p.v_scale_start + head);
#endif
        var had = 0.0;
        for (var i = 0u; i < K_DIM; i++) {
            s[i] *= exp(shrink * rate[i]);
#ifdef BETA
            had += key(row, first_key + i) * s[i];
#endif
        }
#ifdef BETA
        change = (change - p.k_scale * had) * gate(row, p.beta_start + head);
#endif
        var seen = 0.0;
        for (var i = 0u; i < K_DIM; i++) {
            s[i] += p.k_scale * key(row, first_key + i) * change;
            seen += q[row * p.q_stride + p.q_start + first_key + i] * s[i];
        }
        var result = p.q_scale * seen;
#ifdef SKIP
        result += constant(p.skip_at + head) * value;
#endif
        out[row * columns + column] = result;
    }
    for (var i = 0u; i < K_DIM; i++) { states[run.to_slot * size + at + i * p.v_dim] = s[i]; }
}
