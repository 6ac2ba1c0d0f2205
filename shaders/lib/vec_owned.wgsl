// What products of few rows with OWNED share beside vec: workgroup memory for their sums, and a unit of w with a unit of x, which
// comes from global memory.

var<workgroup> owned_s: array<f32, 4u * ROWS>; // of row m of x and row i of w at 4 m + i

#ifdef DOT4
fn owned_unit(i: u32) -> Unit {
    return load_unit(i);
}

fn owned_dot(a: Unit, row: u32, u: u32) -> f32 {
    let at = row * p.units + u;
    return unit_dot_bytes(a, x[2u * at], x[2u * at + 1u], x_scale(at));
}
#else
#import x_vecs

fn owned_unit(i: u32) -> Floats {
    return unit_floats(load_unit(i));
}

fn owned_dot(a: Floats, x: Vecs) -> f32 {
    return floats_dot(a, x, vecs_sums(x));
}
#endif
