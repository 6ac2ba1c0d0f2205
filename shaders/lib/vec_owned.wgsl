// What products of few rows with OWNED share beside vec: workgroup memory for their sums, and a unit of w with a unit of x, which
// comes from global memory.

var<workgroup> owned_s: array<f32, 4u * ROWS>; // of row m of x and row i of w at 4 m + i

#ifdef DOT4
fn owned_dot(a: Unit, row: u32, u: u32) -> f32 {
    let at = row * p.units + u;
    return unit_dot_bytes(a, x[2u * at], x[2u * at + 1u], x_scale[at]);
}
#else
fn x_vecs(row: u32, u: u32) -> Vecs {
    let q = 8u * u;
    return Vecs(
        x_quad(row, q), x_quad(row, q + 1u), x_quad(row, q + 2u), x_quad(row, q + 3u),
        x_quad(row, q + 4u), x_quad(row, q + 5u), x_quad(row, q + 6u), x_quad(row, q + 7u),
    );
}

fn owned_dot(a: Unit, x: Vecs) -> f32 {
    return unit_dot(a, x, vecs_sums(x));
}

#ifdef NORM
fn norm_vecs(u: u32) -> Vecs {
    let at = p.norm_at + 32u * u;
    return Vecs(
        constant_quad(at), constant_quad(at + 4u), constant_quad(at + 8u), constant_quad(at + 12u),
        constant_quad(at + 16u), constant_quad(at + 20u), constant_quad(at + 24u), constant_quad(at + 28u),
    );
}
#endif
#endif
