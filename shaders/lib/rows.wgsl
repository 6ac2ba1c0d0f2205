// Rows of activations by quads of 4 columns. A kernel that imports this has the parameters `cols` and `x_stride` (columns from a
// row to the next) and a binding `x`.
// With RAGGED the columns are no multiple of 32: those beyond the last read as zero.

#ifdef RAGGED
fn x_quad(row: u32, quad: u32) -> vec4<f32> {
    let col = quad * 4u;
    let at = row * p.x_stride + col;
    var v = vec4(0.0);
    if (col < p.cols) { v.x = x[at]; }
    if (col + 1u < p.cols) { v.y = x[at + 1u]; }
    if (col + 2u < p.cols) { v.z = x[at + 2u]; }
    if (col + 3u < p.cols) { v.w = x[at + 3u]; }
    return v;
}

fn x_element(row: u32, col: u32) -> f32 {
    return x[row * p.x_stride + col];
}
#else
fn x_quad(row: u32, quad: u32) -> vec4<f32> {
    return x[row * (p.x_stride / 4u) + quad];
}

fn x_element(row: u32, col: u32) -> f32 {
    return x[row * (p.x_stride / 4u) + col / 4u][col % 4u];
}
#endif
