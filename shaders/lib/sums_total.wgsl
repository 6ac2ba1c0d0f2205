// A piece of products of few rows: brings the invocations' `sums` together. Those with `mine` have the `total` of a row of x.
    // The invocations' sums, together.
#ifndef DOT4
    workgroupBarrier();
#endif
#ifdef SUBGROUPS
    for (var m = 0u; m < ROWS; m++) {
        let part = subgroupAdd(sums[m]);
        if (lane == 0u) { work_s[m * PARTS + subgroup] = part; }
#ifdef NORM
        let square = subgroupAdd(squares[m]);
        if (lane == 0u) { squares_s[m * PARTS + subgroup] = square; }
#endif
    }
    workgroupBarrier();
    let n_parts = n_subgroups;
#else
    for (var m = 0u; m < ROWS; m++) {
        work_s[m * PARTS + lid] = sums[m];
#ifdef NORM
        squares_s[m * PARTS + lid] = squares[m];
#endif
    }
    for (var half = WG / 2u; half >= 4u; half /= 2u) {
        workgroupBarrier();
        if (lid < half) {
            for (var m = 0u; m < ROWS; m++) {
                work_s[m * PARTS + lid] += work_s[m * PARTS + lid + half];
#ifdef NORM
                squares_s[m * PARTS + lid] += squares_s[m * PARTS + lid + half];
#endif
            }
        }
    }
    workgroupBarrier();
    let n_parts = 4u;
#endif
#ifdef STACK
    let mine = lid < n_places;
#else
    let mine = lid < ROWS && first + lid < rows;
#endif
    var total = vec4(0.0);
    if (mine) {
#ifdef NORM
        var square = 0.0;
#endif
        for (var i = 0u; i < n_parts; i++) {
            total += work_s[lid * PARTS + i];
#ifdef NORM
            square += squares_s[lid * PARTS + i];
#endif
        }
#ifdef NORM
        total *= inverseSqrt(square / f32(p.cols) + p.eps);
#endif
    }
