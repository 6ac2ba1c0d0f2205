// What attention does to scores, and which positions a row sees, for kernels whose parameters are those of attend_vec.
//
// HEAT: queries are scaled by their position. CAP: a soft cap. SLOPES: a head's slope times the distance is taken from a
// score. RELATIVE: a head's summand for the bucket of the distance. SINKS: a head's sink takes part in the softmax and has no
// value. BOTH: a row sees the rows behind it too, and the window counts positions on each side. CHUNK: of what is before it, a
// row sees its own run of so many positions. SOURCE: what is before it begins behind its source. CROSS: it sees its source alone.
#ifdef CAP
#import tanh
#endif
#ifdef SLOPES
#import constants
#endif
#ifdef RELATIVE
#import constants
#endif
#ifdef SINKS
#import sinks
#endif

// The factor on a query.
fn query_scale(position: u32) -> f32 {
#ifdef HEAT
    return p.scale * (1.0 + p.heat * log(floor((f32(position) + p.heat_offset) / p.heat_length) + 1.0));
#else
    return p.scale;
#endif
}

// How many of the first positions of a row's sequence are its source.
fn n_source(row: u32) -> u32 {
    let list = step[STEP_SOURCES];
    if (list == 0u) { return 0u; }
    return step[list + row];
}

// The first position that a row sees.
fn seen_from(row: u32, position: u32) -> u32 {
#ifdef CROSS
    return 0u;
#else
#ifdef BOTH
    return position - min(position, p.window);
#else
    var first = select(0u, position + 1u - p.window, position >= p.window);
#ifdef CHUNK
    first = max(first, position - position % p.chunk);
#endif
#ifdef SOURCE
    first = max(first, n_source(row));
#endif
    return first;
#endif
#endif
}

// The position behind the last that a row sees.
fn seen_to(row: u32, position: u32) -> u32 {
#ifdef CROSS
    return n_source(row);
#else
#ifdef BOTH
    return position + 1u + min(step[step[STEP_ENDS] + row] - position - 1u, p.window);
#else
    return position + 1u;
#endif
#endif
}

#ifdef RELATIVE
// A head's summand for a distance: buckets begin at distances that rise, the first of them 0. With BOTH those of positions
// behind the row follow those of positions before it.
fn relative(head: u32, distance: f32) -> f32 {
    var bucket = 0u;
    for (var n = p.n_buckets; n > 1u;) {
        let half = n / 2u;
        let begun = constant(p.buckets_at + bucket + half) <= abs(distance);
        bucket += select(0u, half, begun);
        n = select(half, n - half, begun);
    }
#ifdef BOTH
    bucket += select(0u, p.n_buckets, distance < 0.0);
#endif
    return constant(p.relative_at + bucket * p.n_heads + head);
}
#endif

// What the softmax takes of a scaled score.
fn finish_score(score: f32, head: u32, distance: f32) -> f32 {
    var s = score;
#ifdef CAP
    s = soft_cap(s, p.cap);
#endif
#ifdef SLOPES
    s -= constant(p.slopes_at + head) * abs(distance);
#endif
#ifdef RELATIVE
    s += relative(head, distance);
#endif
    return s;
}
