// Which positions a row of attention sees, for kernels with the parameter `window`, and with CHUNK `chunk`.
//
// BOTH: a row sees the rows behind it too, and the window counts positions on each side. CHUNK: of what is before it, a row
// sees its own run of so many positions. SOURCE: what is before it begins behind its source. CROSS: it sees its source alone.

// How many of the first positions of a row's sequence are its source.
fn n_source(row: u32) -> u32 {
    let list = step[STEP_SOURCES];
    if (list == 0u) { return 0u; }
    return step[list + row];
}

// The first position that a row sees.
fn seen_from(row: u32, position: u32) -> u32 {
#ifdef CROSS
    return 0u;
#else
#ifdef BOTH
    return position - min(position, p.window);
#else
    var first = select(0u, position + 1u - p.window, position >= p.window);
#ifdef CHUNK
    first = max(first, position - position % p.chunk);
#endif
#ifdef SOURCE
    first = max(first, n_source(row));
#endif
    return first;
#endif
#endif
}

// The position behind the last that a row sees.
fn seen_to(row: u32, position: u32) -> u32 {
#ifdef CROSS
    return n_source(row);
#else
#ifdef BOTH
    return position + 1u + min(step[step[STEP_ENDS] + row] - position - 1u, p.window);
#else
    return position + 1u;
#endif
#endif
}

// The splits of a row's positions that hold one that it sees: the first, and how many, at least one. The others compute
// nothing, and nobody reads their results.
fn splits_seen(row: u32, position: u32, n_splits: u32) -> vec2<u32> {
    let chunk = step[STEP_CHUNK];
    let first = min(seen_from(row, position) / chunk, n_splits - 1u);
    let last = min((max(seen_to(row, position), 1u) - 1u) / chunk, n_splits - 1u);
    return vec2(first, max(last, first) + 1u - first);
}
