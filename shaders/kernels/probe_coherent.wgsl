// probe_coherent: whether workgroups see of each other what kernels with COHERENT take them to see, by the same snippet. Of each
// cell's `n` workgroups the last to finish compares what all of them wrote with what they were to write. Another round writes
// other numbers, so that those of the round before are told apart.
//
// COHERENT: always; pages have no such memory.
#import grid
#import last

struct Params {
    n: u32,       // workgroups of a cell
    n_cells: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
// [cell][workgroup][WG]
@coherent
@group(0) @binding(2) var<storage, read_write> parts: array<vec4<u32>>;
// [cell]: workgroups that are done; 0 again behind the last.
@coherent
@group(0) @binding(3) var<storage, read_write> finished: array<atomic<u32>>;
// [cell]: rounds that are done, numbers that were wrong
@group(0) @binding(4) var<storage, read_write> out: array<atomic<u32>>;

fn number(round: u32, at: u32) -> vec4<u32> {
    return vec4(at, round, at ^ round, at + 0x9e3779b9u * (round + 1u));
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let id = flat_id(wid, n_wg);
    let cell = id / p.n;
    if (cell >= p.n_cells) { return; }
    let round = atomicLoad(&out[2u * cell]);
    parts[id * WG + lid] = number(round, id * WG + lid);
    if (!is_last(lid, cell, p.n)) { return; }
    var wrong = 0u;
    for (var i = lid; i < p.n * WG; i += WG) {
        let at = cell * p.n * WG + i;
        if (any(parts[at] != number(round, at))) { wrong += 1u; }
    }
    if (wrong > 0u) { atomicAdd(&out[2u * cell + 1u], wrong); }
    if (lid == 0u) { atomicStore(&out[2u * cell], round + 1u); }
}
