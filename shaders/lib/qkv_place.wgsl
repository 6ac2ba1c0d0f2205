// Columns of heads by fours that turn among themselves, two and two neighbours: where pairs are halves of a head apart (n_pairs
// columns), the first two elements of two pairs and their partners, else four in a row. Widths of heads are multiples of 4,
// and n_pairs is even.
#import trig
#import constants

struct Place {
    head: u32,   // among those of its kind
    is_k: bool,
    is_v: bool,
    start: u32,  // the head's first column of the product
    pair: u32,   // the first of two pairs
    turns: bool, // they are rotated
    a: u32,      // two columns of the head begin here
    b: u32,      // and two here
}

// Which columns the four are that are found as `column` and its neighbours, in order of workgroups.
fn qkv_place(column: u32) -> Place {
    let k_start = p.n_heads * p.head_dim;
    let v_start = k_start + p.n_kv_heads * p.head_dim;
    if (column >= v_start) {
        let c = (column - v_start) % p.v_dim;
        return Place((column - v_start) / p.v_dim, false, true, column - c, 0u, false, c, c + 2u);
    }
    let c = column % p.head_dim;
    let is_k = column >= k_start;
    let head = (column - select(0u, k_start, is_k)) / p.head_dim;
    let pair = c / 2u;
    let turns = pair < p.n_pairs;
    let apart = turns && p.halves == 1u;
    return Place(head, is_k, false, column - c, pair, turns, select(c, pair, apart), select(c + 2u, pair + p.n_pairs, apart));
}

fn qkv_columns(at: Place) -> vec4<u32> {
    return at.start + vec4(at.a, at.a + 1u, at.b, at.b + 1u);
}

// Turns a pair by the angle of its place and the row's position.
fn turned(pair: u32, position: f32, v: vec2<f32>) -> vec2<f32> {
    let turn = cos_sin(position * constant(p.freqs_at + pair)) * p.magnitude;
    return vec2(v.x * turn.x - v.y * turn.y, v.x * turn.y + v.y * turn.x);
}

// The four columns of a place.
fn turned_four(at: Place, position: f32, v: vec4<f32>) -> vec4<f32> {
    if (!at.turns) { return v; }
    if (p.halves == 1u) {
        let first = turned(at.pair, position, v.xz);
        let second = turned(at.pair + 1u, position, v.yw);
        return vec4(first.x, second.x, first.y, second.y);
    }
    return vec4(turned(at.pair, position, v.xy), turned(at.pair + 1u, position, v.zw));
}
