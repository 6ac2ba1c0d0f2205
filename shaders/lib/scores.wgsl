// What attention does to scores, for kernels whose parameters are those of attend_vec.
//
// HEAT: queries are scaled by their position. CAP: a soft cap. SLOPES: a head's slope times the distance is taken from a
// score. SINKS: a head's sink takes part in the softmax and has no value.
#import seen
#ifdef CAP
#import tanh
#endif
#ifdef SLOPES
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

// What the softmax takes of a scaled score.
fn finish_score(score: f32, head: u32, distance: f32) -> f32 {
    var s = score;
#ifdef CAP
    s = soft_cap(s, p.cap);
#endif
#ifdef SLOPES
    s -= constant(p.slopes_at + head) * abs(distance);
#endif
    return s;
}
