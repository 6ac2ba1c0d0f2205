// What the kernels of linear share: parameters, bindings, x by units of w, and the epilogue.
//
// STACK: see stacks. RAGGED: see rows. DOT4: x is multiplied as signed bytes, which come ready with
// BYTES (see quantise), and else are made where they are used. NORM, in linear_vec: x is normalised on the way.
#import grid
#import step
#import dequant
#ifndef BYTES
#import rows
#endif
#import then

struct Params {
    rows_at: u32,    // which word of the step holds the row count
    n: u32,          // columns of the result that this dispatch gives
    w_row: u32,      // row of w that gives the first of them
    units: u32,      // of 32 columns of x
    cols: u32,       // of x
    pair: u32,       // with GLU: from a gate's row of w to its up's
    plane1: u32,
    plane2: u32,
    plane3: u32,
    norm_at: u32,    // with NORM: the factors
    eps: f32,
    out_start: u32,  // first column of out, and of the product without GLU
    out_stride: u32, // columns of out
    column_pair: u32, // with GLU: from a gate's column of the product to its up's
    scale_at: u32,   // with SCALE: the factors of all columns of the product
    bias_at: u32,    // with BIAS: their summands
    factor: f32,     // with ADD
    limit: f32,      // with LIMIT, and with CLAMP
    up_offset: f32,
    x_stride: u32,   // columns from a row of x to the next
#ifdef BYTES
    scales_at: u32,  // where the scales of x begin, in vectors
#endif
#ifdef STACK
    used: u32,       // matrices of a row: its picks, or all heads
    own_x: u32,      // 1: each of them has a row of x of its own
    n_stack: u32,         // matrices of the stack
    first_matrix: u32, // the first of those in w
    n_matrices: u32, // in w
    part_rows: u32,  // rows of w from a matrix to the next
    vector_rows: u32, // elements of factors and summands from a matrix to the next
    passed: u32,     // columns behind those of x that are passed on
    passed_at: u32,    // first column of out that takes them
#endif
#ifdef QKV
    n_heads: u32,    // as in the kernel heads
    n_kv_heads: u32,
    head_dim: u32,
    v_dim: u32,
    n_pairs: u32,
    halves: u32,
    magnitude: f32,
    freqs_at: u32,
    tables: u32,
#ifdef COHERENT
    norms: u32,
    q_eps: f32,
    k_eps: f32,
    v_eps: f32,
    q_norm: u32,
    k_norm: u32,
    v_norm: u32,
    q_step: u32,
    k_step: u32,
    v_step: u32,
#endif
#endif
}

@group(0) @binding(0) var<uniform> p: Params;
#ifdef BYTES
@group(0) @binding(2) var<storage, read> x: array<vec4<u32>>; // as quantise writes it: two per unit, then the scales

// The scale of a unit and the scaled sums of its halves.
fn x_scale(unit: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(x[p.scales_at + unit]);
}
#else
#ifdef RAGGED
@group(0) @binding(2) var<storage, read> x: array<f32>;
#else
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
#endif
#endif
@group(0) @binding(3) var<storage, read> w: array<vec4<u32>>;
#ifdef COHERENT
@coherent
#endif
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
