// What the kernels of linear share: parameters, bindings, x by units of w, and the epilogue.
//
// RAGGED: see rows. DOT4: x comes as signed bytes (see quantise). NORM, in linear_vec: x is normalised on the way.
#import grid
#import step
#import dequant
#ifndef DOT4
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
    limit: f32,      // with LIMIT
    up_offset: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
#ifdef DOT4
@group(0) @binding(2) var<storage, read> x: array<vec4<u32>>;      // two per unit
@group(0) @binding(5) var<storage, read> x_scale: array<vec4<f32>>; // one per unit: scale, scaled sums of both halves
#else
#ifdef RAGGED
@group(0) @binding(2) var<storage, read> x: array<f32>;
#else
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
#endif
#endif
@group(0) @binding(3) var<storage, read> w: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
