// linear for many rows by cooperative matrices of 16 x 16: out = x * w^T by tiles of BM rows and 64 columns, halves with sums
// in f32. x comes as halves (see halve). Per 64 columns of x a tile of x and a decoded tile of w stand in workgroup memory,
// where each row has room for 8 halves more, so that rows begin in different banks. Of the subgroups, of which there are four
// or more, each of the first four has BM / 2 rows and 32 columns of the tile; others repeat them and store the same.
//
// TALL: BM is 64, else 32. PLAIN: without matrices, each invocation multiplying for itself: what is around the products can
// then be examined on any device. Four times 32 invocations stand for the subgroups.
#import linear

#ifdef TALL
const BM: u32 = 64u;
#else
const BM: u32 = 32u;
#endif
#ifdef GLU
const BN: u32 = 32u; // 32 gates and their 32 ups
#else
const BN: u32 = 64u;
#endif
const STRIP: u32 = BM / 2u;
const STRIDE: u32 = 18u; // quads from a row of a tile to the next: 64 columns and 8 more

var<workgroup> x_s: array<vec4<f16>, BM * STRIDE>;
var<workgroup> w_s: array<vec4<f16>, 64u * STRIDE>;
var<workgroup> sum_s: array<f32, 2048>; // 16 rows of each strip, of 64
var<workgroup> has_work: u32;

#ifndef PLAIN
alias MatA = coop_mat16x16<f16, A>;
alias MatB = coop_mat16x16<f16, B>;
alias MatC = coop_mat16x16<f32, C>;
#endif

fn x_put(row: u32, quad: u32, m: u32, unit: u32) {
    var v = vec4<f16>();
    if (unit < p.units) { v = x[m * p.units * 8u + unit * 8u + quad % 8u]; }
    x_s[row * STRIDE + quad] = v;
}

fn w_put(at: u32, v: Vecs) {
    w_s[at] = vec4<f16>(v.v0);
    w_s[at + 1u] = vec4<f16>(v.v1);
    w_s[at + 2u] = vec4<f16>(v.v2);
    w_s[at + 3u] = vec4<f16>(v.v3);
    w_s[at + 4u] = vec4<f16>(v.v4);
    w_s[at + 5u] = vec4<f16>(v.v5);
    w_s[at + 6u] = vec4<f16>(v.v6);
    w_s[at + 7u] = vec4<f16>(v.v7);
}

// Which row of w gives row i of its tile.
fn w_row(i: u32, n0: u32) -> u32 {
#ifdef GLU
    let n = min(n0 + i % 32u, p.n - 1u);
    return p.w_row + select(n, p.pair + n, i >= 32u);
#else
    return p.w_row + min(n0 + i, p.n - 1u);
#endif
}

// Finishes what sum_s holds: 16 rows of each strip, from the strip's row `first` on.
fn finish_rows(lid: u32, m0: u32, n0: u32, rows: u32, first: u32) {
    for (var i = lid; i < 1024u; i += WG) {
        let s = i / 32u;
        let col = i % 32u;
        let row = m0 + s / 16u * STRIP + first + s % 16u;
        if (row < rows) {
            let factor = x_factor[row];
            let lo = sum_s[s * 64u + col] * factor;
            let hi = sum_s[s * 64u + col + 32u] * factor;
#ifdef GLU
            finish(row, n0 + col, lo, hi);
#else
            finish(row, n0 + col, lo);
            finish(row, n0 + col + 32u, hi);
#endif
        }
    }
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
#ifndef PLAIN
    @builtin(subgroup_id) subgroup: u32,
#endif
) {
    let rows = step[p.rows_at];
    let m_tiles = (rows + BM - 1u) / BM;
    let id = flat_id(wid, n_wg);
    // Neighbouring workgroups share their weights.
    let n0 = id / max(m_tiles, 1u) * BN;
    let m0 = id % max(m_tiles, 1u) * BM;
    // Known to be the same for all, as matrices demand of what they depend on.
    if (lid == 0u) { has_work = select(1u, 0u, rows == 0u || n0 >= p.n); }
    if (workgroupUniformLoad(&has_work) == 0u) { return; }
#ifdef PLAIN
    let subgroup = lid / 32u;
    let lane = lid % 32u;
#endif
    // The subgroup's part of the tile, and of the sums that are finished at once.
    let strip = subgroup % 2u * STRIP;
    let column = subgroup / 2u % 2u * 32u;
    let sums_at = subgroup % 2u * 1024u + column;
#ifdef PLAIN
    var sums = array<f32, STRIP>();
    let own_row = strip + lane % STRIP;
    let own_column = column + lane / STRIP * STRIP;
#else
    for (var i = lid; i < 256u; i += WG) { sum_s[i] = 0.0; }
    workgroupBarrier();
    var c0 = coopLoadT<MatC>(&sum_s[0], 16u);
    var c1 = coopLoadT<MatC>(&sum_s[0], 16u);
#ifdef TALL
    var c2 = coopLoadT<MatC>(&sum_s[0], 16u);
    var c3 = coopLoadT<MatC>(&sum_s[0], 16u);
#endif
#endif
    for (var u = 0u; u < p.units; u += 2u) {
        workgroupBarrier();
        for (var i = lid; i < BM * 16u; i += WG) {
            x_put(i / 16u, i % 16u, min(m0 + i / 16u, rows - 1u), u + i % 16u / 8u);
        }
        for (var i = lid; i < 128u; i += WG) {
            let unit = u + i % 2u;
            let at = i / 2u * STRIDE + i % 2u * 8u;
            if (unit < p.units) {
                w_put(at, unit_vecs(load_unit(w_row(i / 2u, n0) * p.units + unit)));
            } else {
                w_put(at, Vecs());
            }
        }
        workgroupBarrier();
        for (var k = 0u; k < 16u; k += 4u) {
#ifdef PLAIN
            for (var quad = k; quad < k + 4u; quad++) {
                let a = vec4<f32>(x_s[own_row * STRIDE + quad]);
                for (var j = 0u; j < STRIP; j++) {
                    sums[j] += dot(a, vec4<f32>(w_s[(own_column + j) * STRIDE + quad]));
                }
            }
#else
            // x by rows; w^T by columns, for w stands by rows.
            let a0 = coopLoadT<MatA>(&x_s[strip * STRIDE + k], STRIDE);
            let b0 = coopLoad<MatB>(&w_s[column * STRIDE + k], STRIDE);
            let b1 = coopLoad<MatB>(&w_s[(column + 16u) * STRIDE + k], STRIDE);
            c0 = coopMultiplyAdd(a0, b0, c0);
            c1 = coopMultiplyAdd(a0, b1, c1);
#ifdef TALL
            let a1 = coopLoadT<MatA>(&x_s[(strip + 16u) * STRIDE + k], STRIDE);
            c2 = coopMultiplyAdd(a1, b0, c2);
            c3 = coopMultiplyAdd(a1, b1, c3);
#endif
#endif
        }
    }
    // Sixteen rows of each strip, and then the sixteen below them.
#ifdef PLAIN
    for (var first = 0u; first < STRIP; first += 16u) {
        workgroupBarrier();
        if (lane % STRIP / 16u == first / 16u) {
            let at = subgroup % 2u * 1024u + lane % 16u * 64u + own_column;
            for (var j = 0u; j < STRIP; j++) { sum_s[at + j] = sums[j]; }
        }
        workgroupBarrier();
        finish_rows(lid, m0, n0, rows, first);
    }
#else
    coopStoreT(c0, &sum_s[sums_at], 64u);
    coopStoreT(c1, &sum_s[sums_at + 16u], 64u);
    workgroupBarrier();
    finish_rows(lid, m0, n0, rows, 0u);
#ifdef TALL
    workgroupBarrier();
    coopStoreT(c2, &sum_s[sums_at], 64u);
    coopStoreT(c3, &sum_s[sums_at + 16u], 64u);
    workgroupBarrier();
    finish_rows(lid, m0, n0, rows, 16u);
#endif
#endif
}
