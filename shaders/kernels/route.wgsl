// route: the experts of each row by its logits, and their weights. One workgroup per row.
//
// Scores by a feature: SOFTMAX over all, SIGMOID of each, SQRT_SOFTPLUS, PICKED_SOFTMAX: the logits choose, and the
// softmax is over the chosen, or SPARSE_MIXER: the logits choose, and each softmax is over those left that are near. BIAS: a summand on what chooses. GROUPS: first the groups with the largest sums of their two
// best are chosen. Of equals the first is taken; damaged values come last.
#import grid
#import step
#import reduce
#ifdef BIAS
#import constants
#endif
#ifdef SQRT_SOFTPLUS
#import softplus
#endif

struct Params {
    rows_at: u32,
    n: u32,           // experts, at most E
    used: u32,        // experts of a row
    groups: u32,      // of neighbours
    groups_used: u32,
    renorm: u32,      // 1: weights are divided by their sum
    scale: f32,       // on the weights
    bias_at: u32,     // with BIAS
    within: f32,      // with SPARSE_MIXER: how far below the chosen one others are near, relatively
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>; // per row: indices, then weights as the bits of floats

// The least sum that weights are divided by: the smallest normal half.
const MIN_SUM: f32 = 6.1035156e-5;
const LOW: f32 = -3.0e38;
const LEAST: u32 = 0x007fffffu; // the rank of minus infinity; 0 is what was taken

var<workgroup> score_s: array<f32, E>;
var<workgroup> rank_s: array<u32, E>;
var<workgroup> best_rank_s: array<u32, WG>;
var<workgroup> best_s: array<u32, WG>;
#ifdef GROUPS
var<workgroup> group_s: array<f32, E>;
#endif

// Orders floats as unsigned integers; NaN is as minus infinity.
fn rank_of(v: f32) -> u32 {
    let bits = bitcast<u32>(v);
    if ((bits & 0x7fffffffu) > 0x7f800000u) { return LEAST; }
    return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

fn value_of(rank: u32) -> f32 {
    return bitcast<f32>(select(~rank, rank & 0x7fffffffu, (rank & 0x80000000u) != 0u));
}

// The place of the largest rank, of equals the first; every invocation gets it.
fn largest(lid: u32) -> u32 {
    var rank = 0u;
    var at = 0u;
    for (var i = lid; i < p.n; i += WG) {
        if (rank_s[i] > rank) {
            rank = rank_s[i];
            at = i;
        }
    }
    workgroupBarrier();
    best_rank_s[lid] = rank;
    best_s[lid] = at;
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lid < half) {
            let other = best_rank_s[lid + half];
            let there = best_s[lid + half];
            if (other > best_rank_s[lid] || (other == best_rank_s[lid] && there < best_s[lid])) {
                best_rank_s[lid] = other;
                best_s[lid] = there;
            }
        }
    }
    workgroupBarrier();
    return best_s[0];
}

#ifdef GROUPS
// Leaves the ranks of the chosen groups and makes the others the least.
fn leave_groups(lid: u32) {
    let size = p.n / p.groups;
    for (var g = lid; g < p.groups; g += WG) {
        var first = 0u;
        var second = 0u;
        for (var i = g * size; i < (g + 1u) * size; i++) {
            let rank = rank_s[i];
            second = max(second, min(first, rank));
            first = max(first, rank);
        }
        // What is missing, or least, counts as very low.
        var sum = LOW;
        if (first > LEAST) { sum = value_of(first); }
        if (size > 1u) { sum = select(LOW, sum + value_of(second), second > LEAST); }
        group_s[g] = sum;
    }
    workgroupBarrier();
    for (var i = lid; i < p.n; i += WG) {
        let g = i / size;
        var before = 0u;
        for (var other = 0u; other < p.groups; other++) {
            let better = group_s[other] > group_s[g] || (group_s[other] == group_s[g] && other < g);
            before += u32(better && other != g);
        }
        if (before >= p.groups_used) { rank_s[i] = LEAST; }
    }
    workgroupBarrier();
}
#endif

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
    let row = flat_id(wid, n_wg);
    if (row >= step[p.rows_at]) { return; }
    let at = row * p.n;
#ifdef SUBGROUPS
    let here = Lane(lid, lane, subgroup, n_subgroups);
#else
    let here = Lane(lid);
#endif
#ifdef SOFTMAX
    var top = LOW;
    for (var i = lid; i < p.n; i += WG) { top = max(top, x[at + i]); }
    top = reduce_max(here, top);
    var sum = 0.0;
    for (var i = lid; i < p.n; i += WG) { sum += exp(x[at + i] - top); }
    sum = reduce_sum(here, sum);
#endif
    for (var i = lid; i < p.n; i += WG) {
        var score = x[at + i];
#ifdef SOFTMAX
        score = exp(score - top) / sum;
#endif
#ifdef SIGMOID
        score = 1.0 / (1.0 + exp(-score));
#endif
#ifdef SQRT_SOFTPLUS
        score = sqrt(softplus(score));
#endif
        score_s[i] = score;
#ifdef BIAS
        rank_s[i] = rank_of(score + constant(p.bias_at + i));
#else
        rank_s[i] = rank_of(score);
#endif
    }
    workgroupBarrier();
#ifdef GROUPS
    leave_groups(lid);
#endif
    for (var j = 0u; j < p.used; j++) {
        let chosen = largest(lid);
        workgroupBarrier();
        var weight = score_s[chosen];
#ifdef SPARSE_MIXER
        weight = share(here, weight);
#endif
        if (lid == 0u) {
            out[row * 2u * p.used + j] = chosen;
            put_weight(row, j, weight);
            rank_s[chosen] = 0u;
        }
        workgroupBarrier();
    }
    if (lid == 0u) { weigh(row); }
}

#ifdef SPARSE_MIXER
// What the largest logit has of the softmax over those that are left near it; every invocation gets it.
fn share(here: Lane, top: f32) -> f32 {
    var sum = 0.0;
    for (var i = here.lid; i < p.n; i += WG) {
        let v = score_s[i];
        let far = top - v > p.within * max(abs(v), top);
        if (rank_s[i] != 0u && !far) { sum += exp(v - top); }
    }
    return 1.0 / reduce_sum(here, sum);
}
#endif

fn put_weight(row: u32, j: u32, weight: f32) {
    out[row * 2u * p.used + p.used + j] = bitcast<u32>(weight);
}

fn weight_of(row: u32, j: u32) -> f32 {
    return bitcast<f32>(out[row * 2u * p.used + p.used + j]);
}

// Makes the chosen scores the weights.
fn weigh(row: u32) {
#ifdef PICKED_SOFTMAX
    // The first is the largest.
    let top = weight_of(row, 0u);
    var all = 0.0;
    for (var j = 0u; j < p.used; j++) {
        let e = exp(weight_of(row, j) - top);
        all += e;
        put_weight(row, j, e);
    }
    for (var j = 0u; j < p.used; j++) { put_weight(row, j, weight_of(row, j) / all); }
#endif
    var factor = p.scale;
    if (p.renorm == 1u) {
        var sum = 0.0;
        for (var j = 0u; j < p.used; j++) { sum += weight_of(row, j); }
        factor /= max(sum, MIN_SUM);
    }
    for (var j = 0u; j < p.used; j++) { put_weight(row, j, weight_of(row, j) * factor); }
}
