// attend for many rows of a sequence (prefill): one workgroup per tile of 16 rows and query head, online softmax over
// tiles of KT positions. Four invocations per row, each with every fourth quad of q and of the result in registers.
//
// V_IN_K: values are the first elements of their keys.
#import grid
#import step
#import kv
#import kv_get
#import scores

struct Params {
    q_start: u32,
    q_stride: u32,
    k_dim: u32,
    v_dim: u32,
    n_heads: u32,
    n_kv_heads: u32,
    n_blocks: u32,
    tables: u32,    // the word of the step that says where the group's page tables begin
    window: u32,
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
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> q: array<f32>;
@group(0) @binding(3) var<storage, read> k_pages: array<Quad>;
#ifndef V_IN_K
@group(0) @binding(4) var<storage, read> v_pages: array<Quad>;
#endif
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

const LOW: f32 = -1e30;
const ROWS: u32 = 16u;
const K_OWN: u32 = (KQ + 3u) / 4u; // quads of q that an invocation holds
const V_OWN: u32 = (VQ + 3u) / 4u;
#ifdef V_IN_K
const V_STRIDE: u32 = KQ; // the tile of K stays
#else
const V_STRIDE: u32 = VQ;
#endif

var<workgroup> kv_s: array<vec4<f32>, KT * max(KQ, VQ)>; // a tile of K, then of V
var<workgroup> part_s: array<vec4<f32>, ROWS * KT>;      // the four invocations' shares of each score

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let id = flat_id(wid, n_wg);
    let head = id % p.n_heads;
    if (id / p.n_heads >= step[STEP_N_TILES]) { return; }
    let tile = step[STEP_TILES] + id / p.n_heads * 4u;
    let n_rows = step[tile + 1u];
    let first = step[tile + 2u]; // position of the tile's first row
    let pages = step[step[p.tables] + step[tile]];
    let kv_head = head / (p.n_heads / p.n_kv_heads);
    let i = lid / 4u;
    let own = lid % 4u;
    let row = step[tile] + min(i, n_rows - 1u);
    let position = first + min(i, n_rows - 1u);

    var q_own = array<vec4<f32>, K_OWN>();
    for (var n = 0u; n < K_OWN; n++) {
        let col = (own + 4u * n) * 4u;
        for (var c = 0u; c < 4u; c++) {
            if (col + c < p.k_dim) {
                q_own[n][c] = q[row * p.q_stride + p.q_start + head * p.k_dim + col + c] * query_scale(position);
            }
        }
    }
    var acc = array<vec4<f32>, V_OWN>();
    var top = LOW;
    var total = 0.0;
    let low = seen_from(row, position);
    let high = seen_to(row, position);
    let lowest = seen_from(step[tile], first); // in front of it any page may stand
    let begin = lowest / KT * KT;
    let end = seen_to(step[tile] + n_rows - 1u, first + n_rows - 1u);
    for (var base = begin; base < end; base += KT) {
        let n = min(KT, end - base);
        workgroupBarrier();
        for (var at = lid; at < KT * KQ; at += 64u) {
            let j = at / KQ;
            var v = vec4(0.0);
            if (j < n && base + j >= lowest) {
                v = k_quad(row_at(pages, base + j, kv_head, p.n_kv_heads, KQ), at % KQ, KQ);
            }
            kv_s[at] = v;
        }
        workgroupBarrier();
        for (var j = 0u; j < KT; j++) {
            var sum = 0.0;
            for (var m = 0u; m < K_OWN; m++) {
                let quad = own + 4u * m;
                if (quad < KQ) { sum += dot(q_own[m], kv_s[j * KQ + quad]); }
            }
            part_s[i * KT + j][own] = sum;
        }
        workgroupBarrier();
#ifndef V_IN_K
        for (var at = lid; at < KT * VQ; at += 64u) {
            let j = at / VQ;
            var v = vec4(0.0);
            if (j < n && base + j >= lowest) {
                v = v_quad(row_at(pages, base + j, kv_head, p.n_kv_heads, VQ), at % VQ, VQ);
            }
            kv_s[at] = v;
        }
#endif
        var weight = array<f32, KT>();
        var m = top;
        for (var j = 0u; j < KT; j++) {
            let seen = base + j >= low && base + j < high;
            let score = finish_score(dot(part_s[i * KT + j], vec4(1.0)), head, f32(position) - f32(base + j));
            weight[j] = select(LOW, score, seen);
            m = max(m, weight[j]);
        }
        let keep = exp(top - m);
        top = m;
        total *= keep;
        for (var j = 0u; j < KT; j++) {
            let seen = base + j >= low && base + j < high;
            weight[j] = select(0.0, exp(weight[j] - m), seen);
            total += weight[j];
        }
        workgroupBarrier();
        for (var o = 0u; o < V_OWN; o++) {
            let quad = own + 4u * o;
            if (quad < VQ) {
                var v = acc[o] * keep;
                for (var j = 0u; j < KT; j++) { v += weight[j] * kv_s[j * V_STRIDE + quad]; }
                acc[o] = v;
            }
        }
    }
    if (i >= n_rows) { return; }
#ifdef SINKS
    let shrink = with_sink(top, head);
    total = total * shrink.x + shrink.y;
    for (var o = 0u; o < V_OWN; o++) { acc[o] *= shrink.x; }
#endif
    for (var o = 0u; o < V_OWN; o++) {
        let col = (own + 4u * o) * 4u;
        for (var c = 0u; c < 4u; c++) {
            if (col + c < p.v_dim) { out[(row * p.n_heads + head) * p.v_dim + col + c] = acc[o][c] / total; }
        }
    }
}
