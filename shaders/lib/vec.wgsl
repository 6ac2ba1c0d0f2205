// What products of few rows share: workgroup memory, and the end of four neighbouring columns of a row.

#ifdef SUBGROUPS
const PARTS: u32 = WG / 4u; // a subgroup has at least 4 invocations
#else
const PARTS: u32 = WG;
#endif
#ifdef OWNED
#import vec_owned
#else
#ifdef DOT4
#import bytes
#ifndef BYTES
#import x_vecs
#endif
var<workgroup> work_s: array<vec4<f32>, PARTS * ROWS>;
#else
// Of x, quad i of unit u of WG units at i * SPAN + u; then the sums.
const SPAN: u32 = WG + 1u;
var<workgroup> work_s: array<vec4<f32>, max(8u * SPAN, PARTS * ROWS)>;
#endif
#endif
#ifdef NORM
var<workgroup> squares_s: array<f32, PARTS * ROWS>;
#endif

#ifndef OWNED
#ifndef DOT4
fn x_unit(u: u32) -> Vecs {
    return Vecs(
        work_s[u], work_s[SPAN + u], work_s[2u * SPAN + u], work_s[3u * SPAN + u],
        work_s[4u * SPAN + u], work_s[5u * SPAN + u], work_s[6u * SPAN + u], work_s[7u * SPAN + u],
    );
}
#endif
#endif

// Finishes the four sums of one row.
fn finish_four(row: u32, n: u32, v: vec4<f32>) {
#ifdef QKV
    finish_heads(row, n, v);
#else
#ifdef GLU
    finish(row, n, v.x, v.z);
    finish(row, n + 1u, v.y, v.w);
#else
    for (var i = 0u; i < 4u; i++) { finish(row, n + i, v[i]); }
#endif
#endif
}
