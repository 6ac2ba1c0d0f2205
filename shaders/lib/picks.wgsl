// Which matrices of a stack a row picked, for kernels with the parameters `used` (picks of a row) and `n_stack` (matrices).

@group(0) @binding(6) var<storage, read> picks: array<u32>; // per row: indices, then weights as the bits of floats

// An index beyond the stack, which only damaged activations give, counts as the last.
fn picked_matrix(row: u32, pick: u32) -> u32 {
    return min(picks[row * 2u * p.used + pick], p.n_stack - 1u);
}

fn pick_weight(row: u32, pick: u32) -> f32 {
    return bitcast<f32>(picks[row * 2u * p.used + p.used + pick]);
}
