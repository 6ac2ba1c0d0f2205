//! `ir-shaders`: the WGSL kernels of `ir` in real files, and the composer that puts them together.
//!
//! No device, no engine: text in, text out. Every listed permutation is validated and translated to SPIR-V, MSL and HLSL
//! by an ordinary test (`tests/validate.rs`). The rules of the files:
//!
//! - One kernel per file in `kernels/`, shared code in `lib/` by `#import name`, each at most once.
//! - Features are `#ifdef NAME`: `F16`, `SUBGROUPS`, `DOT4`, `COOPMAT`, `COHERENT`, a block type, an activation ([`ACTS`]),
//!   or a part of an op (`NORM`, `SCALE`, `BIAS`, `ADD`, `ACT`, `GLU`, `QKV`, `STACK`...).
//! - Numbers are `const` lines put before the text: `WG` and the like from the caller, [`STEP`] always.
//! - Binding 0 is the uniform `p: Params` (fields of four bytes), binding 1 the step's inputs. The engine finds bindings
//!   and parameters by their names in [`Composed`]; no second list of them exists.
//! - A row count is never a constant: kernels read it from the step and check their edges.
//! - A variable has its first value written out: Chromium's compiler for Vulkan sets one without it only once, not in each
//!   turn of a loop.

mod compose;
mod permutations;

pub use compose::{Access, Binding};
pub use permutations::{ACTS, Permutation, SCORINGS, WEIGHT_TYPES, all_permutations, permutations};

/// Why a kernel could not be composed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(pub String);

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Whose compiler reads the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Target {
    /// naga, in wgpu natively: refuses `enable subgroups;`.
    #[default]
    Naga,
    /// Tint, in Chrome and Dawn: demands it.
    Tint,
}

/// A kernel ready for a compiler, entry point `main`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composed {
    /// The text.
    pub wgsl: String,
    /// What it binds in group 0, by number.
    pub bindings: Vec<Binding>,
    /// The fields of its parameters in order, four bytes each.
    pub params: Vec<String>,
}

/// Words of the header of a step's inputs, and marks in them: `(name in WGSL, word)`. Places are counted in words.
pub const STEP: &[(&str, u32)] = &[
    ("STEP_N_TOKENS", 0),
    ("STEP_N_OUTPUTS", 1),
    // Rows that attend_vec takes, splits of each one's positions, and positions per split (a multiple of its WG).
    ("STEP_N_SINGLES", 2),
    ("STEP_N_SPLITS", 3),
    ("STEP_CHUNK", 4),
    // Tiles of rows that attend_tile takes.
    ("STEP_N_TILES", 5),
    ("STEP_N_PENALTIES", 6),
    ("STEP_MINUS_INFINITY", 7),
    // Where lists begin: per token its id and position and where its page list begins; per output its row...
    ("STEP_TOKENS", 8),
    ("STEP_POSITIONS", 9),
    ("STEP_TABLES", 10),
    ("STEP_OUTPUTS", 11),
    // ... rows of attend_vec; (first row, rows, first position, page list of the first
    // group) of each tile of attend_tile ...
    ("STEP_SINGLES", 12),
    ("STEP_TILES", 13),
    // ... (row, token, bias, factor, penalty); per output (draw, draw, 1 / temperature,
    // logarithm of min-p).
    ("STEP_PENALTIES", 14),
    // Per token the text of a pair that it belongs to: where the list begins, or 0 if all belong to the first.
    ("STEP_SEGMENTS", 15),
    ("STEP_SEEDS", 16),
    // Means of rows that are wanted, and where (first row, rows) of each begin.
    ("STEP_N_POOLS", 17),
    ("STEP_POOLS", 18),
    // The rows of each sequence: (first row, rows, slot of its state before the step or none, slot after it).
    ("STEP_N_RUNS", 19),
    ("STEP_RUNS", 20),
    // Per token the position behind the last row of its sequence in the step.
    ("STEP_ENDS", 21),
    // Where the page tables of the groups of caches behind the first begin, up to eight of them.
    ("STEP_WINDOW_TABLES", 22),
    // Where the factors of adapters begin: those of each row, one after the other.
    ("STEP_ADAPTERS", 30),
    // Where the list begins that says per token how many of its sequence's first positions are its source; 0 if none are.
    ("STEP_SOURCES", 31),
    ("STEP_HEADER", 32),
    // Set in a token id that is the index of an output of the step before.
    ("STEP_PICKED_BIT", 0x8000_0000),
];

/// The word that `name` stands for in [`STEP`]. Usable in constants; an unknown name fails to compile there.
///
/// # Panics
/// Where the name is unknown.
pub const fn step_word(name: &str) -> u32 {
    let mut i = 0;
    while i < STEP.len() {
        if equal(STEP[i].0.as_bytes(), name.as_bytes()) {
            return STEP[i].1;
        }
        i += 1;
    }
    panic!("no word of a step has this name")
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

/// Every kernel: its name and its source.
pub const KERNELS: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// What kernels import.
const LIBRARY: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/lib.rs"));

/// Invocations of attend_vec's workgroup: as many as its arrays allow in the 16 KiB that every device has, 256 at most. `kq`
/// and `vq` are quads of K and of V, at most 256; `group` the query heads of a workgroup; `chosen`, whether rows have lists of
/// positions.
pub const fn attend_vec_workgroup(kq: u32, vq: u32, group: u32, chosen: bool) -> u32 {
    let mut wg = 256;
    // Of each invocation a quad of the result, and a page or a place.
    let own = if chosen { 20 } else { 17 };
    while wg > 64 && wg / 2 >= vq && 16 * group * kq + 4 * group * (wg + 16) + own * wg > 16 << 10 {
        wg /= 2;
    }
    wg
}

fn find(list: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    list.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
}

/// Puts a kernel together for `target`, with these features and numbers.
///
/// # Errors
/// Where no kernel has that name, or its text breaks the rules of the composer.
pub fn compose(kernel: &str, features: &[&str], consts: &[(&str, u32)], target: Target) -> Result<Composed, Error> {
    let source = find(KERNELS, kernel).ok_or_else(|| Error(format!("no kernel is named {kernel:?}")))?;
    compose::compose(source, &|name| find(LIBRARY, name), features, consts, target)
        .map_err(|error| Error(format!("kernel {kernel}: {error}")))
}
