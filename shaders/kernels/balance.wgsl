// balance: logits between N streams become factors whose sums are about 1 both ways, in the columns of a view. One invocation
// per row.
#import grid
#import step

struct Params {
    rows_at: u32,
    start: u32,  // the first column of the view
    stride: u32, // columns of x
    rounds: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let row = flat_id(wid, n_wg) * WG + lid;
    if (row >= step[p.rows_at]) { return; }
    let at = row * p.stride + p.start;
    var f = array<f32, N * N>(); // the factors of a sum, one sum after the other
    for (var i = 0u; i < N * N; i++) { f[i] = x[at + i]; }
    for (var stream = 0u; stream < N; stream++) {
        var most = f[stream];
        for (var i = 1u; i < N; i++) { most = max(most, f[i * N + stream]); }
        var sum = 0.0;
        for (var i = 0u; i < N; i++) {
            let e = exp(f[i * N + stream] - most);
            f[i * N + stream] = e;
            sum += e;
        }
        for (var i = 0u; i < N; i++) { f[i * N + stream] = f[i * N + stream] / sum + p.eps; }
    }
    for (var turn = 0u; turn < p.rounds; turn++) {
        if (turn > 0u) {
            for (var stream = 0u; stream < N; stream++) {
                var sum = p.eps;
                for (var i = 0u; i < N; i++) { sum += f[i * N + stream]; }
                for (var i = 0u; i < N; i++) { f[i * N + stream] /= sum; }
            }
        }
        for (var i = 0u; i < N; i++) {
            var sum = p.eps;
            for (var stream = 0u; stream < N; stream++) { sum += f[i * N + stream]; }
            for (var stream = 0u; stream < N; stream++) { f[i * N + stream] /= sum; }
        }
    }
    for (var i = 0u; i < N * N; i++) { x[at + i] = f[i]; }
}
