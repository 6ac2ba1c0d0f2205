// Products of few rows with matrices of a stack, as expert_linear and head_linear have them: four columns of the product of
// one row and one matrix per workgroup, K split over its invocations. A row and one of its matrices is a place: row * used
// + which.
//
// HEADS: each row has all matrices, each with columns of its own. Otherwise `picks` names them. TOGETHER: the workgroup of every
// ROWS-th row that picked a matrix, in order, multiplies the next ROWS of them, so that units of w are decoded once for all;
// those of the other places have nothing to do. A step has at most MOST rows then.
#import linear
#import vec
#ifndef HEADS
#import picks
#endif

#ifdef TOGETHER
const NO_PLACE: u32 = 0xffffffffu;
var<workgroup> picked_s: array<u32, MOST>;  // where each row picked the matrix, or NO_PLACE
var<workgroup> places_s: array<u32, ROWS>;  // the places of this workgroup
var<workgroup> n_places_s: u32;

// Finds the workgroup's places; gives how many, none if those of `row` belong to another one.
fn find_places(lid: u32, row: u32, matrix: u32) -> u32 {
    let n_rows = min(step[p.rows_at], MOST);
    for (var i = lid; i < n_rows; i += WG) {
        var at = NO_PLACE;
        for (var which = 0u; which < p.used; which++) {
            if (picked_matrix(i, which) == matrix) { at = i * p.used + which; }
        }
        picked_s[i] = at;
    }
    workgroupBarrier();
    if (lid == 0u) {
        var before = 0u;
        for (var i = 0u; i < row; i++) { before += u32(picked_s[i] != NO_PLACE); }
        var n = 0u;
        for (var i = row; before % ROWS == 0u && i < n_rows && n < ROWS; i++) {
            if (picked_s[i] != NO_PLACE) {
                places_s[n] = picked_s[i];
                n += 1u;
            }
        }
        n_places_s = n;
    }
    return workgroupUniformLoad(&n_places_s);
}
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
    var x_rows = array<u32, ROWS>();
#ifdef TOGETHER
    let n_places = find_places(lid, place / p.used, matrix);
    if (n_places == 0u) { return; }
    for (var m = 0u; m < ROWS; m++) {
        let at = places_s[min(m, n_places - 1u)];
        x_rows[m] = select(at / p.used, at, p.own_x == 1u);
    }
#else
    let n_places = 1u;
    x_rows[0] = select(place / p.used, place, p.own_x == 1u);
#endif
    var sums = array<vec4<f32>, ROWS>();
#ifdef DOT4
#import sums_bytes
#else
#import sums_floats
#endif
#import sums_total
#ifdef TOGETHER
    if (mine) { finish_four(places_s[lid], n, total); }
#else
    if (mine) { finish_four(place, n, total); }
#endif
}
