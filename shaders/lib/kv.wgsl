// Pages of the KV cache: [page][kv_head][16 positions][a row], K and V in buffers of their own. A row is quads of 4 elements; with
// KV_Q8 these are 4 bytes each, and behind them stands a scale (f32, a half's value) for every 8 quads.

const PAGE: u32 = 16u;

#ifdef KV_F16
alias Quad = vec2<u32>; // four halves
#else
#ifdef KV_Q8
alias Quad = u32; // four bytes, or a scale
#else
alias Quad = vec4<f32>;
#endif
#endif

// Elements of the buffer that a row of so many quads takes.
fn kv_row(quads: u32) -> u32 {
#ifdef KV_Q8
    return quads + quads / 8u;
#else
    return quads;
#endif
}

// Where a head's row at a position begins; `pages` is where the sequence's page list begins in the step.
fn row_at(pages: u32, position: u32, head: u32, n_kv_heads: u32, quads: u32) -> u32 {
    let page = step[pages + position / PAGE];
    return ((page * n_kv_heads + head) * PAGE + position % PAGE) * kv_row(quads);
}
