// Activations of gates.

// x * sigmoid(x); exp overflows to infinity for very negative x, which gives the right limit 0.
fn act(x: f32) -> f32 {
    return x / (1.0 + exp(-x));
}
