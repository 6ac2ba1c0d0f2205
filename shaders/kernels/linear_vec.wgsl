// linear for few rows: out = x * w^T. Four columns of the result per workgroup, K split over its invocations, ROWS rows of
// x at once. Each invocation has a unit of w; rows of x come through workgroup memory, where all invocations fetch them
// together and each then finds its own 32 columns without sharing a bank.
//
// NORM: x is normalised on the way; its factor is common to a row, so it is applied to the sums.
#import linear
#ifdef NORM
#import constants
#endif

#ifdef SUBGROUPS
const PARTS: u32 = WG / 4u; // a subgroup has at least 4 invocations
#else
const PARTS: u32 = WG;
#endif
#ifdef DOT4
var<workgroup> work_s: array<vec4<f32>, PARTS * ROWS>;
#else
// Of x, quad i of unit u of WG units at i * SPAN + u; then the sums.
const SPAN: u32 = WG + 1u;
var<workgroup> work_s: array<vec4<f32>, max(8u * SPAN, PARTS * ROWS)>;
#endif
#ifdef NORM
var<workgroup> squares_s: array<f32, PARTS * ROWS>;
#endif

#ifndef DOT4
fn x_unit(u: u32) -> Vecs {
    return Vecs(
        work_s[u], work_s[SPAN + u], work_s[2u * SPAN + u], work_s[3u * SPAN + u],
        work_s[4u * SPAN + u], work_s[5u * SPAN + u], work_s[6u * SPAN + u], work_s[7u * SPAN + u],
    );
}
#endif

// Finishes the four sums of one row.
fn finish_four(row: u32, n: u32, v: vec4<f32>) {
#ifdef GLU
    finish(row, n, v.x, v.z);
    finish(row, n + 1u, v.y, v.w);
#else
    for (var i = 0u; i < 4u; i++) { finish(row, n + i, v[i]); }
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
    let rows = step[p.rows_at];
    let id = flat_id(wid, n_wg);
#ifdef GLU
    let blocks = (p.n + 1u) / 2u;
    let n = id % blocks * 2u;
    let n1 = min(n + 1u, p.n - 1u);
    let r = (vec4(n, n1, p.pair + n, p.pair + n1) + p.w_row) * p.units;
#else
    let blocks = (p.n + 3u) / 4u;
    let n = id % blocks * 4u;
    let r = (min(vec4(n, n + 1u, n + 2u, n + 3u), vec4(p.n - 1u)) + p.w_row) * p.units;
#endif
    let first = id / blocks * ROWS;
    if (first >= rows) { return; }
    var sums = array<vec4<f32>, ROWS>();
#ifdef NORM
    var squares = array<f32, ROWS>();
#endif
#ifdef DOT4
    for (var u = lid; u < p.units; u += WG) {
        let a = load_unit(r.x + u);
        let b = load_unit(r.y + u);
        let c = load_unit(r.z + u);
        let d = load_unit(r.w + u);
        for (var m = 0u; m < ROWS; m++) {
            let row = min(first + m, rows - 1u);
            let at = row * p.units + u;
            let lo = x[2u * at];
            let hi = x[2u * at + 1u];
            let s = x_scale[at];
            sums[m] += vec4(
                unit_dot_bytes(a, lo, hi, s), unit_dot_bytes(b, lo, hi, s),
                unit_dot_bytes(c, lo, hi, s), unit_dot_bytes(d, lo, hi, s),
            );
        }
    }
#else
    for (var base = 0u; base < p.units; base += WG) {
        let u = min(base + lid, p.units - 1u);
        let a = load_unit(r.x + u);
        let b = load_unit(r.y + u);
        let c = load_unit(r.z + u);
        let d = load_unit(r.w + u);
        let quads = min(p.units - base, WG) * 8u;
        for (var m = 0u; m < ROWS; m++) {
            let row = min(first + m, rows - 1u);
            workgroupBarrier();
            for (var i = lid; i < quads; i += WG) {
                var v = x_quad(row, base * 8u + i);
#ifdef NORM
                squares[m] += dot(v, v);
                v *= constant_quad(p.norm_at + 4u * (base * 8u + i));
#endif
                work_s[i % 8u * SPAN + i / 8u] = v;
            }
            workgroupBarrier();
            if (base + lid < p.units) {
                let v = x_unit(lid);
                let halves = vecs_sums(v);
                sums[m] += vec4(unit_dot(a, v, halves), unit_dot(b, v, halves), unit_dot(c, v, halves), unit_dot(d, v, halves));
            }
        }
    }
#endif
    // The invocations' sums, together.
#ifndef DOT4
    workgroupBarrier();
#endif
#ifdef SUBGROUPS
    for (var m = 0u; m < ROWS; m++) {
        let part = subgroupAdd(sums[m]);
        if (lane == 0u) { work_s[m * PARTS + subgroup] = part; }
#ifdef NORM
        let square = subgroupAdd(squares[m]);
        if (lane == 0u) { squares_s[m * PARTS + subgroup] = square; }
#endif
    }
    workgroupBarrier();
    let n_parts = n_subgroups;
#else
    for (var m = 0u; m < ROWS; m++) {
        work_s[m * PARTS + lid] = sums[m];
#ifdef NORM
        squares_s[m * PARTS + lid] = squares[m];
#endif
    }
    for (var half = WG / 2u; half >= 4u; half /= 2u) {
        workgroupBarrier();
        if (lid < half) {
            for (var m = 0u; m < ROWS; m++) {
                work_s[m * PARTS + lid] += work_s[m * PARTS + lid + half];
#ifdef NORM
                squares_s[m * PARTS + lid] += squares_s[m * PARTS + lid + half];
#endif
            }
        }
    }
    workgroupBarrier();
    let n_parts = 4u;
#endif
    if (lid >= ROWS || first + lid >= rows) { return; }
    var total = vec4(0.0);
#ifdef NORM
    var square = 0.0;
#endif
    for (var i = 0u; i < n_parts; i++) {
        total += work_s[lid * PARTS + i];
#ifdef NORM
        square += squares_s[lid * PARTS + i];
#endif
    }
#ifdef NORM
    total *= inverseSqrt(square / f32(p.cols) + p.eps);
#endif
    finish_four(first + lid, n, total);
}
