// What attention does to scores, for kernels whose parameters are those of attend_vec.
//
// HEAT: queries are scaled by their position. CAP: a soft cap. SLOPES: a head's slope times the distance is taken from a
// score. RELATIVE: a head's summand for the bucket of the distance. SINKS: a head's sink takes part in the softmax and has no
// value. What a row sees: see seen.
#import seen
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
