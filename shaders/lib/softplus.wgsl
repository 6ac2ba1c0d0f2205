// The logarithm of 1 + exp(x).

// ln(1 + exp(x)), without an exponential that overflows or a sum that loses a small one.
fn softplus(x: f32) -> f32 {
    let e = exp(-abs(x));
    let small = e * (1.0 - e * (0.5 - e * (0.33333334 - e * 0.25)));
    return max(x, 0.0) + select(log(1.0 + e), small, e < 0.02);
}
