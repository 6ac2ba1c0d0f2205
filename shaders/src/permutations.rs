//! The list of permutations that exist: what the test validates and what an engine may ask for.

/// Features of the stored types of weights, as [`crate::compose`] takes them, and whether they are blocks of small
/// integers: one for each `lib/dequant_NAME.wgsl`.
pub const WEIGHT_TYPES: &[(&str, bool)] = include!(concat!(env!("OUT_DIR"), "/types.rs"));

/// One way to compose a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permutation {
    /// The kernel.
    pub kernel: &'static str,
    /// Its features.
    pub features: Vec<&'static str>,
    /// Its numbers.
    pub consts: Vec<(&'static str, u32)>,
}

/// Sets of optional features: every line of `sets` with and without `SUBGROUPS` where the kernel reduces.
fn each(sets: &[&[&'static str]], with: &[&'static str]) -> Vec<Vec<&'static str>> {
    let plain = sets.iter().map(|s| s.to_vec());
    plain.clone().chain(with.iter().flat_map(|w| plain.clone().map(move |s| [s, vec![*w]].concat()))).collect()
}

/// Every permutation.
pub fn permutations() -> Vec<Permutation> {
    let mut all = Vec::new();
    let mut add = |kernel, features: Vec<&'static str>, consts: &[(&'static str, u32)]| {
        all.push(Permutation { kernel, features, consts: consts.to_vec() });
    };
    for kernel in ["add", "attend_merge", "glu", "mask", "penalise", "pool", "rope", "take_rows"] {
        add(kernel, vec![], &[("WG", 64)]);
    }
    add("copy", vec![], &[("WG", 256)]);
    add("pick", vec![], &[("WG", 256)]);
    for features in each(&[&[]], &["SUBGROUPS"]) {
        add("norm", features.clone(), &[("WG", 256)]);
        add("norm", features, &[("WG", 64)]);
    }
    for features in each(&[&[], &["FIRST"]], &["SUBGROUPS"]) {
        add("top_k", features, &[("WG", 256), ("K", 64)]);
    }
    for features in [&[][..], &["NORM"], &["NORM", "SUBGROUPS"]] {
        add("quantise", features.to_vec(), &[("WG", 64)]);
    }
    for kv in [&[][..], &["KV_F16"]] {
        add("kv_write", kv.to_vec(), &[("WG", 64)]);
        for features in [&[][..], &["QK_NORM"], &["QK_NORM", "SUBGROUPS"]] {
            add("rope_kv", [kv, features].concat(), &[("WG", 64), ("DIM", 128)]);
        }
        for quads in [2, 4, 16, 20, 32, 64] {
            let tile = (512 / quads).min(16);
            add("attend_tile", kv.to_vec(), &[("KQ", quads), ("VQ", quads), ("KT", tile)]);
            for group in [1, 4, 8] {
                let wg = crate::attend_vec_workgroup(quads, quads, group);
                add("attend_vec", kv.to_vec(), &[("WG", wg), ("KQ", quads), ("VQ", quads), ("GROUP", group)]);
            }
        }
    }
    for (dtype, blocks) in WEIGHT_TYPES {
        add("embed", vec![dtype], &[("WG", 64)]);
        let sets: &[&[&'static str]] = &[
            &[],
            &["NORM"],
            &["NORM", "BIAS"],
            &["NORM", "GLU"],
            &["NORM", "GLU", "BIAS"],
            &["ADD"],
            &["ADD", "BIAS"],
        ];
        for features in each(sets, &["SUBGROUPS"]) {
            for rows in [1, 2, 4, 8] {
                add("linear_vec", [&[*dtype][..], &features].concat(), &[("WG", 64), ("ROWS", rows)]);
            }
        }
        let sets: &[&[&'static str]] = &[
            &[],
            &["BIAS"],
            &["GLU"],
            &["GLU", "BIAS"],
            &["ADD"],
            &["ADD", "BIAS"],
            &["TALL"],
            &["TALL", "GLU"],
            &["TALL", "ADD"],
        ];
        for features in each(sets, &["F16"]) {
            add("linear_mat", [&[*dtype][..], &features].concat(), &[]);
        }
        for features in each(&[&[], &["BIAS"], &["GLU"], &["GLU", "BIAS"], &["ADD"], &["ADD", "BIAS"]], &["F16"]) {
            add("linear_coop", [&[*dtype, "COOPMAT"][..], &features].concat(), &[("WG", 256)]);
        }
        if !blocks {
            for features in [&["RAGGED"][..], &["RAGGED", "BIAS"], &["RAGGED", "ADD"], &["RAGGED", "GLU"]] {
                add("linear_coop", [&[*dtype, "COOPMAT"][..], features].concat(), &[("WG", 256)]);
            }
            for features in [&["RAGGED"][..], &["RAGGED", "BIAS"], &["RAGGED", "ADD"], &["RAGGED", "GLU"]] {
                add("linear_vec", [&[*dtype][..], features].concat(), &[("WG", 64), ("ROWS", 8)]);
                add("linear_mat", [&[*dtype][..], features].concat(), &[]);
            }
        } else {
            for features in each(&[&["DOT4"], &["DOT4", "GLU"], &["DOT4", "ADD"], &["DOT4", "BIAS"]], &["SUBGROUPS"]) {
                for rows in [1, 4] {
                    add("linear_vec", [&[*dtype][..], &features].concat(), &[("WG", 64), ("ROWS", rows)]);
                }
            }
        }
    }
    all
}
