// A piece of linear_vec: adds to `sums` the products of four rows `r` of w with rows of x, which come through workgroup
// memory: those from `first` on, with STACK `x_rows`. NORM: x times the norm's factors, while `squares` adds up what the norm
// divides by.
    for (var base = 0u; base < p.units; base += WG) {
        let u = min(base + lid, p.units - 1u);
        let a = load_unit(r.x + u);
        let b = load_unit(r.y + u);
        let c = load_unit(r.z + u);
        let d = load_unit(r.w + u);
        let quads = min(p.units - base, WG) * 8u;
        for (var m = 0u; m < ROWS; m++) {
#ifdef STACK
            let row = x_rows[m];
#else
            let row = min(first + m, rows - 1u);
#endif
            workgroupBarrier();
            for (var i = lid; i < quads; i += WG) {
                var v = x_quad(row, base * 8u + i);
#ifdef NORM
                squares[m] += dot(v, v);
                v *= constant_quad(p.norm_at + 4u * (base * 8u + i));
#endif
                work_s[i % 8u * SPAN + i / 8u] = v;
            }
            workgroupBarrier();
            if (base + lid < p.units) {
                let v = x_unit(lid);
                let halves = vecs_sums(v);
                sums[m] += vec4(unit_dot(a, v, halves), unit_dot(b, v, halves), unit_dot(c, v, halves), unit_dot(d, v, halves));
            }
        }
    }
