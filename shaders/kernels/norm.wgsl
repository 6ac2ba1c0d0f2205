// norm: out = x / rms(x) * weight over runs of `run` columns. One workgroup per run.
#import grid
#import step
#import reduce

struct Params {
    rows_at: u32,  // which word of the step holds the row count
    x_start: u32,  // first column of the view
    x_stride: u32, // columns of x
    run: u32,      // columns normalised together
    n_runs: u32,   // per row
    eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> weight: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
#ifdef SUBGROUPS
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) n_subgroups: u32,
#endif
) {
    let id = flat_id(wid, n_wg);
    let row = id / p.n_runs;
    if (row >= step[p.rows_at]) { return; }
#ifdef SUBGROUPS
    let here = Lane(lid, lane, subgroup, n_subgroups);
#else
    let here = Lane(lid);
#endif
    let start_at = row * p.x_stride + p.x_start + (id % p.n_runs) * p.run;
    var sum = 0.0;
    for (var i = lid; i < p.run; i += WG) {
        let v = x[start_at + i];
        sum += v * v;
    }
    let scale = inverseSqrt(reduce_sum(here, sum) / f32(p.run) + p.eps);
    for (var i = lid; i < p.run; i += WG) {
        out[id * p.run + i] = x[start_at + i] * scale * weight[i];
    }
}
