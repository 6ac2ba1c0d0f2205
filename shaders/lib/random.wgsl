// The counter random generator of engine/src/run/random.rs: the same bits on every device.

// lowbias32 (Wellons, "Hash Function Prospector").
fn mix(value: u32) -> u32 {
    var x = value;
    x = (x ^ (x >> 16u)) * 0x21f0aaadu;
    x = (x ^ (x >> 15u)) * 0x735a2d97u;
    return x ^ (x >> 15u);
}

// Standard Gumbel noise of a token, for a draw of 64 bits: -ln(e), e = -ln(1 - u), u from 32 bits; a series where u is
// small, since small u decide.
fn gumbel(draw: vec2<u32>, token: u32) -> f32 {
    let bits = mix(mix(token ^ draw.x) + draw.y);
    let u = (f32(bits) + 0.5) * 0x1p-32;
    var e = 23.0;
    if (u < 0.015625) {
        e = u * (1.0 + u * (0.5 + u * (0.33333334 + u * (0.25 + u * 0.2))));
    } else if (u < 1.0) {
        e = -log(1.0 - u);
    }
    return -log(e);
}
