// Attention sinks: scores without values, one per head.
#import constants

// With a sink beside scores whose maximum is `top`: the factor on what was summed up, and what is added to the sum of
// weights.
fn with_sink(top: f32, head: u32) -> vec2<f32> {
    let sink = constant(p.sinks_at + head);
    let m = max(top, sink);
    return vec2(exp(top - m), exp(sink - m));
}
