// Quads of keys and values as the cache has them: `at` is where the row begins, `quads` how many it has.

#ifdef KV_F16
fn quad_load(q: Quad) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(q.x), unpack2x16float(q.y));
}
#endif
#ifdef KV_Q8
fn quad_load(q: Quad, scale: Quad) -> vec4<f32> {
    let bytes = vec4(bitcast<i32>(q << 24u), bitcast<i32>(q << 16u), bitcast<i32>(q << 8u), bitcast<i32>(q)) >> vec4(24u);
    return vec4<f32>(bytes) * bitcast<f32>(scale);
}
#endif

fn k_quad(at: u32, i: u32, quads: u32) -> vec4<f32> {
#ifdef KV_F16
    return quad_load(k_pages[at + i]);
#else
#ifdef KV_Q8
    return quad_load(k_pages[at + i], k_pages[at + quads + i / 8u]);
#else
    return k_pages[at + i];
#endif
#endif
}

#ifndef V_IN_K
fn v_quad(at: u32, i: u32, quads: u32) -> vec4<f32> {
#ifdef KV_F16
    return quad_load(v_pages[at + i]);
#else
#ifdef KV_Q8
    return quad_load(v_pages[at + i], v_pages[at + quads + i / 8u]);
#else
    return v_pages[at + i];
#endif
#endif
}
#endif
