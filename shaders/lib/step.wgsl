// What a step brings: a header of words (the STEP_ constants, from Rust), then lists at the places it names.

@group(0) @binding(1) var<storage, read> step: array<u32>;
