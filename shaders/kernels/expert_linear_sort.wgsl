// expert_linear for many rows, in front of linear_mat: the places (row * used + pick) sorted by matrix, and the tiles of up
// to BM of them that have one matrix. One workgroup; in which order the places of a matrix stand does not matter, since
// each has a result of its own.
#import grid
#import step

struct Params {
    rows_at: u32,
    used: u32, // picks of a row
    n_stack: u32,   // matrices, at most E
}

@group(0) @binding(0) var<uniform> p: Params;
#import picks
@group(0) @binding(3) var<storage, read_write> order: array<u32>;
@group(0) @binding(4) var<storage, read_write> tiles: array<u32>; // how many; of each matrix, first in order, number

const BM: u32 = 32u;

var<workgroup> count_s: array<atomic<u32>, E>;
var<workgroup> next_s: array<atomic<u32>, E>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    if (wid.x > 0u || wid.y > 0u) { return; }
    let places = step[p.rows_at] * p.used;
    for (var i = lid; i < E; i += WG) { atomicStore(&count_s[i], 0u); }
    workgroupBarrier();
    for (var i = lid; i < places; i += WG) {
        atomicAdd(&count_s[picked_matrix(i / p.used, i % p.used)], 1u);
    }
    workgroupBarrier();
    if (lid == 0u) {
        var first = 0u;
        var n_tiles = 0u;
        for (var e = 0u; e < p.n_stack; e++) {
            let n = atomicLoad(&count_s[e]);
            atomicStore(&next_s[e], first);
            for (var i = 0u; i < n; i += BM) {
                let at = 1u + 3u * n_tiles;
                tiles[at] = e;
                tiles[at + 1u] = first + i;
                tiles[at + 2u] = min(BM, n - i);
                n_tiles += 1u;
            }
            first += n;
        }
        tiles[0] = n_tiles;
    }
    workgroupBarrier();
    for (var i = lid; i < places; i += WG) {
        order[atomicAdd(&next_s[picked_matrix(i / p.used, i % p.used)], 1u)] = i;
    }
}
