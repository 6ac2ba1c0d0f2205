// A piece of linear_vec with OWNED: a subgroup owns one of the workgroup's four rows of w at a time and its invocations share out
// the units, of which each loads two at once. Nothing waits for the other subgroups until the sums are done. Each unit of
// w is decoded once for all ROWS rows of x. Those with `mine` have the `total` of a row of x.
//
// The loop over rows of w has the same turns for all subgroups, whatever their number.
    for (var k = 0u; k < 4u; k += n_subgroups) {
        let i = min(k + subgroup, 3u);
        var own = array<f32, ROWS>();
        for (var u = lane; u < p.units; u += 2u * subgroup_size) {
            let both = u + subgroup_size < p.units;
            let v = select(u, u + subgroup_size, both);
            let a = owned_unit(r[i] + u);
            let b = owned_unit(r[i] + v);
            for (var m = 0u; m < ROWS; m++) {
                let row = min(first + m, rows - 1u);
#ifdef DOT4
#ifdef NORM
                // Every subgroup sees all of x in its first turn.
                let at = row * p.units;
                if (k == 0u) { squares[m] += x_scale(at + u).w + select(0.0, x_scale(at + v).w, both); }
#endif
                own[m] += owned_dot(a, row, u) + select(0.0, owned_dot(b, row, v), both);
#else
                let x0 = x_vecs(row, u);
                let x1 = x_vecs(row, v);
#ifdef NORM
                // Every subgroup sees all of x in its first turn.
                if (k == 0u) { squares[m] += vecs_dot(x0, x0) + select(0.0, vecs_dot(x1, x1), both); }
                own[m] += owned_dot(a, vecs_mul(x0, norm_vecs(u))) + select(0.0, owned_dot(b, vecs_mul(x1, norm_vecs(v))), both);
#else
                own[m] += owned_dot(a, x0) + select(0.0, owned_dot(b, x1), both);
#endif
#endif
            }
        }
        for (var m = 0u; m < ROWS; m++) {
            let sum = subgroupAdd(own[m]);
            if (lane == 0u && k + subgroup < 4u) { owned_s[4u * m + i] = sum; }
        }
    }
#ifdef NORM
    for (var m = 0u; m < ROWS; m++) {
        let square = subgroupAdd(squares[m]);
        if (lane == 0u && subgroup == 0u) { squares_s[m] = square; }
    }
#endif
    workgroupBarrier();
    let mine = lid < ROWS && first + lid < rows;
    var total = vec4(0.0);
    if (mine) {
        total = vec4(owned_s[4u * lid], owned_s[4u * lid + 1u], owned_s[4u * lid + 2u], owned_s[4u * lid + 3u]);
#ifdef NORM
        total *= inverseSqrt(squares_s[lid] / f32(p.cols) + p.eps);
#endif
    }
