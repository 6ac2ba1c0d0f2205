// linear for many rows by cooperative matrices of 8 x 8: out = x * w^T by tiles of 32 rows and 64 columns, the same tiles of
// x and decoded w per 32 columns of x as in linear_mat. A tile has 8 pieces of 8 rows and 32 columns. Of 8 subgroups or
// more each has one (beyond 8 they repeat one another and store the same); of 4 to 7 each of the first 4 has two. A
// subgroup of more than WG / 4 lanes is not foreseen.
//
// F16: the tiles are halves, sums stay f32.
#import linear

const BM: u32 = 32u;
#ifdef GLU
const BN: u32 = 32u; // 32 gates and their 32 ups
#else
const BN: u32 = 64u;
#endif
#ifdef F16
alias Elem = f16;
alias MatA = coop_mat8x8<f16, A>;
alias MatB = coop_mat8x8<f16, B>;
#else
alias Elem = f32;
alias MatA = coop_mat8x8<f32, A>;
alias MatB = coop_mat8x8<f32, B>;
#endif
alias MatC = coop_mat8x8<f32, C>;

var<workgroup> x_s: array<Elem, 1024>; // 32 rows of 32
var<workgroup> w_s: array<Elem, 2048>; // 64 rows of 32
var<workgroup> sum_s: array<f32, 2048>; // 32 rows of 64
var<workgroup> subgroups: u32;

fn w_put(at: u32, v: vec4<f32>) {
    w_s[at] = Elem(v.x);
    w_s[at + 1u] = Elem(v.y);
    w_s[at + 2u] = Elem(v.z);
    w_s[at + 3u] = Elem(v.w);
}

// Finishes columns a and a + 32 of one row (with GLU: a gate with its up).
fn finish_two(row: u32, a: u32, lo: f32, hi: f32) {
#ifdef GLU
    finish(row, a, lo, hi);
#else
    finish(row, a, lo);
    finish(row, a + 32u, hi);
#endif
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) n_subgroups: u32,
) {
    let rows = step[p.rows_at];
    let m_tiles = (rows + BM - 1u) / BM;
    let id = flat_id(wid, n_wg);
    let n0 = id / max(m_tiles, 1u) * BN;
    let m0 = id % max(m_tiles, 1u) * BM;
    // Whether there is work, and for how many subgroups: known to be the same for all, as matrices demand of what they
    // depend on.
    if (lid == 0u) { subgroups = select(n_subgroups, 0u, rows == 0u || n0 >= p.n); }
    let n_working = workgroupUniformLoad(&subgroups);
    if (n_working == 0u) { return; }
    let two = n_working < 8u;
    for (var i = lid; i < 2048u; i += WG) { sum_s[i] = 0.0; }
    workgroupBarrier();
    let strip = subgroup % 4u * 8u;
    let column = select(subgroup / 4u % 2u * 32u, 0u, two);
    var c0 = coopLoadT<MatC>(&sum_s[0], 64u);
    var c1 = coopLoadT<MatC>(&sum_s[0], 64u);
    var c2 = coopLoadT<MatC>(&sum_s[0], 64u);
    var c3 = coopLoadT<MatC>(&sum_s[0], 64u);
    var c4 = coopLoadT<MatC>(&sum_s[0], 64u);
    var c5 = coopLoadT<MatC>(&sum_s[0], 64u);
    var c6 = coopLoadT<MatC>(&sum_s[0], 64u);
    var c7 = coopLoadT<MatC>(&sum_s[0], 64u);
    for (var u = 0u; u < p.units; u++) {
        workgroupBarrier();
        for (var i = lid; i < 256u; i += WG) {
            let v = x_quad(min(m0 + i / 8u, rows - 1u), u * 8u + i % 8u);
            x_s[i * 4u] = Elem(v.x);
            x_s[i * 4u + 1u] = Elem(v.y);
            x_s[i * 4u + 2u] = Elem(v.z);
            x_s[i * 4u + 3u] = Elem(v.w);
        }
        for (var i = lid; i < 64u; i += WG) {
#ifdef GLU
            let n = min(n0 + i % 32u, p.n - 1u);
            let w_row = (p.w_row + select(n, p.pair + n, i >= 32u)) * p.units;
#else
            let w_row = (p.w_row + min(n0 + i, p.n - 1u)) * p.units;
#endif
            let v = unit_vecs(load_unit(w_row + u));
            let at = i * 32u;
            w_put(at, v.v0);
            w_put(at + 4u, v.v1);
            w_put(at + 8u, v.v2);
            w_put(at + 12u, v.v3);
            w_put(at + 16u, v.v4);
            w_put(at + 20u, v.v5);
            w_put(at + 24u, v.v6);
            w_put(at + 28u, v.v7);
        }
        workgroupBarrier();
        for (var k = 0u; k < 32u; k += 8u) {
            // x by rows; w^T by columns, for w stands by rows.
            let a = coopLoadT<MatA>(&x_s[strip * 32u + k], 32u);
            let at = column * 32u + k;
            c0 = coopMultiplyAdd(a, coopLoad<MatB>(&w_s[at], 32u), c0);
            c1 = coopMultiplyAdd(a, coopLoad<MatB>(&w_s[at + 256u], 32u), c1);
            c2 = coopMultiplyAdd(a, coopLoad<MatB>(&w_s[at + 512u], 32u), c2);
            c3 = coopMultiplyAdd(a, coopLoad<MatB>(&w_s[at + 768u], 32u), c3);
            if (two) {
                c4 = coopMultiplyAdd(a, coopLoad<MatB>(&w_s[k + 1024u], 32u), c4);
                c5 = coopMultiplyAdd(a, coopLoad<MatB>(&w_s[k + 1280u], 32u), c5);
                c6 = coopMultiplyAdd(a, coopLoad<MatB>(&w_s[k + 1536u], 32u), c6);
                c7 = coopMultiplyAdd(a, coopLoad<MatB>(&w_s[k + 1792u], 32u), c7);
            }
        }
    }
    let at = strip * 64u + column;
    coopStoreT(c0, &sum_s[at], 64u);
    coopStoreT(c1, &sum_s[at + 8u], 64u);
    coopStoreT(c2, &sum_s[at + 16u], 64u);
    coopStoreT(c3, &sum_s[at + 24u], 64u);
    if (two) {
        coopStoreT(c4, &sum_s[at + 32u], 64u);
        coopStoreT(c5, &sum_s[at + 40u], 64u);
        coopStoreT(c6, &sum_s[at + 48u], 64u);
        coopStoreT(c7, &sum_s[at + 56u], 64u);
    }
    workgroupBarrier();
    for (var i = lid; i < 1024u; i += WG) {
        let row = i / 32u;
        let col = i % 32u;
        if (m0 + row < rows) {
            finish_two(m0 + row, n0 + col, sum_s[row * 64u + col], sum_s[row * 64u + col + 32u]);
        }
    }
}
