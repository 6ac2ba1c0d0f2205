// Units of x from global memory, and what a norm multiplies them by.

fn x_vecs(row: u32, u: u32) -> Vecs {
    let q = 8u * u;
    return Vecs(
        x_quad(row, q), x_quad(row, q + 1u), x_quad(row, q + 2u), x_quad(row, q + 3u),
        x_quad(row, q + 4u), x_quad(row, q + 5u), x_quad(row, q + 6u), x_quad(row, q + 7u),
    );
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
