// linear for many rows: out = x * w^T by tiles of BM rows and 64 columns. 64 invocations in 8 x 8, each with BM / 8 rows
// and 8 columns of the tile in registers. Per 32 columns of x a tile of x and a decoded tile of w stand in workgroup
// memory, both by quads along K; the quads of a row are exchanged (quad ^ row % 8) so that no two lanes share a bank.
//
// TALL: BM is 64, else 32 (never with RAGGED). F16: the tiles are halves, sums stay f32. STACK: a tile is of rows that have one matrix of a
// stack: see expert_linear_sort; with HEADS each row has all matrices.
#import linear
#ifdef STACK
#ifndef HEADS
@group(0) @binding(6) var<storage, read> order: array<u32>; // as expert_linear_sort writes them
@group(0) @binding(7) var<storage, read> tiles: array<u32>;
#endif
var<private> tile_first: u32 = 0u;
var<private> tile_matrix: u32 = 0u;
#endif

#ifdef F16
alias Tile = vec4<f16>;
alias Tile4 = mat4x4<f16>;
#else
alias Tile = vec4<f32>;
alias Tile4 = mat4x4<f32>;
#endif
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
var<workgroup> x_s: array<Tile, BM * 8u>;
var<workgroup> w_s: array<Tile, 512>;

// Where row m of a tile lies in x and in out, those of a stack's products being rows by themselves.
#ifdef STACK
fn place(m: u32) -> u32 {
#ifdef HEADS
    return (tile_first + m) * p.used + tile_matrix;
#else
    return order[tile_first + m];
#endif
}

fn x_row(m: u32) -> u32 {
    let at = place(m);
    return select(at / p.used, at, p.own_x == 1u);
}
#else
fn place(m: u32) -> u32 {
    return m;
}

fn x_row(m: u32) -> u32 {
    return m;
}
#endif

// Finishes columns n, n + 8, ... of one row: lo the first four, hi the others (with GLU: gates and ups).
fn finish_eight(row: u32, rows: u32, n: u32, lo: vec4<f32>, hi: vec4<f32>) {
    if (row >= rows) { return; }
    let to = place(row);
    for (var j = 0u; j < 4u; j++) {
        let a = n + 8u * j;
#ifdef GLU
        finish(to, a, lo[j], hi[j]);
#else
        finish(to, a, lo[j]);
        finish(to, a + 32u, hi[j]);
#endif
    }
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
#ifdef STACK
    let id = flat_id(wid, n_wg);
#ifdef HEADS
    let n_tiles = (step[p.rows_at] + BM - 1u) / BM * p.used;
#else
    let n_tiles = tiles[0];
#endif
    let n0 = id / max(n_tiles, 1u) * BN;
    if (n_tiles == 0u || n0 >= p.n) { return; }
    let tile = id % n_tiles;
#ifdef HEADS
    let matrix = tile % p.used;
    tile_first = tile / p.used * BM;
    let rows = min(BM, step[p.rows_at] - tile / p.used * BM);
#else
    let matrix = tiles[1u + 3u * tile];
    tile_first = tiles[2u + 3u * tile];
    let rows = tiles[3u + 3u * tile];
#endif
    if (matrix < p.first_matrix || matrix - p.first_matrix >= p.n_matrices) { return; }
    tile_matrix = matrix;
    vectors_at = matrix * p.vector_rows;
    let w_start = p.w_row + (matrix - p.first_matrix) * p.part_rows;
    let m0 = 0u;
#ifdef HEADS
    if (n0 == 0u && p.out_start == 0u) {
        for (var i = lid; i < rows * p.passed; i += 64u) {
            let at = place(i / p.passed);
            out[at * p.out_stride + p.passed_at + i % p.passed] = x_element(at, p.cols + i % p.passed);
        }
    }
#endif
#else
    let rows = step[p.rows_at];
    let m_tiles = (rows + BM - 1u) / BM;
    let id = flat_id(wid, n_wg);
    // Neighbouring workgroups share their weights.
    let n0 = id / max(m_tiles, 1u) * BN;
    if (rows == 0u || n0 >= p.n) { return; }
    let m0 = id % m_tiles * BM;
    let w_start = p.w_row;
#endif
    let tx = lid % 8u;
    let ty = lid / 8u;
#ifdef GLU
    let n = min(n0 + lid % 32u, p.n - 1u);
    let w_row = (w_start + select(n, p.pair + n, lid >= 32u)) * p.units;
#else
    let w_row = (w_start + min(n0 + lid, p.n - 1u)) * p.units;
#endif

    var l0 = vec4(0.0); var l1 = vec4(0.0); var l2 = vec4(0.0); var l3 = vec4(0.0);
    var h0 = vec4(0.0); var h1 = vec4(0.0); var h2 = vec4(0.0); var h3 = vec4(0.0);
#ifdef TALL
    var l4 = vec4(0.0); var l5 = vec4(0.0); var l6 = vec4(0.0); var l7 = vec4(0.0);
    var h4 = vec4(0.0); var h5 = vec4(0.0); var h6 = vec4(0.0); var h7 = vec4(0.0);
#endif
    for (var u = 0u; u < p.units; u++) {
        workgroupBarrier();
        for (var i = 0u; i < BM / 8u; i++) {
            let m = ty + 8u * i;
            x_s[m * 8u + (tx ^ ty)] = Tile(x_quad(x_row(min(m0 + m, rows - 1u)), u * 8u + tx));
        }
        let v = unit_vecs(load_unit(w_row + u));
        let at = lid * 8u;
        w_s[at + tx] = Tile(v.v0);
        w_s[at + (1u ^ tx)] = Tile(v.v1);
        w_s[at + (2u ^ tx)] = Tile(v.v2);
        w_s[at + (3u ^ tx)] = Tile(v.v3);
        w_s[at + (4u ^ tx)] = Tile(v.v4);
        w_s[at + (5u ^ tx)] = Tile(v.v5);
        w_s[at + (6u ^ tx)] = Tile(v.v6);
        w_s[at + (7u ^ tx)] = Tile(v.v7);
        workgroupBarrier();
        for (var k = 0u; k < 8u; k++) {
            let b = tx * 8u + (k ^ tx);
            let a = ty * 8u + (k ^ ty);
            // A row times a matrix of columns: four dot products.
            let bl = Tile4(w_s[b], w_s[b + 64u], w_s[b + 128u], w_s[b + 192u]);
            let bh = Tile4(w_s[b + 256u], w_s[b + 320u], w_s[b + 384u], w_s[b + 448u]);
            let a0 = x_s[a];
            l0 += vec4<f32>(a0 * bl);
            h0 += vec4<f32>(a0 * bh);
            let a1 = x_s[a + 64u];
            l1 += vec4<f32>(a1 * bl);
            h1 += vec4<f32>(a1 * bh);
            let a2 = x_s[a + 128u];
            l2 += vec4<f32>(a2 * bl);
            h2 += vec4<f32>(a2 * bh);
            let a3 = x_s[a + 192u];
            l3 += vec4<f32>(a3 * bl);
            h3 += vec4<f32>(a3 * bh);
#ifdef TALL
            let a4 = x_s[a + 256u];
            l4 += vec4<f32>(a4 * bl);
            h4 += vec4<f32>(a4 * bh);
            let a5 = x_s[a + 320u];
            l5 += vec4<f32>(a5 * bl);
            h5 += vec4<f32>(a5 * bh);
            let a6 = x_s[a + 384u];
            l6 += vec4<f32>(a6 * bl);
            h6 += vec4<f32>(a6 * bh);
            let a7 = x_s[a + 448u];
            l7 += vec4<f32>(a7 * bl);
            h7 += vec4<f32>(a7 * bh);
#endif
        }
    }
    let row = m0 + ty;
    let col = n0 + tx;
    finish_eight(row, rows, col, l0, h0);
    finish_eight(row + 8u, rows, col, l1, h1);
    finish_eight(row + 16u, rows, col, l2, h2);
    finish_eight(row + 24u, rows, col, l3, h3);
#ifdef TALL
    finish_eight(row + 32u, rows, col, l4, h4);
    finish_eight(row + 40u, rows, col, l5, h5);
    finish_eight(row + 48u, rows, col, l6, h6);
    finish_eight(row + 56u, rows, col, l7, h7);
#endif
}
