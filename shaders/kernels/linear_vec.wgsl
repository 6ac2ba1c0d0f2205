// linear for few rows: out = x * w^T. Four columns of the result per workgroup, K split over its invocations, ROWS rows of
// x at once. Each invocation has a unit of w; rows of x come through workgroup memory, where all invocations fetch them
// together and each then finds its own 32 columns without sharing a bank.
//
// NORM: x is normalised on the way; its factor is common to a row, so it is applied to the sums. QKV: the columns are those of
// heads, which are made ready and stored: see qkv, and qkv_whole for those with COHERENT. OWNED, with SUBGROUPS: a subgroup owns
// rows of w, see sums_owned.
#import linear
#import vec
#ifdef NORM
#import constants
#endif
#ifdef QKV
#ifdef COHERENT
#import qkv_whole
#else
#import qkv
#endif
#endif

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
#ifdef SUBGROUPS
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) n_subgroups: u32,
#ifdef OWNED
    @builtin(subgroup_size) subgroup_size: u32,
#endif
#endif
) {
    let rows = step[p.rows_at];
    let id = flat_id(wid, n_wg);
#ifdef GLU
    let blocks = (p.n + 1u) / 2u;
    let n = id % blocks * 2u;
    let n1 = min(n + 1u, p.n - 1u);
    let r = (vec4(n, n1, p.pair + n, p.pair + n1) + p.w_row) * p.units;
#else
    let blocks = (p.n + 3u) / 4u;
    let n = id % blocks * 4u;
#ifdef QKV
    let r = (qkv_columns(qkv_place(p.out_start + n)) - p.out_start + p.w_row) * p.units;
#else
    let r = (min(vec4(n, n + 1u, n + 2u, n + 3u), vec4(p.n - 1u)) + p.w_row) * p.units;
#endif
#endif
    let first = id / blocks * ROWS;
    if (first >= rows) { return; }
#ifdef NORM
    var squares = array<f32, ROWS>();
#endif
#ifdef OWNED
#import sums_owned
#else
    var sums = array<vec4<f32>, ROWS>();
#ifdef DOT4
#import sums_bytes
#else
#import sums_floats
#endif
#import sums_total
#endif
    if (mine) { finish_four(first + lid, n, total); }
#ifdef QKV
#ifdef COHERENT
    finish_whole(lid, n, first, rows);
#endif
#endif
}
