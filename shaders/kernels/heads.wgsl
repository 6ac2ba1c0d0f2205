// heads: a row's queries, keys and values, in place in `qkv`: clamp, norm of each head, rotation of queries and keys, cache
// write. One workgroup per row and head: first the query heads, then the key heads, then the value heads. What is
// normalised otherwise, or by more columns than a head, comes here behind kernels of its own.
//
// CLAMP: all columns are limited. NORM: heads are divided by their root mean square as `norms` says.
#import grid
#import step
#import kv
#import kv_put
#import trig
#import constants
#ifdef NORM
#import reduce
#endif

struct Params {
    stride: u32,      // columns of qkv
    n_heads: u32,
    n_kv_heads: u32,
    head_dim: u32,    // of queries and keys
    v_dim: u32,
    n_pairs: u32,     // pairs of a head that turn; none: no rotation
    halves: u32,      // as in rope
    magnitude: f32,
    freqs_at: u32,
    limit: f32,       // with CLAMP
    tables: u32,      // the word of the step that says where the group's page tables begin
    norms: u32,       // with NORM: bit 0 for queries, 1 for keys, 2 for values
    q_eps: f32,
    k_eps: f32,
    v_eps: f32,
    q_norm: u32,      // factors, or NONE
    k_norm: u32,
    v_norm: u32,
    q_step: u32,      // from a head's factors to the next one's: 0 or the head's columns
    k_step: u32,
    v_step: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(3) var<storage, read_write> qkv: array<f32>;
@group(0) @binding(4) var<storage, read_write> k_pages: array<Quad>;
@group(0) @binding(5) var<storage, read_write> v_pages: array<Quad>;

var<workgroup> head_s: array<f32, DIM>; // DIM: the larger of head_dim and v_dim, up to a multiple of 4

// Writes the head in head_s to a page.
fn put_head(lid: u32, row: u32, head: u32, dim: u32, is_v: bool) {
    let quads = (dim + 3u) / 4u;
    let pages = step[step[p.tables] + row];
    let at = row_at(pages, step[step[STEP_POSITIONS] + row], head, p.n_kv_heads, quads);
    for (var unit = lid; unit < quads / UNIT; unit += WG) {
        var values = array<vec4<f32>, UNIT>();
        for (var i = 0u; i < UNIT; i++) {
            let c = (unit * UNIT + i) * 4u;
            values[i] = vec4(head_s[c], head_s[c + 1u], head_s[c + 2u], head_s[c + 3u]);
        }
        if (is_v) { v_put(at, unit, quads, values); } else { k_put(at, unit, quads, values); }
    }
}

fn load(at: u32) -> f32 {
#ifdef CLAMP
    return clamp(qkv[at], -p.limit, p.limit);
#else
    return qkv[at];
#endif
}

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
    let n = p.n_heads + 2u * p.n_kv_heads;
    let id = flat_id(wid, n_wg);
    let row = id / n;
    if (row >= step[STEP_N_TOKENS]) { return; }
    var head = id % n;
    var start = row * p.stride;
    var dim = p.head_dim;
    let is_k = head >= p.n_heads;
    let is_v = head >= p.n_heads + p.n_kv_heads;
    if (is_v) {
        head -= p.n_heads + p.n_kv_heads;
        start += (p.n_heads + p.n_kv_heads) * p.head_dim + head * p.v_dim;
        dim = p.v_dim;
    } else if (is_k) {
        head -= p.n_heads;
        start += (p.n_heads + head) * p.head_dim;
    } else {
        start += head * p.head_dim;
    }
    for (var i = lid; i < DIM; i += WG) { head_s[i] = 0.0; }
    workgroupBarrier();
#ifdef NORM
#ifdef SUBGROUPS
    let here = Lane(lid, lane, subgroup, n_subgroups);
#else
    let here = Lane(lid);
#endif
    let part = u32(is_k) + u32(is_v);
    let normed = ((p.norms >> part) & 1u) == 1u;
    let eps = vec3(p.q_eps, p.k_eps, p.v_eps)[part];
    let factors = vec3(p.q_norm, p.k_norm, p.v_norm)[part];
    let first = factors + head * vec3(p.q_step, p.k_step, p.v_step)[part];
    var sum = 0.0;
    for (var i = lid; i < dim; i += WG) {
        let v = load(start + i);
        sum += v * v;
    }
    let scale = inverseSqrt(reduce_sum(here, sum) / f32(dim) + eps);
    for (var i = lid; i < dim; i += WG) {
        var v = load(start + i);
        if (normed) { v *= scale; }
        if (normed && factors != NONE) { v *= constant(first + i); }
        head_s[i] = v;
    }
#else
    for (var i = lid; i < dim; i += WG) { head_s[i] = load(start + i); }
#endif
    workgroupBarrier();
    if (is_v) {
        put_head(lid, row, head, dim, true);
        return;
    }
    let position = f32(step[step[STEP_POSITIONS] + row]);
    for (var pair = lid; pair < p.n_pairs; pair += WG) {
        let i = select(2u * pair, pair, p.halves == 1u);
        let j = select(i + 1u, i + p.n_pairs, p.halves == 1u);
        let turn = cos_sin(position * constant(p.freqs_at + pair)) * p.magnitude;
        let a = head_s[i];
        let b = head_s[j];
        head_s[i] = a * turn.x - b * turn.y;
        head_s[j] = a * turn.y + b * turn.x;
    }
    workgroupBarrier();
    if (is_k) {
        put_head(lid, row, head, dim, false);
    } else {
        for (var i = lid; i < dim; i += WG) { qkv[start + i] = head_s[i]; }
    }
}
