// select: for each row the positions up to its own whose keys are most alike to it, `top` of them in rising order; of equal ones
// the first. One workgroup per row.
//
// The least score that is chosen is found by its digits, from the highest on: a turn over all positions counts the scores that
// have the digits known so far by their next one. The last turn writes. Scores are computed anew in each turn, by one piece of
// code, so that they have the same bits in all of them. Where there are no more positions than are chosen, nothing is computed.
#import grid
#import step
#import kv
#import kv_get

struct Params {
    q_start: u32,
    q_stride: u32,
    weights_start: u32, // of heads
    weights_stride: u32,
    k_dim: u32,
    n_heads: u32,
    top: u32,
    tables: u32, // the word of the step that says where the group's page tables begin
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> q: array<f32>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;
@group(0) @binding(4) var<storage, read> k_pages: array<Quad>;
@group(0) @binding(5) var<storage, read_write> out: array<u32>; // [row][top]

const BINS: u32 = 2048u;
const OWN: u32 = BINS / WG;          // bins that an invocation adds up
const TURNS: u32 = 3u;               // digits of 11, 11 and 10 bits
const HEADS: u32 = max(256u / KQ, 1u); // of queries that are in workgroup memory at once
const NOWHERE: u32 = 0xffffffffu;    // in place of a position: there are fewer
const LEAST: u32 = 0x007fffffu;      // the rank of minus infinity

var<workgroup> q_s: array<vec4<f32>, HEADS * KQ>;
var<workgroup> bins_s: array<atomic<u32>, BINS>;
var<workgroup> sum_s: array<u32, WG>;
var<workgroup> found_s: array<u32, 2>; // a digit, and how many scores have a larger one

// Orders floats as unsigned integers; NaN is as minus infinity.
fn rank_of(v: f32) -> u32 {
    let bits = bitcast<u32>(v);
    if ((bits & 0x7fffffffu) > 0x7f800000u) { return LEAST; }
    return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

fn q_or_zero(row: u32, head: u32, col: u32) -> f32 {
    if (head < p.n_heads && col < p.k_dim) { return q[row * p.q_stride + p.q_start + head * p.k_dim + col]; }
    return 0.0;
}

// Scores of a position for each invocation, whose key begins at `at`.
fn score(lid: u32, row: u32, at: u32) -> f32 {
    var key = array<vec4<f32>, KQ>();
    for (var i = 0u; i < KQ; i++) { key[i] = k_quad(at, i, KQ); }
    var sum = 0.0;
    for (var first = 0u; first < p.n_heads; first += HEADS) {
        workgroupBarrier();
        for (var i = lid; i < HEADS * KQ; i += WG) {
            let head = first + i / KQ;
            let col = i % KQ * 4u;
            q_s[i] = vec4(
                q_or_zero(row, head, col), q_or_zero(row, head, col + 1u),
                q_or_zero(row, head, col + 2u), q_or_zero(row, head, col + 3u),
            );
        }
        workgroupBarrier();
        for (var h = 0u; h < min(HEADS, p.n_heads - first); h++) {
            var alike = 0.0;
            for (var i = 0u; i < KQ; i++) { alike += dot(key[i], q_s[h * KQ + i]); }
            sum += weights[row * p.weights_stride + p.weights_start + first + h] * max(alike, 0.0);
        }
    }
    return sum;
}

// The sums of `sum_s` up to and with each invocation's own, in its place.
fn add_up(lid: u32) {
    for (var gap = 1u; gap < WG; gap *= 2u) {
        workgroupBarrier();
        let before = select(0u, sum_s[max(lid, gap) - gap], lid >= gap);
        workgroupBarrier();
        sum_s[lid] += before;
    }
    workgroupBarrier();
}

// Finds the digit of the `wanted`th largest of the scores that were counted.
fn find_digit(lid: u32, wanted: u32) {
    // Bins from the highest on.
    var own = 0u;
    for (var i = 0u; i < OWN; i++) { own += atomicLoad(&bins_s[BINS - 1u - lid * OWN - i]); }
    sum_s[lid] = own;
    add_up(lid);
    var above = sum_s[lid] - own;
    if (above < wanted && sum_s[lid] >= wanted) {
        for (var i = 0u; i < OWN; i++) {
            let bin = BINS - 1u - lid * OWN - i;
            let n = atomicLoad(&bins_s[bin]);
            if (above < wanted && above + n >= wanted) {
                found_s[0] = bin;
                found_s[1] = above;
            }
            above += n;
        }
    }
    workgroupBarrier();
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let row = flat_id(wid, n_wg);
    if (row >= step[STEP_N_TOKENS]) { return; }
    let n = step[step[STEP_POSITIONS] + row] + 1u;
    let pages = step[step[p.tables] + row];
    let to = row * p.top;
    if (n <= p.top) {
        for (var i = lid; i < p.top; i += WG) { out[to + i] = select(NOWHERE, i, i < n); }
        return;
    }
    var known = 0u;   // mask of the digits that are known
    var least = 0u;   // those digits
    var wanted = p.top; // of the scores that have them
    var larger = 0u;  // in the last turn: larger scores up to here
    var equal = 0u;   // and equal ones
    for (var turn = 0u; turn <= TURNS; turn++) {
        let shift = select(select(0u, 10u, turn == 1u), 21u, turn == 0u);
        let digits = select(1023u, 2047u, turn < 2u);
        for (var i = lid; i < BINS; i += WG) { atomicStore(&bins_s[i], 0u); }
        for (var base = 0u; base < n; base += WG) {
            let position = min(base + lid, n - 1u);
            let inside = base + lid < n;
            let rank = rank_of(score(lid, row, row_at(pages, position, 0u, 1u, KQ)));
            if (turn < TURNS) {
                if (inside && (rank & known) == least) { atomicAdd(&bins_s[(rank >> shift) & digits], 1u); }
            } else {
                let is_larger = inside && rank > least;
                let is_equal = inside && rank == least;
                // Counts of larger ones and, above them, of equal ones.
                let both = u32(is_larger) | (u32(is_equal) << 16u);
                workgroupBarrier();
                sum_s[lid] = both;
                add_up(lid);
                let before = sum_s[lid] - both;
                let all = sum_s[WG - 1u];
                let equal_before = equal + (before >> 16u);
                if (is_larger || (is_equal && equal_before < wanted)) {
                    let place = larger + (before & 0xffffu) + min(equal_before, wanted);
                    if (place < p.top) { out[to + place] = position; }
                }
                larger += all & 0xffffu;
                equal += all >> 16u;
            }
        }
        workgroupBarrier();
        if (turn < TURNS) {
            find_digit(lid, wanted);
            least |= found_s[0] << shift;
            known |= digits << shift;
            wanted -= found_s[1];
            workgroupBarrier();
        }
    }
}
