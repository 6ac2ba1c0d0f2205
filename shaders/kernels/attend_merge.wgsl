// attend, after attend_vec with several splits: joins those that hold a position which their row sees. One workgroup per single
// row and head.
#import grid
#import step
#import splits
#import seen

struct Params {
    n_heads: u32,
    v_dim: u32,
    sinks_at: u32, // with SINKS
    window: u32,   // as in attend_vec
#ifdef CHUNK
    chunk: u32,
#endif
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> parts: array<vec4<f32>>; // as attend_vec writes them
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let id = flat_id(wid, n_wg);
    let single = id / p.n_heads;
    let quads = (p.v_dim + 3u) / 4u;
    if (single >= step[STEP_N_SINGLES]) { return; }
    let row = step[step[STEP_SINGLES] + single];
    let n_splits = step[STEP_N_SPLITS];
    let live = splits_seen(row, step[step[STEP_POSITIONS] + row], n_splits);
    let at = (id * n_splits + live.x) * (1u + quads);
    for (var i = lid; i < quads; i += WG) {
        let v = joined(at, live.y, quads, i, id % p.n_heads);
        for (var c = 0u; c < 4u; c++) {
            let col = i * 4u + c;
            if (col < p.v_dim) { out[(row * p.n_heads + id % p.n_heads) * p.v_dim + col] = v[c]; }
        }
    }
}
