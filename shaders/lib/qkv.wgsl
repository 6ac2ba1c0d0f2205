// The end of a product whose columns are heads of queries, keys and values, as the kernel heads has it but for norms, which
// need a whole head: clamp (CLAMP), rotation of queries and keys, cache write. A workgroup has the four columns of qkv_place.
//
// The cache is bound by words, since no two workgroups may write parts of one vector. Blocks of 8 bits have a scale for 32
// columns, which no workgroup here holds.
#import kv
#import qkv_place

#ifdef KV_F16
@group(0) @binding(6) var<storage, read_write> k_pages: array<u32>; // two halves
@group(0) @binding(7) var<storage, read_write> v_pages: array<u32>;
const QUAD_WORDS: u32 = 2u;
#else
@group(0) @binding(6) var<storage, read_write> k_pages: array<f32>;
@group(0) @binding(7) var<storage, read_write> v_pages: array<f32>;
const QUAD_WORDS: u32 = 4u;
#endif

// Two neighbouring columns `c` of a head's row in the cache, which begins at the quad `at`.
fn put_two(is_v: bool, at: u32, c: u32, v: vec2<f32>) {
#ifdef KV_F16
    // Values beyond what a half holds are clamped: packing them is undefined.
    let two = pack2x16float(clamp(v, vec2(-65504.0), vec2(65504.0)));
    if (is_v) { v_pages[at * QUAD_WORDS + c / 2u] = two; } else { k_pages[at * QUAD_WORDS + c / 2u] = two; }
#else
    for (var i = 0u; i < 2u; i++) {
        if (is_v) { v_pages[at * QUAD_WORDS + c + i] = v[i]; } else { k_pages[at * QUAD_WORDS + c + i] = v[i]; }
    }
#endif
}

// Finishes the four columns of a row that qkv_place finds behind the dispatch's first.
fn finish_heads(row: u32, n: u32, sums: vec4<f32>) {
    let at = qkv_place(p.out_start + n);
    let c = qkv_columns(at);
    var v = vec4(product(c.x, sums.x), product(c.y, sums.y), product(c.z, sums.z), product(c.w, sums.w));
#ifdef CLAMP
    v = clamp(v, vec4(-p.limit), vec4(p.limit));
#endif
    let position = step[step[STEP_POSITIONS] + row];
    v = turned_four(at, f32(position), v);
    if (at.is_k || at.is_v) {
        let quads = select(p.head_dim, p.v_dim, at.is_v) / 4u;
        let place = row_at(step[step[p.tables] + row], position, at.head, p.n_kv_heads, quads);
        put_two(at.is_v, place, at.a, v.xy);
        put_two(at.is_v, place, at.b, v.zw);
    } else {
        for (var i = 0u; i < 4u; i++) { out[row * p.out_stride + c[i]] = v[i]; }
    }
}
