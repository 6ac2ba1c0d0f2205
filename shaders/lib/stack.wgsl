// Products of few rows with matrices of a stack, as expert_linear and head_linear have them: four columns of the product of
// one row and one matrix per workgroup, K split over its invocations. A row and one of its matrices is a place: row * used
// + which.
//
// HEADS: each row has all matrices, each with columns of its own. Otherwise `picks` names them.
#import linear
#import vec
#ifndef HEADS
#import picks
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
#endif
) {
    let id = flat_id(wid, n_wg);
#ifdef GLU
    let blocks = (p.n + 1u) / 2u;
#else
    let blocks = (p.n + 3u) / 4u;
#endif
    let place = id / blocks;
    if (place >= step[p.rows_at] * p.used) { return; }
#ifdef HEADS
    let matrix = place % p.used;
#else
    let matrix = picked_matrix(place / p.used, place % p.used);
#endif
    if (matrix < p.first_matrix || matrix - p.first_matrix >= p.n_matrices) { return; }
    let w_row = p.w_row + (matrix - p.first_matrix) * p.part_rows;
#ifdef GLU
    let n = id % blocks * 2u;
    let n1 = min(n + 1u, p.n - 1u);
    let r = (vec4(n, n1, p.pair + n, p.pair + n1) + w_row) * p.units;
#else
    let n = id % blocks * 4u;
    let r = (min(vec4(n, n + 1u, n + 2u, n + 3u), vec4(p.n - 1u)) + w_row) * p.units;
#endif
#ifdef HEADS
    if (id % blocks == 0u && p.out_start == 0u) {
        for (var i = lid; i < p.passed; i += WG) {
            out[place * p.out_stride + p.passed_at + i] = x_element(place, p.cols + i);
        }
    }
#endif
    vectors_at = matrix * p.vector_rows;
    // One row of x.
    let first = select(place / p.used, place, p.own_x == 1u);
    let rows = first + 1u;
    var sums = array<vec4<f32>, ROWS>();
#ifdef DOT4
#import sums_bytes
#else
#import sums_floats
#endif
#import sums_total
    finish_four(place, n, total);
}
