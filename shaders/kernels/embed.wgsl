// embed: out[row] = table[token of row], with POSITION table[position of row], or with SEGMENT table[text of a pair that the row
// belongs to]. One workgroup per row. A table in several parts is read by one dispatch per part, each of which writes the rows
// whose token it holds.
#import grid
#import step
#import dequant

struct Params {
    row_offset: u32, // first vocabulary row of this part
    n: u32,          // vocabulary rows of this part
    units: u32,
    cols: u32,
    plane1: u32,
    plane2: u32,
    plane3: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> w: array<vec4<u32>>;
#ifndef POSITION
#ifndef SEGMENT
@group(0) @binding(3) var<storage, read> picked: array<u32>; // what the step before picked for each of its outputs
#endif
#endif
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

fn put(at: u32, col: u32, v: vec4<f32>) {
    for (var i = 0u; i < 4u; i++) {
        if (col + i < p.cols) { out[at + col + i] = v[i]; }
    }
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let row = flat_id(wid, n_wg);
    if (row >= step[STEP_N_TOKENS]) { return; }
#ifdef POSITION
    let token = step[step[STEP_POSITIONS] + row];
#else
#ifdef SEGMENT
    let list = step[STEP_SEGMENTS];
    var token = 0u;
    if (list != 0u) { token = step[list + row]; }
#else
    var token = step[step[STEP_TOKENS] + row];
    if ((token & STEP_PICKED_BIT) != 0u) { token = picked[token & ~STEP_PICKED_BIT]; }
#endif
#endif
    if (token < p.row_offset || token - p.row_offset >= p.n) { return; }
    let base = (token - p.row_offset) * p.units;
    let at = row * p.cols;
    for (var u = lid; u < p.units; u += WG) {
        let v = unit_vecs(load_unit(base + u));
        let col = u * 32u;
        put(at, col, v.v0);
        put(at, col + 4u, v.v1);
        put(at, col + 8u, v.v2);
        put(at, col + 12u, v.v3);
        put(at, col + 16u, v.v4);
        put(at, col + 20u, v.v5);
        put(at, col + 24u, v.v6);
        put(at, col + 28u, v.v7);
    }
}
