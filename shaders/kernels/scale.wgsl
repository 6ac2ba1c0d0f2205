// scale: x *= factor * weight. One invocation per element. WEIGHT: there are factors in the constants, one for all
// columns or one per column.
#import grid
#import step
#ifdef WEIGHT
#import constants
#endif

struct Params {
    rows_at: u32,
    n: u32, // columns
    factor: f32,
    weight_at: u32,
    weight_step: u32, // 0: one factor for all columns
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
#ifdef WEIGHT
    x[id] *= p.factor * constant(p.weight_at + id % p.n * p.weight_step);
#else
    x[id] *= p.factor;
#endif
}
