// The end of a product whose columns are heads of queries, keys and values, as the kernel heads has it but for norms, which
// need a whole head: clamp (CLAMP), rotation of queries and keys, cache write. A workgroup has four columns of a head, two and
// two neighbours: where pairs are halves of a head apart (n_pairs columns), the first two elements of two pairs and their
// partners, else four in a row. Widths of heads are multiples of 4, and n_pairs is even.
//
// The cache is bound by words, since no two workgroups may write parts of one vector. Blocks of 8 bits have a scale for 32
// columns, which no workgroup here holds.
#import kv
#import trig
#import constants

#ifdef KV_F16
@group(0) @binding(6) var<storage, read_write> k_pages: array<u32>; // two halves
@group(0) @binding(7) var<storage, read_write> v_pages: array<u32>;
const QUAD_WORDS: u32 = 2u;
#else
@group(0) @binding(6) var<storage, read_write> k_pages: array<f32>;
@group(0) @binding(7) var<storage, read_write> v_pages: array<f32>;
const QUAD_WORDS: u32 = 4u;
#endif

struct Place {
    head: u32,   // among those of its kind
    is_k: bool,
    is_v: bool,
    start: u32,  // the head's first column of the product
    pair: u32,   // the first of two pairs
    turns: bool, // they are rotated
    a: u32,      // two columns of the head begin here
    b: u32,      // and two here
}

// Which columns the four are that are found as `column` and its neighbours, in order of workgroups.
fn qkv_place(column: u32) -> Place {
    let k_start = p.n_heads * p.head_dim;
    let v_start = k_start + p.n_kv_heads * p.head_dim;
    if (column >= v_start) {
        let c = (column - v_start) % p.v_dim;
        return Place((column - v_start) / p.v_dim, false, true, column - c, 0u, false, c, c + 2u);
    }
    let c = column % p.head_dim;
    let is_k = column >= k_start;
    let head = (column - select(0u, k_start, is_k)) / p.head_dim;
    let pair = c / 2u;
    let turns = pair < p.n_pairs;
    let apart = turns && p.halves == 1u;
    return Place(head, is_k, false, column - c, pair, turns, select(c, pair, apart), select(c + 2u, pair + p.n_pairs, apart));
}

fn qkv_columns(at: Place) -> vec4<u32> {
    return at.start + vec4(at.a, at.a + 1u, at.b, at.b + 1u);
}

// Turns a pair by the angle of its place and the row's position.
fn turned(pair: u32, position: f32, v: vec2<f32>) -> vec2<f32> {
    let turn = cos_sin(position * constant(p.freqs_at + pair)) * p.magnitude;
    return vec2(v.x * turn.x - v.y * turn.y, v.x * turn.y + v.y * turn.x);
}

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
    if (at.turns && p.halves == 1u) {
        let first = turned(at.pair, f32(position), v.xz);
        let second = turned(at.pair + 1u, f32(position), v.yw);
        v = vec4(first.x, second.x, first.y, second.y);
    } else if (at.turns) {
        v = vec4(turned(at.pair, f32(position), v.xy), turned(at.pair + 1u, f32(position), v.zw));
    }
    if (at.is_k || at.is_v) {
        let quads = select(p.head_dim, p.v_dim, at.is_v) / 4u;
        let place = row_at(step[step[p.tables] + row], position, at.head, p.n_kv_heads, quads);
        put_two(at.is_v, place, at.a, v.xy);
        put_two(at.is_v, place, at.b, v.zw);
    } else {
        for (var i = 0u; i < 4u; i++) { out[row * p.out_stride + c[i]] = v[i]; }
    }
}
