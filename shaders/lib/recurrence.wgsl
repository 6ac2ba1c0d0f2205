// What the kernels of recur share: parameters, bindings, and where keys and gates lie.
//
// BETA: a strength of correction; V_SCALE: a factor on the values; both are columns of `gates`, or of `decay` without GATES.
// SKIP: a factor on the values that are passed on. K_APART: keys do not lie beside queries.
#import grid
#import step
#import runs

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
    skip_at: u32,    // with SKIP
#ifdef RATES
    rates_at: u32,
#endif
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

fn key(row: u32, i: u32) -> f32 {
#ifdef K_APART
    return k[row * p.k_stride + p.k_start + i];
#else
    return q[row * p.k_stride + p.k_start + i];
#endif
}

fn gate(row: u32, column: u32) -> f32 {
#ifdef GATES
    return gates[row * p.gates_stride + column];
#else
    return decay[row * p.decay_stride + column];
#endif
}

// The head of queries and keys that serves a head of values.
fn key_head(head: u32) -> u32 {
    return select(head / (p.n_heads / p.n_k_heads), head % p.n_k_heads, p.tiled == 1u);
}
