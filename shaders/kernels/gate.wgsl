// gate: x[.., c] *= act(gate[.., c / group]) in the columns of a view, the activation being a feature. One invocation per
// element.
#import grid
#import step
#import act

struct Params {
    rows_at: u32,
    n: u32,       // columns of the view of x
    start: u32,   // the first of them
    stride: u32,  // columns of x
    gate_start: u32,
    gate_stride: u32,
    group: u32,   // columns that share an element of the gate
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;
@group(0) @binding(3) var<storage, read> gate: array<f32>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let id = flat_id(wid, n_wg) * WG + lid;
    if (id >= step[p.rows_at] * p.n) { return; }
    let row = id / p.n;
    let c = id % p.n;
    x[row * p.stride + p.start + c] *= act(gate[row * p.gate_stride + p.gate_start + c / p.group]);
}
