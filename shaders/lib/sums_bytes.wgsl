// A piece of linear_vec: adds to `sums` the products of four rows `r` of w with rows of x as signed bytes.
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
