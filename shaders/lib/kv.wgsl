// Pages of the KV cache: [page][kv_head][16 positions][quads of 4 elements], K and V in buffers of their own.

const PAGE: u32 = 16u;

#ifdef KV_F16
alias Quad = vec2<u32>; // four halves

fn quad_load(q: Quad) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(q.x), unpack2x16float(q.y));
}

// Values beyond what a half holds are clamped: packing them is undefined.
fn quad_pack(v: vec4<f32>) -> Quad {
    let c = clamp(v, vec4(-65504.0), vec4(65504.0));
    return vec2(pack2x16float(c.xy), pack2x16float(c.zw));
}
#else
alias Quad = vec4<f32>;

fn quad_load(q: Quad) -> vec4<f32> {
    return q;
}

fn quad_pack(v: vec4<f32>) -> Quad {
    return v;
}
#endif

// The first quad of a head at a position; `pages` is where the sequence's page list begins in the step.
fn quad_at(pages: u32, position: u32, head: u32, n_kv_heads: u32, quads: u32) -> u32 {
    let page = step[pages + position / PAGE];
    return ((page * n_kv_heads + head) * PAGE + position % PAGE) * quads;
}
