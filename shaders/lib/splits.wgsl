// Splits of attention, joined: for kernels with a binding `parts` as attend_vec writes it. SINKS: as in scores.
#ifdef SINKS
#import sinks
#endif

// A quad of the result of a head, of so many splits that begin at `at` in `parts`.
fn joined(at: u32, n_splits: u32, quads: u32, quad: u32, head: u32) -> vec4<f32> {
    var top = parts[at].x;
    for (var s = 1u; s < n_splits; s++) { top = max(top, parts[at + s * (1u + quads)].x); }
    var v = vec4(0.0);
    var sum = 0.0;
    for (var s = 0u; s < n_splits; s++) {
        let part = at + s * (1u + quads);
        let keep = exp(parts[part].x - top);
        sum += keep * parts[part].y;
        v += keep * parts[part + 1u + quad];
    }
#ifdef SINKS
    let shrink = with_sink(top, head);
    v *= shrink.x;
    sum = sum * shrink.x + shrink.y;
#endif
    return v / sum;
}
