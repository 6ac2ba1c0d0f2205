// Sine and cosine to about 1e-7 for angles of up to 2e5 either way: drivers guarantee neither precision nor range.

// (cos a, sin a). Reduction by pi/2 in four parts short enough that their products with the quotient are
// exact (Cody and Waite); polynomials from Cephes (sinf, cosf).
fn cos_sin(a: f32) -> vec2<f32> {
    let k = round(a * 0.6366197723675814);
    let x = (((a - k * 1.5) - k * 0.0703125) - k * 4.837512969970703125e-4) - k * 7.54978995489188216e-8;
    let z = x * x;
    let s = ((-1.9515295891e-4 * z + 8.3321608736e-3) * z - 1.6666654611e-1) * z * x + x;
    let c = ((2.443315711809948e-5 * z - 1.388731625493765e-3) * z + 4.166664568298827e-2) * z * z - 0.5 * z + 1.0;
    let quadrant = bitcast<u32>(i32(k)) & 3u;
    var r = vec2(c, s);
    if ((quadrant & 1u) == 1u) { r = vec2(-s, c); }
    if ((quadrant & 2u) == 2u) { r = -r; }
    return r;
}
