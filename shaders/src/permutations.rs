//! The list of permutations that exist: what the test validates and what an engine may ask for.

/// Features of the stored types of weights, as [`crate::compose`] takes them, and whether they are blocks of small
/// integers: one for each `lib/dequant_NAME.wgsl`.
pub const WEIGHT_TYPES: &[(&str, bool)] = include!(concat!(env!("OUT_DIR"), "/types.rs"));

/// Features of activations.
pub const ACTS: &[&str] =
    &["SILU", "GELU_TANH", "GELU_ERF", "GELU_QUICK", "RELU", "RELU_SQUARED", "SIGMOID", "TANH", "SOFTPLUS", "IDENTITY"];

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

type Features = Vec<&'static str>;

/// The list as it grows.
struct List(Vec<Permutation>);

impl List {
    fn add(&mut self, kernel: &'static str, features: &[&[&'static str]], consts: &[(&'static str, u32)]) {
        self.0.push(Permutation { kernel, features: features.concat(), consts: consts.to_vec() });
    }
}

/// Every choice of these features.
fn choices(features: &[&'static str]) -> Vec<Features> {
    let all = 0..1usize << features.len();
    all.map(|bits| (0..features.len()).filter(|i| bits >> i & 1 == 1).map(|i| features[i]).collect()).collect()
}

/// Every permutation.
pub fn permutations() -> Vec<Permutation> {
    let mut list = List(Vec::new());
    elementwise(&mut list);
    rows(&mut list);
    attention(&mut list);
    for (dtype, blocks) in WEIGHT_TYPES {
        list.add("embed", &[&[dtype]], &[("WG", 64)]);
        products(&mut list, dtype, *blocks);
    }
    list.0
}

/// Kernels with one invocation per element.
fn elementwise(list: &mut List) {
    let wg = &[("WG", 64)];
    for kernel in ["add", "clamp", "penalise", "pool", "rope", "scale", "softcap", "take_rows"] {
        list.add(kernel, &[], wg);
    }
    list.add("scale", &[&["WEIGHT"]], wg);
    for act in ACTS {
        list.add("act", &[&[act]], wg);
        list.add("glu", &[&["GLU", act]], wg);
        list.add("glu", &[&["GLU", act, "LIMIT"]], wg);
    }
    list.add("copy", &[], &[("WG", 256)]);
}

/// Kernels that reduce rows or runs of them.
fn rows(list: &mut List) {
    for features in choices(&["LAYER", "WEIGHT", "BIAS", "IN_PLACE", "SUBGROUPS"]) {
        for wg in [64, 256] {
            list.add("norm", &[&features], &[("WG", wg)]);
        }
    }
    for features in choices(&["FIRST", "SUBGROUPS"]) {
        list.add("top_k", &[&features], &[("WG", 256), ("K", 64)]);
    }
    for features in [&[][..], &["NORM"], &["NORM", "SUBGROUPS"]] {
        list.add("quantise", &[features], &[("WG", 64)]);
    }
    list.add("pick", &[], &[("WG", 256)]);
}

fn attention(list: &mut List) {
    list.add("attend_merge", &[], &[("WG", 64)]);
    for kv in [&[][..], &["KV_F16"]] {
        list.add("kv_write", &[kv], &[("WG", 64)]);
        for clamp in [&[][..], &["CLAMP"]] {
            for norm in [&[][..], &["NORM"], &["NORM", "SUBGROUPS"]] {
                list.add("heads", &[kv, clamp, norm], &[("WG", 64), ("DIM", 128)]);
            }
        }
        for cap in [&[][..], &["CAP"]] {
            for quads in [2, 4, 16, 20, 32, 64] {
                let tile = (512 / quads).min(16);
                list.add("attend_tile", &[kv, cap], &[("KQ", quads), ("VQ", quads), ("KT", tile)]);
                for group in [1, 4, 8] {
                    let wg = crate::attend_vec_workgroup(quads, quads, group);
                    let consts = [("WG", wg), ("KQ", quads), ("VQ", quads), ("GROUP", group)];
                    list.add("attend_vec", &[kv, cap], &consts);
                }
            }
        }
    }
}

/// What may happen to a product.
fn thens() -> Vec<Features> {
    let mut all: Vec<Features> = vec![vec![], vec!["ADD"], vec!["ACT", "SILU"], vec!["GLU", "SILU"]];
    all.push(vec!["GLU", "SILU", "LIMIT"]);
    all
}

/// The products of weights of a type.
fn products(list: &mut List, dtype: &'static str, blocks: bool) {
    let plain = !blocks;
    for then in thens() {
        for vectors in choices(&["SCALE", "BIAS"]) {
            let parts: &[&[&'static str]] = &[&[dtype], &then, &vectors];
            for features in choices(&["NORM", "SUBGROUPS"]) {
                for n in [1, 2, 4, 8] {
                    list.add("linear_vec", &[parts, &[&features]].concat(), &[("WG", 64), ("ROWS", n)]);
                }
            }
            for features in choices(&["TALL", "F16"]) {
                list.add("linear_mat", &[parts, &[&features]].concat(), &[]);
            }
            for features in choices(&["F16"]) {
                list.add("linear_coop", &[parts, &[&["COOPMAT"], &features]].concat(), &[("WG", 256)]);
            }
            let special = if plain { "RAGGED" } else { "DOT4" };
            let special: &[&[&'static str]] = &[&[special]];
            let parts = &[parts, special].concat();
            for n in [1, 8] {
                list.add("linear_vec", parts, &[("WG", 64), ("ROWS", n)]);
            }
            if plain {
                list.add("linear_mat", parts, &[]);
                list.add("linear_coop", &[&parts[..], &[&["COOPMAT"]]].concat(), &[("WG", 256)]);
            }
        }
    }
}
