//! Small modules before and after the pass, and words that are no module.

use super::*;

const HEAD: [u32; 5] = [MAGIC, 0x0001_0500, 0, 30, 0];

/// A module of these instructions, each its number and its operands.
fn module(instructions: &[(u32, &[u32])]) -> Vec<u32> {
    let mut words = HEAD.to_vec();
    for (opcode, operands) in instructions {
        words.push((operands.len() as u32 + 1) << 16 | opcode);
        words.extend(*operands);
    }
    words
}

/// The Vulkan memory model; %1 u32, %2 and %3 pointers to it in workgroup memory and in a buffer, %4 one in a function.
const TYPES: [(u32, &[u32]); 5] = [
    (op::MEMORY_MODEL, &[0, VULKAN_MODEL]),
    (21, &[1, 32, 0]),
    (op::TYPE_POINTER, &[2, 4, 1]),
    (op::TYPE_POINTER, &[3, 12, 1]),
    (op::TYPE_POINTER, &[4, 7, 1]),
];

/// What becomes of these instructions behind the types, and how many ids came.
fn pass(before: &[(u32, &[u32])], after: &[(u32, &[u32])], more_ids: u32) {
    let mut expected = module(&[&TYPES[..], after].concat());
    expected[BOUND] += more_ids;
    let got = with_memory_semantics(&module(&[&TYPES[..], before].concat())).unwrap();
    assert_eq!(got, expected);
    assert_eq!(with_memory_semantics(&got).unwrap(), expected, "a second pass changes nothing");
}

#[test]
fn shared_accesses_become_non_private() {
    for shared in [2, 3] {
        pass(
            &[(59, &[shared, 5, 4]), (op::LOAD, &[1, 6, 5]), (op::STORE, &[5, 6])],
            &[(59, &[shared, 5, 4]), (op::LOAD, &[1, 6, 5, 0x20]), (op::STORE, &[5, 6, 0x20])],
            0,
        );
    }
    let of_a_function: &[(u32, &[u32])] = &[(59, &[4, 5, 7]), (op::LOAD, &[1, 6, 5]), (op::STORE, &[5, 6])];
    pass(of_a_function, of_a_function, 0);
}

#[test]
fn pointers_are_followed() {
    // A parameter, chains, a copy, a choice, a phi, and what a function gives.
    for pointer in [&[2u32, 6][..], &[2, 6, 5, 8], &[2, 6, 5], &[2, 6, 5, 7, 8], &[2, 6, 5, 9]] {
        for opcode in [1, 55, 57, 65, 66, 67, 70, 83, 169, 245] {
            let made = (opcode, pointer);
            pass(&[made, (op::LOAD, &[1, 7, 6])], &[made, (op::LOAD, &[1, 7, 6, 0x20])], 0);
        }
    }
    // A decoration of the type makes no pointer of its number.
    let decorated: &[(u32, &[u32])] = &[(op::DECORATE, &[2, 6, 4]), (op::LOAD, &[1, 7, 6])];
    pass(decorated, decorated, 0);
}

#[test]
fn operands_that_are_there_stay() {
    // Aligned, by 16.
    pass(
        &[(59, &[2, 5, 4]), (op::LOAD, &[1, 6, 5, 0x2, 16]), (op::STORE, &[5, 6, 0x22, 16])],
        &[(59, &[2, 5, 4]), (op::LOAD, &[1, 6, 5, 0x22, 16]), (op::STORE, &[5, 6, 0x22, 16])],
        0,
    );
}

#[test]
fn cooperative_accesses_become_non_private() {
    let variable: (u32, &[u32]) = (59, &[2, 5, 4]);
    pass(
        &[variable, (op::COOPERATIVE_LOAD, &[1, 6, 5, 7, 8]), (op::COOPERATIVE_STORE, &[5, 6, 7, 8])],
        &[variable, (op::COOPERATIVE_LOAD, &[1, 6, 5, 7, 8, 0x20]), (op::COOPERATIVE_STORE, &[5, 6, 7, 8, 0x20])],
        0,
    );
    let without_stride = module(&[&TYPES[..], &[variable, (op::COOPERATIVE_LOAD, &[1, 6, 5, 7])]].concat());
    assert!(with_memory_semantics(&without_stride).unwrap_err().0.contains("takes no memory operands"));
}

#[test]
fn barriers_hand_memory_on() {
    // Two barriers share a constant, which something else uses too; a third has another one.
    let [both, storage]: [(u32, &[u32]); 2] = [(op::CONSTANT, &[1, 5, 0x108]), (op::CONSTANT, &[1, 6, 0x48])];
    let use_of_it: (u32, &[u32]) = (128, &[1, 9, 5, 5]);
    pass(
        &[
            both,
            storage,
            (op::CONTROL_BARRIER, &[7, 7, 5]),
            use_of_it,
            (op::CONTROL_BARRIER, &[7, 7, 5]),
            (op::MEMORY_BARRIER, &[7, 6]),
        ],
        &[
            both,
            (op::CONSTANT, &[1, 30, 0x6108]),
            storage,
            (op::CONSTANT, &[1, 31, 0x6048]),
            (op::CONTROL_BARRIER, &[7, 7, 30]),
            use_of_it,
            (op::CONTROL_BARRIER, &[7, 7, 30]),
            (op::MEMORY_BARRIER, &[7, 31]),
        ],
        2,
    );
    for (semantics, completed_to) in
        [(0, 0), (0x8, 0x8), (0x100, 0x100), (0x102, 0x4102), (0x104, 0x2104), (0x6108, 0x6108)]
    {
        assert_eq!(completed(semantics), completed_to);
    }
}

#[test]
fn arrays_of_workgroups_lose_their_strides() {
    // %5 only workgroup memory has; %6 a buffer has too, by itself; %7 within a structure.
    let decorations: [(u32, &[u32]); 3] =
        [(op::DECORATE, &[5, 6, 4]), (op::DECORATE, &[6, 6, 4]), (op::DECORATE, &[7, 6, 4])];
    let types: [(u32, &[u32]); 9] = [
        (op::TYPE_ARRAY, &[5, 1, 8]),
        (op::TYPE_ARRAY, &[6, 1, 8]),
        (op::TYPE_ARRAY, &[7, 1, 8]),
        (op::TYPE_STRUCT, &[9, 1, 7]),
        (op::TYPE_POINTER, &[10, 4, 5]),
        (op::TYPE_POINTER, &[11, 4, 6]),
        (op::TYPE_POINTER, &[12, 12, 6]),
        (op::TYPE_POINTER, &[13, 4, 7]),
        (op::TYPE_POINTER, &[14, 7, 5]),
    ];
    pass(&[&decorations[..], &types].concat(), &[&decorations[1..], &types].concat(), 0);
}

#[test]
fn what_is_no_such_module_is_refused() {
    let good = module(&[&TYPES[..], &[(59, &[2, 5, 4]), (op::STORE, &[5, 6])]].concat());
    for n in 0..good.len() {
        // Cut within an instruction: an error; between two: another module, or one without its memory model.
        let _ = with_memory_semantics(&good[..n]);
    }
    let refused = |words: &[u32], what: &str| {
        let error = with_memory_semantics(words).unwrap_err().0;
        assert!(error.contains(what), "{what}: {error}");
    };
    refused(&[], "no SPIR-V");
    refused(&good[1..], "no SPIR-V");
    refused(&HEAD, "does not declare");
    refused(&module(&[(op::MEMORY_MODEL, &[0, 1])]), "does not declare");
    refused(&good[..good.len() - 1], "3 words, and 2 are left");
    refused(&[&good[..], &[0]].concat(), "0 words");
    let with = |more: (u32, &[u32])| module(&[&TYPES[..], &[more]].concat());
    refused(&with((op::LOAD, &[1])), "too short");
    refused(&with((op::CONTROL_BARRIER, &[1, 1])), "too short");
    refused(&with((op::CONTROL_BARRIER, &[1, 1, 9])), "%9 of a barrier");
    refused(&with((op::DECORATE, &[5, COHERENT])), "coherent or volatile");
    refused(&with((op::MEMBER_DECORATE, &[5, 0, VOLATILE])), "coherent or volatile");
    refused(&with((op::COPY_MEMORY, &[5, 6])), "copies of memory");
    let mut full = module(&[&TYPES[..], &[(op::CONSTANT, &[1, 5, 0x108]), (op::CONTROL_BARRIER, &[7, 7, 5])]].concat());
    full[BOUND] = u32::MAX;
    refused(&full, "used up");
}

/// Words that are noise end in an error or in words, never in a panic.
#[test]
fn noise_ends_in_a_sentence() {
    let good = module(
        &[
            &TYPES[..],
            &[(59, &[2, 5, 4]), (op::CONSTANT, &[1, 6, 0x108]), (op::LOAD, &[1, 8, 5])],
            &[(op::CONTROL_BARRIER, &[7, 7, 6]), (op::COOPERATIVE_STORE, &[5, 6, 7, 8])],
        ]
        .concat(),
    );
    let mut state = 1u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    for _ in 0..20_000 {
        let mut words = good.clone();
        for _ in 0..=random() % 3 {
            let at = random() as usize % words.len();
            words[at] = if random() % 2 == 0 { random() % 80 } else { words[at] ^ 1 << (random() % 32) };
        }
        let _ = with_memory_semantics(&words);
    }
}
