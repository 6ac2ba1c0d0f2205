// Keys and values into the cache, a unit of neighbouring quads at a time: one, or with KV_Q8 the eight that have a scale in common.
// `at` is where the row begins, `quads` how many it has.

#ifdef KV_Q8
const UNIT: u32 = 8u;
#else
const UNIT: u32 = 1u;
#endif

#ifdef KV_F16
// Values beyond what a half holds are clamped: packing them is undefined.
fn quad_pack(v: vec4<f32>) -> Quad {
    let c = clamp(v, vec4(-65504.0), vec4(65504.0));
    return vec2(pack2x16float(c.xy), pack2x16float(c.zw));
}
#endif
#ifdef KV_Q8
// What 127 stands for is the largest element; the scale is rounded to a half behind the division by it.
fn unit_scale(unit: array<vec4<f32>, UNIT>) -> f32 {
    var most = vec4(0.0);
    for (var i = 0u; i < UNIT; i++) { most = max(most, abs(unit[i])); }
    return min(max(max(most.x, most.y), max(most.z, most.w)), 65504.0 * 127.0) / 127.0;
}

fn quad_pack(v: vec4<f32>, scale: f32) -> Quad {
    if (scale == 0.0) { return 0u; }
    // Halves go away from zero.
    let away = sign(v) * floor(abs(v) * (1.0 / scale) + vec4(0.5));
    let b = bitcast<vec4<u32>>(vec4<i32>(clamp(away, vec4(-127.0), vec4(127.0)))) & vec4(255u);
    return b.x | (b.y << 8u) | (b.z << 16u) | (b.w << 24u);
}

fn half_of(scale: f32) -> Quad {
    return bitcast<u32>(unpack2x16float(pack2x16float(vec2(scale, 0.0))).x);
}
#endif

fn k_put(at: u32, unit: u32, quads: u32, values: array<vec4<f32>, UNIT>) {
#ifdef KV_Q8
    let scale = unit_scale(values);
    for (var i = 0u; i < UNIT; i++) { k_pages[at + unit * UNIT + i] = quad_pack(values[i], scale); }
    k_pages[at + quads + unit] = half_of(scale);
#else
#ifdef KV_F16
    k_pages[at + unit] = quad_pack(values[0]);
#else
    k_pages[at + unit] = values[0];
#endif
#endif
}

#ifndef V_IN_K
fn v_put(at: u32, unit: u32, quads: u32, values: array<vec4<f32>, UNIT>) {
#ifdef KV_Q8
    let scale = unit_scale(values);
    for (var i = 0u; i < UNIT; i++) { v_pages[at + unit * UNIT + i] = quad_pack(values[i], scale); }
    v_pages[at + quads + unit] = half_of(scale);
#else
#ifdef KV_F16
    v_pages[at + unit] = quad_pack(values[0]);
#else
    v_pages[at + unit] = values[0];
#endif
#endif
}
#endif
