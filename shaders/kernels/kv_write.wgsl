// kv_write: stores keys and values of every row in its sequence's page. One invocation per unit of quads.
//
// TAIL: the last elements of the keys, the same for all heads, come from elsewhere. V_IN_K: values are parts of their keys.
#import grid
#import step
#import kv
#import kv_put

struct Params {
    k_start: u32,
    k_stride: u32,
    n_kv_heads: u32,
    k_dim: u32,
    k_cols: u32,  // of those the elements in k; with TAIL the others are in tail
#ifdef TAIL
    tail_start: u32,
    tail_stride: u32,
#endif
#ifndef V_IN_K
    v_start: u32,
    v_stride: u32,
    v_dim: u32,
#endif
    tables: u32,    // the word of the step that says where the group's page tables begin
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> k: array<f32>;
#ifdef TAIL
@group(0) @binding(6) var<storage, read> tail: array<f32>;
#endif
@group(0) @binding(4) var<storage, read_write> k_pages: array<Quad>;
#ifndef V_IN_K
@group(0) @binding(3) var<storage, read> v: array<f32>;
@group(0) @binding(5) var<storage, read_write> v_pages: array<Quad>;
#endif

fn k_or_zero(row: u32, head: u32, col: u32) -> f32 {
    if (col < p.k_cols) { return k[row * p.k_stride + p.k_start + head * p.k_cols + col]; }
#ifdef TAIL
    if (col < p.k_dim) { return tail[row * p.tail_stride + p.tail_start + col - p.k_cols]; }
#endif
    return 0.0;
}

#ifndef V_IN_K
fn v_or_zero(at: u32, col: u32) -> f32 {
    if (col < p.v_dim) { return v[at + col]; }
    return 0.0;
}
#endif

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let k_quads = (p.k_dim + 3u) / 4u;
#ifdef V_IN_K
    let v_quads = 0u;
#else
    let v_quads = (p.v_dim + 3u) / 4u;
#endif
    let id = flat_id(wid, n_wg) * WG + lid;
    let k_units = k_quads / UNIT;
    let units = k_units + v_quads / UNIT;
    let unit = id % units;
    let head = (id / units) % p.n_kv_heads;
    let row = id / (units * p.n_kv_heads);
    if (row >= step[STEP_N_TOKENS]) { return; }
    let position = step[step[STEP_POSITIONS] + row];
    let pages = step[step[p.tables] + row];
    var values = array<vec4<f32>, UNIT>();
    if (unit < k_units) {
        for (var i = 0u; i < UNIT; i++) {
            let c = (unit * UNIT + i) * 4u;
            values[i] = vec4(
                k_or_zero(row, head, c), k_or_zero(row, head, c + 1u),
                k_or_zero(row, head, c + 2u), k_or_zero(row, head, c + 3u),
            );
        }
        k_put(row_at(pages, position, head, p.n_kv_heads, k_quads), unit, k_quads, values);
        return;
    }
#ifndef V_IN_K
    let at = row * p.v_stride + p.v_start + head * p.v_dim;
    for (var i = 0u; i < UNIT; i++) {
        let c = ((unit - k_units) * UNIT + i) * 4u;
        values[i] = vec4(v_or_zero(at, c), v_or_zero(at, c + 1u), v_or_zero(at, c + 2u), v_or_zero(at, c + 3u));
    }
    v_put(row_at(pages, position, head, p.n_kv_heads, v_quads), unit - k_units, v_quads, values);
#endif
}
