// top_k: the K largest logits of each row as pairs (value, token) in falling order, ties to the smaller token, and the
// row's maximum and sum of exp(logit - maximum). One workgroup sorts 1024 values; applied again to its own results until
// one workgroup per row is left.
//
// FIRST: the input is rows of logits. Otherwise it is pairs and statistics as this kernel writes them.
#import grid
#import step
#import reduce

struct Params {
    n: u32,       // logits, or pairs, per row of the input
    chunks: u32,  // workgroups per row: n / 1024, rounded up
    n_stats: u32, // without FIRST: statistics per row of the input
}

@group(0) @binding(0) var<uniform> p: Params;
#ifdef FIRST
@group(0) @binding(2) var<storage, read> logits: array<f32>;
#else
@group(0) @binding(2) var<storage, read> pairs: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> stats: array<vec2<f32>>;
#endif
@group(0) @binding(4) var<storage, read_write> out_pairs: array<vec2<u32>>; // [row][chunk][K]
@group(0) @binding(5) var<storage, read_write> out_stats: array<vec2<f32>>; // [row][chunk]

const N: u32 = 1024u;
const NO_TOKEN: u32 = 0xffffffffu;
const LOW: f32 = -1e30;

var<workgroup> value_s: array<f32, N>;
var<workgroup> token_s: array<u32, N>;

// Whether pair a stands before pair b.
fn before(a: u32, b: u32) -> bool {
    return value_s[a] > value_s[b] || (value_s[a] == value_s[b] && token_s[a] < token_s[b]);
}

fn sort(lid: u32) {
    for (var size = 2u; size <= N; size *= 2u) {
        for (var gap = size / 2u; gap > 0u; gap /= 2u) {
            workgroupBarrier();
            for (var i = lid; i < N / 2u; i += WG) {
                let a = i / gap * 2u * gap + i % gap;
                let b = a + gap;
                let falling = (a & size) == 0u;
                if (before(b, a) == falling) {
                    let v = value_s[a];
                    let t = token_s[a];
                    value_s[a] = value_s[b];
                    token_s[a] = token_s[b];
                    value_s[b] = v;
                    token_s[b] = t;
                }
            }
        }
    }
    workgroupBarrier();
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
    let id = flat_id(wid, n_wg);
    let row = id / p.chunks;
    let chunk = id % p.chunks;
    if (row >= step[STEP_N_OUTPUTS]) { return; }
#ifdef SUBGROUPS
    let here = Lane(lid, lane, subgroup, n_subgroups);
#else
    let here = Lane(lid);
#endif
    for (var i = lid; i < N; i += WG) {
        let at = chunk * N + i;
        var value = bitcast<f32>(step[STEP_MINUS_INFINITY]);
        var token = NO_TOKEN;
        if (at < p.n) {
#ifdef FIRST
            value = logits[row * p.n + at];
            token = at;
#else
            let pair = pairs[row * p.n + at];
            value = bitcast<f32>(pair.x);
            token = pair.y;
#endif
        }
        value_s[i] = value;
        token_s[i] = token;
    }
    // Maximum and sum of exponentials, over the logits or over the parts' statistics.
    var top = LOW;
    var sum = 0.0;
#ifdef FIRST
    for (var i = lid; i < N; i += WG) { top = max(top, value_s[i]); }
    top = reduce_max(here, top);
    for (var i = lid; i < N; i += WG) { sum += exp(value_s[i] - top); }
#else
    // The statistics are shared out evenly over the row's workgroups.
    let share = (p.n_stats + p.chunks - 1u) / p.chunks;
    let begin = min(chunk * share, p.n_stats);
    let end = min(begin + share, p.n_stats);
    for (var i = begin + lid; i < end; i += WG) { top = max(top, stats[row * p.n_stats + i].x); }
    top = reduce_max(here, top);
    for (var i = begin + lid; i < end; i += WG) {
        let part = stats[row * p.n_stats + i];
        sum += part.y * exp(part.x - top);
    }
#endif
    sum = reduce_sum(here, sum);
    sort(lid);
    for (var i = lid; i < K; i += WG) {
        out_pairs[id * K + i] = vec2(bitcast<u32>(value_s[i]), token_s[i]);
    }
    if (lid == 0u) { out_stats[id] = vec2(top, sum); }
}
