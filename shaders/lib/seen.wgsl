// Which positions a row of attention sees, for kernels with the parameter `window`. BOTH: a row sees the rows behind it too, and
// the window counts positions on each side.

// The first position that a row sees.
fn seen_from(position: u32) -> u32 {
#ifdef BOTH
    return position - min(position, p.window);
#else
    return select(0u, position + 1u - p.window, position >= p.window);
#endif
}

// The position behind the last that a row sees.
fn seen_to(row: u32, position: u32) -> u32 {
#ifdef BOTH
    return position + 1u + min(step[step[STEP_ENDS] + row] - position - 1u, p.window);
#else
    return position + 1u;
#endif
}

// The splits of a row's positions that hold one that it sees: the first, and how many. The others compute nothing, and nobody
// reads their results.
fn splits_seen(row: u32, position: u32, n_splits: u32) -> vec2<u32> {
    let chunk = step[STEP_CHUNK];
    let first = min(seen_from(position) / chunk, n_splits - 1u);
    return vec2(first, min((seen_to(row, position) - 1u) / chunk, n_splits - 1u) + 1u - first);
}
