// The rows that a step has of each sequence, and where the sequence's states lie.

const NO_STATE: u32 = 0xffffffffu; // in place of a slot: zeros

struct Run {
    first: u32,
    rows: u32,
    from_slot: u32, // before the step, or NO_STATE
    to_slot: u32,   // after it
}

fn run_at(i: u32) -> Run {
    let at = step[STEP_RUNS] + 4u * i;
    return Run(step[at], step[at + 1u], step[at + 2u], step[at + 3u]);
}
