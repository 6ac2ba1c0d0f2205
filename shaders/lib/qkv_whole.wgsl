// The end of a product whose columns are heads of queries, keys and values, if more of a head is needed than a workgroup has:
// for norms, and for the scales of an 8-bit cache. Workgroups store their columns (CLAMP: limited); the one that finishes a
// head last makes it ready as the kernel heads has it: norm, rotation of queries and keys, cache write.
//
// Counters are one per head and ROWS rows. COHERENT: always; see last.
#import kv
#import kv_put
#import qkv_place
#import last

@group(0) @binding(6) var<storage, read_write> k_pages: array<Quad>;
@group(0) @binding(7) var<storage, read_write> v_pages: array<Quad>;
@coherent
@group(0) @binding(8) var<storage, read_write> finished: array<atomic<u32>>;

// Shares of a row of a head in the sum that its norm takes: as many however many rows there are, so that a row's bits do not
// depend on the others.
const SHARES: u32 = 8u;
var<workgroup> shares_s: array<f32, SHARES * ROWS>;

// What of the head it is: a query's 0, a key's 1, a value's 2.
fn part_of(at: Place) -> u32 {
    return u32(at.is_k) + 2u * u32(at.is_v);
}

fn is_normed(part: u32) -> bool {
    return ((p.norms >> part) & 1u) == 1u;
}

// Stores four columns of a row; those of heads without a norm are turned already.
fn finish_heads(row: u32, n: u32, sums: vec4<f32>) {
    let at = qkv_place(p.out_start + n);
    let c = qkv_columns(at);
    var v = vec4(product(c.x, sums.x), product(c.y, sums.y), product(c.z, sums.z), product(c.w, sums.w));
#ifdef CLAMP
    v = clamp(v, vec4(-p.limit), vec4(p.limit));
#endif
    if (!is_normed(part_of(at))) { v = turned_four(at, f32(step[step[STEP_POSITIONS] + row]), v); }
    for (var i = 0u; i < 4u; i++) { out[row * p.out_stride + c[i]] = v[i]; }
}

// Four neighbouring columns.
fn stored(row: u32, c: u32) -> vec4<f32> {
    let at = row * p.out_stride + c;
    return vec4(out[at], out[at + 1u], out[at + 2u], out[at + 3u]);
}

// Norm and rotation of `n_rows` rows of a head, from `first` on, in place.
fn norm_head(lid: u32, head: Place, quads: u32, first: u32, n_rows: u32) {
    for (var i = lid; i < n_rows * SHARES; i += WG) {
        var sum = 0.0;
        for (var q = i % SHARES; q < quads; q += SHARES) {
            let v = stored(first + i / SHARES, head.start + 4u * q);
            sum += dot(v, v);
        }
        shares_s[i] = sum;
    }
    workgroupBarrier();
    let part = part_of(head);
    let eps = vec3(p.q_eps, p.k_eps, p.v_eps)[part];
    let factors = vec3(p.q_norm, p.k_norm, p.v_norm)[part];
    let of_head = factors + head.head * vec3(p.q_step, p.k_step, p.v_step)[part];
    for (var i = lid; i < n_rows * quads; i += WG) {
        let m = i / quads;
        let at = qkv_place(head.start + i % quads * 4u);
        let c = qkv_columns(at);
        let row = (first + m) * p.out_stride;
        var sum = 0.0;
        for (var j = 0u; j < SHARES; j++) { sum += shares_s[m * SHARES + j]; }
        var v = vec4(out[row + c.x], out[row + c.y], out[row + c.z], out[row + c.w]);
        v *= inverseSqrt(sum / f32(4u * quads) + eps);
        if (factors != NONE) {
            let f = of_head + c - head.start;
            v *= vec4(constant(f.x), constant(f.y), constant(f.z), constant(f.w));
        }
        v = turned_four(at, f32(step[step[STEP_POSITIONS] + first + m]), v);
        for (var j = 0u; j < 4u; j++) { out[row + c[j]] = v[j]; }
    }
    storageBarrier();
}

// Makes rows `first` to `rows`, at most ROWS, of the head with the dispatch's column `n` ready, if this workgroup is the last
// that has columns of it.
fn finish_whole(lid: u32, n: u32, first: u32, rows: u32) {
    let head = qkv_place(p.out_start + n);
    let part = part_of(head);
    let normed = is_normed(part);
    if (part == 0u && !normed) { return; }
    let n_heads = p.n_heads + 2u * p.n_kv_heads;
    let counter = first / ROWS * n_heads + head.head + vec3(0u, p.n_heads, p.n_heads + p.n_kv_heads)[part];
    let quads = select(p.head_dim, p.v_dim, head.is_v) / 4u;
    if (!is_last(lid, counter, quads)) { return; }
    let n_rows = min(ROWS, rows - first);
    if (normed) { norm_head(lid, head, quads, first, n_rows); }
    if (part == 0u) { return; }
    let units = quads / UNIT;
    for (var i = lid; i < n_rows * units; i += WG) {
        let row = first + i / units;
        let place = i % units;
        let position = step[step[STEP_POSITIONS] + row];
        let at = row_at(step[step[p.tables] + row], position, head.head, p.n_kv_heads, quads);
        var values = array<vec4<f32>, UNIT>();
        for (var j = 0u; j < UNIT; j++) { values[j] = stored(row, head.start + (place * UNIT + j) * 4u); }
        if (head.is_v) { v_put(at, place, quads, values); } else { k_put(at, place, quads, values); }
    }
}
