// Activations: `act`, by the feature that names it, and `gated`.
#ifdef GELU_TANH
#import tanh
#endif
#ifdef TANH
#import tanh
#endif
#ifdef SOFTPLUS
#import softplus
#endif

#ifdef SILU
// x * sigmoid(x); exp overflows to infinity for very negative x, which gives the right limit 0.
fn act(x: f32) -> f32 {
    return x / (1.0 + exp(-x));
}
#endif
#ifdef GELU_TANH
fn act(x: f32) -> f32 {
    return 0.5 * x * (1.0 + tanh_of(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}
#endif
#ifdef GELU_ERF
// The error function; polynomials from Cephes (erff, erfcf).
fn erf_of(x: f32) -> f32 {
    let a = abs(x);
    let z = x * x;
    if (a < 1.0) {
        return x * ((((((7.853861353153693e-5 * z - 8.010193625184903e-4) * z + 5.188327685732524e-3) * z
            - 2.685381193529856e-2) * z + 1.128358514861418e-1) * z - 3.761262582423300e-1) * z + 1.128379165726710);
    }
    let q = 1.0 / a;
    let y = q * q;
    var tail = 0.0;
    if (a >= 2.0) {
        tail = ((((((-1.047766399936249e1 * y + 1.297719955372516e1) * y - 7.495518717768503) * y + 2.921019019210786) * y
            - 1.015265279202700) * y + 4.218463358204948e-1) * y - 2.820767439740514e-1) * y + 5.641895067754075e-1;
    } else {
        tail = (((((((2.326819970068386e-2 * y - 1.387039388740657e-1) * y + 3.687424674597105e-1) * y
            - 5.824733027278666e-1) * y + 6.210004621745983e-1) * y - 4.944515323274145e-1) * y + 3.404879937665872e-1) * y
            - 2.741127028184656e-1) * y + 5.638259427386472e-1;
    }
    let far = 1.0 - exp(-z) * q * tail;
    return select(far, -far, x < 0.0);
}

fn act(x: f32) -> f32 {
    return 0.5 * x * (1.0 + erf_of(x * 0.7071067811865476));
}
#endif
#ifdef GELU_QUICK
fn act(x: f32) -> f32 {
    return x / (1.0 + exp(-1.702 * x));
}
#endif
#ifdef RELU
fn act(x: f32) -> f32 {
    return max(x, 0.0);
}
#endif
#ifdef RELU_SQUARED
fn act(x: f32) -> f32 {
    let y = max(x, 0.0);
    return y * y;
}
#endif
#ifdef SIGMOID
fn act(x: f32) -> f32 {
    return 1.0 / (1.0 + exp(-x));
}
#endif
#ifdef TANH
fn act(x: f32) -> f32 {
    return tanh_of(x);
}
#endif
#ifdef SOFTPLUS
fn act(x: f32) -> f32 {
    return softplus(x);
}
#endif
#ifdef SQRT
fn act(x: f32) -> f32 {
    return sqrt(max(x, 0.0));
}
#endif
#ifdef EXP_BELOW
// exp(x) - 1 - x below 0; the first terms of its series where the difference would lose them.
fn act(x: f32) -> f32 {
    let y = min(x, 0.0);
    let near = y * y * (0.5 + y * (0.16666667 + y * (0.041666668 + y * (0.008333334 + y * 0.0013888889))));
    return select(exp(y) - 1.0 - y, near, y > -0.3);
}
#endif
#ifdef IDENTITY
fn act(x: f32) -> f32 {
    return x;
}
#endif

#ifdef GLU
// A gate and its up. LIMIT: the gate (LIMITS_RESULT: its activation) is bounded from above and the up on both sides by p.limit;
// p.up_offset is added.
fn gated(gate: f32, up: f32) -> f32 {
#ifdef LIMIT
#ifdef LIMITS_RESULT
    return min(act(gate), p.limit) * (clamp(up, -p.limit, p.limit) + p.up_offset);
#else
    return act(min(gate, p.limit)) * (clamp(up, -p.limit, p.limit) + p.up_offset);
#endif
#else
    return act(gate) * up;
#endif
}
#endif
