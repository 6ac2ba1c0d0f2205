// Hyperbolic tangent: drivers' own may overflow for large arguments and cancel for small ones.

// Polynomial near 0 from Cephes (tanhf).
fn tanh_of(x: f32) -> f32 {
    let a = abs(x);
    let z = x * x;
    let near = ((((-5.70498872745e-3 * z + 2.06390887954e-2) * z - 5.37397155531e-2) * z + 1.33314422036e-1) * z
        - 3.33332819422e-1) * z * x + x;
    let far = 1.0 - 2.0 / (exp(2.0 * min(a, 20.0)) + 1.0);
    return select(select(far, -far, x < 0.0), near, a < 0.625);
}

// A smooth limit: cap * tanh(x / cap).
fn soft_cap(x: f32, cap: f32) -> f32 {
    return cap * tanh_of(x / cap);
}
