// A piece of linear_vec: adds to `sums` the products of four rows `r` of w with rows of x as signed bytes: those from
// `first` on, with STACK `x_rows`. NORM: `squares` adds up what the norm divides by.
    for (var u = lid; u < p.units; u += WG) {
        let a = load_unit(r.x + u);
        let b = load_unit(r.y + u);
        let c = load_unit(r.z + u);
        let d = load_unit(r.w + u);
        for (var m = 0u; m < ROWS; m++) {
#ifdef STACK
            let row = x_rows[m];
#else
            let row = min(first + m, rows - 1u);
#endif
#ifdef BYTES
            let at = row * p.units + u;
            let bytes = Bytes(x[2u * at], x[2u * at + 1u], x_scale(at));
#else
            let own = x_vecs(row, u);
#ifdef NORM
            let bytes = bytes_of(vecs_mul(own, norm_vecs(u)), vecs_dot(own, own));
#else
            let bytes = bytes_of(own, 0.0);
#endif
#endif
#ifdef NORM
            squares[m] += bytes.s.w;
#endif
            sums[m] += vec4(
                unit_dot_bytes(a, bytes.lo, bytes.hi, bytes.s), unit_dot_bytes(b, bytes.lo, bytes.hi, bytes.s),
                unit_dot_bytes(c, bytes.lo, bytes.hi, bytes.s), unit_dot_bytes(d, bytes.lo, bytes.hi, bytes.s),
            );
        }
    }
