// mix: out[.., stream i] = sum over j of coef[.., i, j] * x[.., stream j], streams being runs of `width` columns. One
// invocation per element of `out`.
#import grid
#import step

struct Params {
    rows_at: u32,
    n: u32,       // columns of out
    x_start: u32,
    x_stride: u32,
    coef_start: u32,
    coef_stride: u32,
    width: u32,
    n_in: u32,    // streams of x
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> coef: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let id = flat_id(wid, n_wg) * WG + lid;
    if (id >= step[p.rows_at] * p.n) { return; }
    let row = id / p.n;
    let stream = id % p.n / p.width;
    let at = row * p.x_stride + p.x_start + id % p.n % p.width;
    let first = row * p.coef_stride + p.coef_start + stream * p.n_in;
    var sum = 0.0;
    for (var j = 0u; j < p.n_in; j++) {
        sum += coef[first + j] * x[at + j * p.width];
    }
    out[id] = sum;
}
