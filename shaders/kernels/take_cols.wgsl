// take_cols: columns in the order of numbers in the constants, of which those beyond stand for the last column. One
// invocation per element.
#import grid
#import step
#import constants

struct Params {
    rows_at: u32,
    n: u32, // columns
    columns_at: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let id = flat_id(wid, n_wg) * WG + lid;
    if (id >= step[p.rows_at] * p.n) { return; }
    let column = min(u32(constant(p.columns_at + id % p.n)), p.n - 1u);
    out[id] = x[id / p.n * p.n + column];
}
