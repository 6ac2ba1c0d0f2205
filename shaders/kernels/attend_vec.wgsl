// attend for single rows (decode): one workgroup per row, block of GROUP query heads of one KV head, and split of the
// positions. Each invocation scores one position of a block of WG, then the invocations share out the quads of V.
// With one split the result is final; with more, maximum, sum and unscaled result go to `parts` for attend_merge.
//
// COHERENT: instead, the workgroup that finishes last of a block's splits joins them: see last.
// V_IN_K: values are the first elements of their keys.
//
// CHOSEN: for any row, which sees of the positions that were chosen for it those that it would see otherwise. They are its
// list of positions, which is not split.
#import grid
#import step
#import kv
#import kv_get
#import scores
#ifdef COHERENT
#import last
#import splits
#endif

struct Params {
    q_start: u32,
    q_stride: u32,
    k_dim: u32,
    v_dim: u32,
    n_heads: u32,
    n_kv_heads: u32,
    n_blocks: u32,  // of GROUP query heads per KV head
    tables: u32,    // the word of the step that says where the group's page tables begin
    window: u32,    // positions a row sees, itself included; with BOTH those on each side of it
    scale: f32,
    cap: f32,       // with CAP
    slopes_at: u32, // with SLOPES
    sinks_at: u32,  // with SINKS
    heat: f32,      // with HEAT: of the logarithm
    heat_length: f32,
    heat_offset: f32,
#ifdef CHUNK
    chunk: u32,     // positions of a run
#endif
#ifdef RELATIVE
    relative_at: u32, // a bucket's summands for all heads, one bucket after the other
    buckets_at: u32,  // where buckets begin, as floats
    n_buckets: u32,   // of one direction
#endif
#ifdef CHOSEN
    top: u32,       // positions that are chosen for a row at most
#endif
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> q: array<f32>;
@group(0) @binding(3) var<storage, read> k_pages: array<Quad>;
#ifndef V_IN_K
@group(0) @binding(4) var<storage, read> v_pages: array<Quad>;
#endif
@group(0) @binding(5) var<storage, read_write> out: array<f32>;
#ifdef CHOSEN
@group(0) @binding(8) var<storage, read> chosen: array<u32>; // as select writes them
#else
// [single][head][split][1 + VQ]: (maximum, sum, -, -), then the result
#ifdef COHERENT
@coherent
#endif
@group(0) @binding(6) var<storage, read_write> parts: array<vec4<f32>>;
#endif
#ifdef COHERENT
// [single][kv_head][block]: splits that are done; 0 again behind the last.
@coherent
@group(0) @binding(7) var<storage, read_write> finished: array<atomic<u32>>;
#endif

const LOW: f32 = -1e30; // below any score; finite, so that differences stay numbers
const SUBSETS: u32 = max(WG / VQ, 1u); // of a block's positions, shared out over the invocations; VQ is at most WG

const PARTS: u32 = 16u;

var<workgroup> q_s: array<vec4<f32>, GROUP * KQ>;
var<workgroup> score_s: array<f32, GROUP * WG>;
var<workgroup> part_s: array<f32, GROUP * PARTS>; // of maxima, and of sums
#ifdef CHOSEN
var<workgroup> place_s: array<u32, WG>;           // of the block's positions: rows of the cache
#else
var<workgroup> pages_s: array<u32, WG / PAGE>;    // of the block's positions
#endif
var<workgroup> out_s: array<vec4<f32>, WG>;

// A quad of the value at a place in the block.
fn value_at(place: u32, kv_head: u32, quad: u32) -> vec4<f32> {
#ifdef V_IN_K
    return k_quad(block_at(place, kv_head, KQ), quad, KQ);
#else
    return v_quad(block_at(place, kv_head, VQ), quad, VQ);
#endif
}

// Where a head's row of a position begins, by its place in the block.
fn block_at(place: u32, kv_head: u32, quads: u32) -> u32 {
#ifdef CHOSEN
    return place_s[place] * kv_row(quads);
#else
    return ((pages_s[place / PAGE] * p.n_kv_heads + kv_head) * PAGE + place % PAGE) * kv_row(quads);
#endif
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    var id = flat_id(wid, n_wg);
#ifdef CHOSEN
    let n_splits = 1u;
#else
    let n_splits = step[STEP_N_SPLITS];
#endif
    let split = id % n_splits;
    id /= n_splits;
    let block = id % p.n_blocks;
    id /= p.n_blocks;
    let kv_head = id % p.n_kv_heads;
    let single = id / p.n_kv_heads;
#ifdef CHOSEN
    let row = single;
    if (row >= step[STEP_N_TOKENS]) { return; }
#else
    if (single >= step[STEP_N_SINGLES]) { return; }
    let row = step[step[STEP_SINGLES] + single];
#endif
    let position = step[step[STEP_POSITIONS] + row];
    let pages = step[step[p.tables] + row];
    let per_kv = p.n_heads / p.n_kv_heads;
    let n_group = min(GROUP, per_kv - block * GROUP);
    let head0 = kv_head * per_kv + block * GROUP;

    for (var i = lid; i < GROUP * KQ; i += WG) {
        let head = i / KQ;
        let col = i % KQ * 4u;
        var v = vec4(0.0);
        for (var c = 0u; c < 4u; c++) {
            if (head < n_group && col + c < p.k_dim) {
                v[c] = q[row * p.q_stride + p.q_start + (head0 + head) * p.k_dim + col + c] * query_scale(position);
            }
        }
        q_s[i] = v;
    }

    var top = array<f32, GROUP>();
    var total = array<f32, GROUP>(); // of this invocation's own positions
    var acc = array<vec4<f32>, GROUP>();
    for (var h = 0u; h < GROUP; h++) { top[h] = LOW; }
#ifdef CHOSEN
    // Places in the list.
    let low = 0u;
    let end = min(p.top, position + 1u);
    let begin = 0u;
#else
    let low = seen_from(row, position);
    let chunk = step[STEP_CHUNK];
    let end = min((split + 1u) * chunk, seen_to(row, position));
    let begin = max(split * chunk, low / WG * WG);
    let live = splits_seen(row, position, n_splits);
    if (split < live.x || split - live.x >= live.y) { return; }
#endif
    let quad = lid % VQ;
    let subset = lid / VQ;

    // Blocks begin at multiples of WG; chunks are such multiples too.
    for (var base = begin; base < end; base += WG) {
        workgroupBarrier();
#ifdef CHOSEN
        var there = 0u;
        var seen = false;
        if (base + lid < end) {
            there = chosen[row * p.top + base + lid];
            seen = there >= seen_from(row, position) && there < seen_to(row, position);
        }
        there = select(position, there, seen); // which is a position that has a value
        place_s[lid] = (step[pages + there / PAGE] * p.n_kv_heads + kv_head) * PAGE + there % PAGE;
        workgroupBarrier();
#else
        if (lid < WG / PAGE && base + lid * PAGE < end) { pages_s[lid] = step[pages + base / PAGE + lid]; }
        workgroupBarrier();
        let there = base + lid;
        let seen = there >= low && there < end;
#endif
        var score = array<f32, GROUP>();
        if (seen) {
            let at = block_at(lid, kv_head, KQ);
            for (var i = 0u; i < KQ; i++) {
                let k = k_quad(at, i, KQ);
                for (var h = 0u; h < GROUP; h++) { score[h] += dot(k, q_s[h * KQ + i]); }
            }
        }
        for (var h = 0u; h < GROUP; h++) {
            score[h] = finish_score(score[h], head0 + min(h, n_group - 1u), f32(position) - f32(there));
        }
        for (var h = 0u; h < GROUP; h++) { score_s[h * WG + lid] = select(LOW, score[h], seen); }
        workgroupBarrier();
        for (var i = lid; i < GROUP * PARTS; i += WG) {
            let start_at = i / PARTS * WG + i % PARTS * (WG / PARTS);
            var m = score_s[start_at];
            for (var j = 1u; j < WG / PARTS; j++) { m = max(m, score_s[start_at + j]); }
            part_s[i] = m;
        }
        workgroupBarrier();
        for (var h = 0u; h < GROUP; h++) {
            var m = top[h];
            for (var j = 0u; j < PARTS; j++) { m = max(m, part_s[h * PARTS + j]); }
            let keep = exp(top[h] - m);
            top[h] = m;
            let weight = select(0.0, exp(score[h] - m), seen);
            total[h] = total[h] * keep + weight;
            acc[h] *= keep;
            score_s[h * WG + lid] = weight;
        }
        workgroupBarrier();
        if (subset < SUBSETS) {
            let n = min(WG, end - base);
            // Nothing in front of the window: any page may stand there.
            let skipped = max(low, base) - base;
            var j = skipped + (subset + SUBSETS - skipped % SUBSETS) % SUBSETS;
            // Four at once, so that their loads are under way together.
            for (; j + 3u * SUBSETS < n; j += 4u * SUBSETS) {
                let v0 = value_at(j, kv_head, quad);
                let v1 = value_at(j + SUBSETS, kv_head, quad);
                let v2 = value_at(j + 2u * SUBSETS, kv_head, quad);
                let v3 = value_at(j + 3u * SUBSETS, kv_head, quad);
                for (var h = 0u; h < GROUP; h++) {
                    let at = h * WG + j;
                    acc[h] += score_s[at] * v0 + score_s[at + SUBSETS] * v1 + score_s[at + 2u * SUBSETS] * v2
                        + score_s[at + 3u * SUBSETS] * v3;
                }
            }
            for (; j < n; j += SUBSETS) {
                let v = value_at(j, kv_head, quad);
                for (var h = 0u; h < GROUP; h++) { acc[h] += score_s[h * WG + j] * v; }
            }
        }
    }

    // Sums of the weights over all invocations, by parts.
    workgroupBarrier();
    for (var h = 0u; h < GROUP; h++) { score_s[h * WG + lid] = total[h]; }
    workgroupBarrier();
    for (var i = lid; i < GROUP * PARTS; i += WG) {
        let start_at = i / PARTS * WG + i % PARTS * (WG / PARTS);
        var sum = 0.0;
        for (var j = 0u; j < WG / PARTS; j++) { sum += score_s[start_at + j]; }
        part_s[i] = sum;
    }
    for (var h = 0u; h < GROUP; h++) {
        workgroupBarrier();
        out_s[lid] = acc[h];
        workgroupBarrier();
        var sum = 0.0;
        for (var j = 0u; j < PARTS; j++) { sum += part_s[h * PARTS + j]; }
        if (lid < VQ && h < n_group) {
            var v = vec4(0.0);
            for (var j = 0u; j < SUBSETS; j++) { v += out_s[j * VQ + lid]; }
            let head = head0 + h;
            if (n_splits == 1u) {
#ifdef SINKS
                let shrink = with_sink(top[h], head);
                v *= shrink.x;
                sum = sum * shrink.x + shrink.y;
#endif
                v /= sum;
                for (var c = 0u; c < 4u; c++) {
                    let col = lid * 4u + c;
                    if (col < p.v_dim) { out[(row * p.n_heads + head) * p.v_dim + col] = v[c]; }
                }
            }
#ifndef CHOSEN
            if (n_splits > 1u) {
                let at = ((single * p.n_heads + head) * n_splits + split) * (1u + VQ);
                if (lid == 0u) { parts[at] = vec4(top[h], sum, 0.0, 0.0); }
                parts[at + 1u + lid] = v;
            }
#endif
        }
    }
#ifdef COHERENT
    if (n_splits == 1u) { return; }
    if (!is_last(lid, (single * p.n_kv_heads + kv_head) * p.n_blocks + block, live.y)) { return; }
    for (var i = lid; i < n_group * VQ; i += WG) {
        let head = head0 + i / VQ;
        let v = joined(((single * p.n_heads + head) * n_splits + live.x) * (1u + VQ), live.y, VQ, i % VQ, head);
        for (var c = 0u; c < 4u; c++) {
            let col = i % VQ * 4u + c;
            if (col < p.v_dim) { out[(row * p.n_heads + head) * p.v_dim + col] = v[c]; }
        }
    }
#endif
}
