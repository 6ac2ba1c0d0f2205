// kv_write: stores keys and values of every row in its sequence's page. One invocation per quad. K and V have the same
// row stride and live in one buffer or in two.
#import grid
#import step
#import kv

struct Params {
    k_start: u32,
    k_stride: u32,
    v_start: u32,
    v_stride: u32,
    n_kv_heads: u32,
    k_dim: u32,
    v_dim: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> k: array<f32>;
@group(0) @binding(3) var<storage, read> v: array<f32>;
@group(0) @binding(4) var<storage, read_write> k_pages: array<Quad>;
@group(0) @binding(5) var<storage, read_write> v_pages: array<Quad>;

fn k_or_zero(at: u32, col: u32) -> f32 {
    if (col < p.k_dim) { return k[at + col]; }
    return 0.0;
}

fn v_or_zero(at: u32, col: u32) -> f32 {
    if (col < p.v_dim) { return v[at + col]; }
    return 0.0;
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let k_quads = (p.k_dim + 3u) / 4u;
    let v_quads = (p.v_dim + 3u) / 4u;
    let id = flat_id(wid, n_wg) * WG + lid;
    let quad = id % (k_quads + v_quads);
    let head = (id / (k_quads + v_quads)) % p.n_kv_heads;
    let row = id / ((k_quads + v_quads) * p.n_kv_heads);
    if (row >= step[STEP_N_TOKENS]) { return; }
    let position = step[step[STEP_POSITIONS] + row];
    let pages = step[step[STEP_TABLES] + row];
    if (quad < k_quads) {
        let at = row * p.k_stride + p.k_start + head * p.k_dim;
        let c = quad * 4u;
        let q = vec4(k_or_zero(at, c), k_or_zero(at, c + 1u), k_or_zero(at, c + 2u), k_or_zero(at, c + 3u));
        k_pages[quad_at(pages, position, head, p.n_kv_heads, k_quads) + quad] = quad_pack(q);
    } else {
        let at = row * p.v_stride + p.v_start + head * p.v_dim;
        let c = (quad - k_quads) * 4u;
        let q = vec4(v_or_zero(at, c), v_or_zero(at, c + 1u), v_or_zero(at, c + 2u), v_or_zero(at, c + 3u));
        v_pages[quad_at(pages, position, head, p.n_kv_heads, v_quads) + quad - k_quads] = quad_pack(q);
    }
}
