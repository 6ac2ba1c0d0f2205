// rope_kv: the group [norm of q and k per head] rope of q, rope of k, kv_write in one dispatch. One workgroup per row and
// head: first the query heads, then the key heads, then the value heads.
//
// Without QK_NORM q, k and v are views of one slot, `qkv`, and q and k turn in place there. With it `qkv` is only read;
// the normalised heads go to `q_out` and `k_out`.
#import grid
#import step
#import kv
#import trig
#ifdef QK_NORM
#import reduce
#endif

struct Params {
    stride: u32,      // columns of qkv
    q_start: u32,
    k_start: u32,
    v_start: u32,
    n_heads: u32,
    n_kv_heads: u32,
    head_dim: u32,    // of q and k
    v_dim: u32,
    n_pairs: u32,     // pairs of a head that turn
    halves: u32,      // as in rope
    magnitude: f32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> freqs: array<f32>;
@group(0) @binding(4) var<storage, read_write> k_pages: array<Quad>;
@group(0) @binding(5) var<storage, read_write> v_pages: array<Quad>;
#ifdef QK_NORM
@group(0) @binding(3) var<storage, read> qkv: array<f32>;
@group(0) @binding(6) var<storage, read_write> q_out: array<f32>;
@group(0) @binding(7) var<storage, read_write> k_out: array<f32>;
@group(0) @binding(8) var<storage, read> qk_norm: array<f32>; // head_dim factors of q, then of k
#else
@group(0) @binding(3) var<storage, read_write> qkv: array<f32>;
#endif

var<workgroup> head_s: array<f32, DIM>; // DIM: the larger of head_dim and v_dim, up to a multiple of 4

// Writes the head in head_s to a page.
fn put_head(lid: u32, row: u32, head: u32, dim: u32, is_v: bool) {
    let quads = (dim + 3u) / 4u;
    let pages = step[step[STEP_TABLES] + row];
    let at = quad_at(pages, step[step[STEP_POSITIONS] + row], head, p.n_kv_heads, quads);
    for (var i = lid; i < quads; i += WG) {
        let c = i * 4u;
        let q = quad_pack(vec4(head_s[c], head_s[c + 1u], head_s[c + 2u], head_s[c + 3u]));
        if (is_v) { v_pages[at + i] = q; } else { k_pages[at + i] = q; }
    }
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
    let start_at = row * p.stride;
    for (var i = lid; i < DIM; i += WG) { head_s[i] = 0.0; }
    workgroupBarrier();
    if (head >= p.n_heads + p.n_kv_heads) {
        head -= p.n_heads + p.n_kv_heads;
        for (var i = lid; i < p.v_dim; i += WG) { head_s[i] = qkv[start_at + p.v_start + head * p.v_dim + i]; }
        workgroupBarrier();
        put_head(lid, row, head, p.v_dim, true);
        return;
    }
    let is_k = head >= p.n_heads;
    if (is_k) { head -= p.n_heads; }
    let start = start_at + select(p.q_start, p.k_start, is_k) + head * p.head_dim;
#ifdef QK_NORM
#ifdef SUBGROUPS
    let here = Lane(lid, lane, subgroup, n_subgroups);
#else
    let here = Lane(lid);
#endif
    var sum = 0.0;
    for (var i = lid; i < p.head_dim; i += WG) {
        let v = qkv[start + i];
        sum += v * v;
    }
    let scale = inverseSqrt(reduce_sum(here, sum) / f32(p.head_dim) + p.eps);
    let factors = select(0u, p.head_dim, is_k);
    for (var i = lid; i < p.head_dim; i += WG) { head_s[i] = qkv[start + i] * scale * qk_norm[factors + i]; }
#else
    for (var i = lid; i < p.head_dim; i += WG) { head_s[i] = qkv[start + i]; }
#endif
    workgroupBarrier();
    let position = f32(step[step[STEP_POSITIONS] + row]);
    for (var pair = lid; pair < p.n_pairs; pair += WG) {
        let i = select(2u * pair, pair, p.halves == 1u);
        let j = select(i + 1u, i + p.n_pairs, p.halves == 1u);
        let turn = cos_sin(position * freqs[pair]) * p.magnitude;
        let a = head_s[i];
        let b = head_s[j];
        head_s[i] = a * turn.x - b * turn.y;
        head_s[j] = a * turn.y + b * turn.x;
    }
    workgroupBarrier();
    for (var i = lid; i < p.head_dim; i += WG) {
#ifdef QK_NORM
        if (is_k) {
            k_out[(row * p.n_kv_heads + head) * p.head_dim + i] = head_s[i];
        } else {
            q_out[(row * p.n_heads + head) * p.head_dim + i] = head_s[i];
        }
#else
        qkv[start + i] = head_s[i];
#endif
    }
    if (is_k) { put_head(lid, row, head, p.head_dim, false); }
}
