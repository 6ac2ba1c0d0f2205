// rope: turns the pairs of every head of a view in place. One invocation per pair.
#import grid
#import step
#import trig
#import constants

struct Params {
    start: u32,    // first column of the view
    stride: u32,   // columns of x
    n_heads: u32,
    head_dim: u32,
    first: u32,    // the first element of a head that turns
    n_pairs: u32,  // pairs of a head that turn
    halves: u32,   // 1: elements i and i + n_pairs form a pair; 0: 2 i and 2 i + 1
    magnitude: f32,
    freqs_at: u32, // radians per position
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(3) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let id = flat_id(wid, n_wg) * WG + lid;
    let pair = id % p.n_pairs;
    let head = (id / p.n_pairs) % p.n_heads;
    let row = id / (p.n_pairs * p.n_heads);
    if (row >= step[STEP_N_TOKENS]) { return; }
    let at = row * p.stride + p.start + head * p.head_dim + p.first;
    let i = at + select(2u * pair, pair, p.halves == 1u);
    let j = select(i + 1u, i + p.n_pairs, p.halves == 1u);
    let turn = cos_sin(f32(step[step[STEP_POSITIONS] + row]) * constant(p.freqs_at + pair)) * p.magnitude;
    let a = x[i];
    let b = x[j];
    x[i] = a * turn.x - b * turn.y;
    x[j] = a * turn.y + b * turn.x;
}
