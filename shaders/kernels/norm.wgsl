// norm: runs of `run` columns, each divided by its root mean square. One workgroup per run.
//
// LAYER: the run's mean is subtracted first. WEIGHT: factors on the result. BIAS: summands behind them. Both are the same
// for every run, or one per column. IN_PLACE: x is out.
#import grid
#import step
#import reduce
#ifdef WEIGHT
#import constants
#endif
#ifdef BIAS
#import constants
#endif

struct Params {
    rows_at: u32,     // which word of the step holds the row count
    x_start: u32,     // first column of the view
    x_stride: u32,    // columns of x
    out_start: u32,
    out_stride: u32,
    run: u32,         // columns normalised together
    n_runs: u32,      // per row
    eps: f32,
    weight_at: u32,
    weight_step: u32, // from a run's factors to the next one's: 0 or `run`
    bias_at: u32,
    bias_step: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
#ifndef IN_PLACE
@group(0) @binding(2) var<storage, read> x: array<f32>;
#endif
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

fn load(at: u32) -> f32 {
#ifdef IN_PLACE
    return out[at];
#else
    return x[at];
#endif
}

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
    let r = id % p.n_runs;
    if (row >= step[p.rows_at]) { return; }
#ifdef SUBGROUPS
    let here = Lane(lid, lane, subgroup, n_subgroups);
#else
    let here = Lane(lid);
#endif
    let read_at = row * p.x_stride + p.x_start + r * p.run;
    let write_at = row * p.out_stride + p.out_start + r * p.run;
    var mean = 0.0;
#ifdef LAYER
    for (var i = lid; i < p.run; i += WG) { mean += load(read_at + i); }
    mean = reduce_sum(here, mean) / f32(p.run);
#endif
    var sum = 0.0;
    for (var i = lid; i < p.run; i += WG) {
        let v = load(read_at + i) - mean;
        sum += v * v;
    }
    let scale = inverseSqrt(reduce_sum(here, sum) / f32(p.run) + p.eps);
    for (var i = lid; i < p.run; i += WG) {
        var v = (load(read_at + i) - mean) * scale;
#ifdef WEIGHT
        v *= constant(p.weight_at + r * p.weight_step + i);
#endif
#ifdef BIAS
        v += constant(p.bias_at + r * p.bias_step + i);
#endif
        out[write_at + i] = v;
    }
}
