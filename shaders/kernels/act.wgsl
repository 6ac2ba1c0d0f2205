// act: x = factor * act(x + bias) in the columns of a view, the activation being a feature. One invocation per element.
// BIAS, FACTOR: vectors in the constants, one element per column of the view.
#import grid
#import step
#import act
#ifdef BIAS
#import constants
#endif
#ifdef FACTOR
#import constants
#endif

struct Params {
    rows_at: u32,
    n: u32,      // columns of the view
    start: u32,  // the first of them
    stride: u32, // columns of x
    bias_at: u32,
    factor_at: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let id = flat_id(wid, n_wg) * WG + lid;
    if (id >= step[p.rows_at] * p.n) { return; }
    let c = id % p.n;
    let at = id / p.n * p.stride + p.start + c;
    var v = x[at];
#ifdef BIAS
    v += constant(p.bias_at + c);
#endif
    v = act(v);
#ifdef FACTOR
    v *= constant(p.factor_at + c);
#endif
    x[at] = v;
}
