//! The list of permutations that exist: what the test validates and what an engine may ask for.

/// Features of the stored types of weights, as [`crate::compose`] takes them, and whether they are blocks of small
/// integers: one for each `lib/dequant_NAME.wgsl`.
pub const WEIGHT_TYPES: &[(&str, bool)] = include!(concat!(env!("OUT_DIR"), "/types.rs"));

/// Features of activations.
pub const ACTS: &[&str] = &[
    "SILU",
    "GELU_TANH",
    "GELU_ERF",
    "GELU_QUICK",
    "RELU",
    "RELU_SQUARED",
    "SIGMOID",
    "TANH",
    "SOFTPLUS",
    "SQRT",
    "EXP_BELOW",
    "IDENTITY",
];

/// How logits of experts become scores.
pub const SCORINGS: &[&str] = &["SOFTMAX", "SIGMOID", "PICKED_SOFTMAX", "SQRT_SOFTPLUS", "SPARSE_MIXER"];

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

/// What the test validates in every run: every kernel, every type of weights with the plain forms and those of most models,
/// and every feature of products with two types, one plain and one of blocks.
pub fn permutations() -> Vec<Permutation> {
    let mut list = others();
    let most = [vec![], vec!["ADD"], vec!["GLU", "SILU"]];
    for dtype in WEIGHT_TYPES {
        products(&mut list, dtype, &most, &[vec![]], &[1]);
        rows_at_once(&mut list, dtype, &[2, 4, 8]);
    }
    for dtype in WEIGHT_TYPES.iter().filter(|t| !t.1) {
        products(&mut list, dtype, &[vec![]], &[vec!["BIAS"]], &[1]);
    }
    let two = [WEIGHT_TYPES.iter().find(|t| t.0 == "bf16"), WEIGHT_TYPES.iter().find(|t| t.1)];
    for dtype in WEIGHT_TYPES {
        heads(&mut list, dtype, &[vec!["KV_F16"], vec!["KV_F16", "COHERENT"]], &[vec![]], &[1]);
    }
    for dtype in two.into_iter().flatten() {
        heads(&mut list, dtype, &caches(), &choices(&["SCALE", "BIAS"]), &[1]);
        products(&mut list, dtype, &thens(), &choices(&["SCALE", "BIAS"]), &[1]);
    }
    list.0
}

/// Every permutation: each feature of products with each type.
pub fn all_permutations() -> Vec<Permutation> {
    let mut list = others();
    for dtype in WEIGHT_TYPES {
        products(&mut list, dtype, &thens(), &choices(&["SCALE", "BIAS"]), &[1, 2, 4, 8]);
        heads(&mut list, dtype, &caches(), &choices(&["SCALE", "BIAS"]), &[1, 2, 4, 8]);
    }
    list.0
}

/// Kernels other than those of products.
fn others() -> List {
    let mut list = List(Vec::new());
    elementwise(&mut list);
    rows(&mut list);
    attention(&mut list);
    picks(&mut list);
    recurrent(&mut list);
    for (dtype, _) in WEIGHT_TYPES {
        list.add("embed", &[&[dtype]], &[("WG", 64)]);
        list.add("embed", &[&[dtype, "POSITION"]], &[("WG", 64)]);
        list.add("embed", &[&[dtype, "SEGMENT"]], &[("WG", 64)]);
    }
    list
}

/// Kernels with one invocation per element.
fn elementwise(list: &mut List) {
    let wg = &[("WG", 64)];
    for kernel in [
        "adapter_scales",
        "add",
        "clamp",
        "mix",
        "penalise",
        "pool",
        "rope",
        "scale",
        "softcap",
        "take_cols",
        "take_rows",
    ] {
        list.add(kernel, &[], wg);
    }
    list.add("scale", &[&["WEIGHT"]], wg);
    list.add("balance", &[], &[("WG", 64), ("N", 4)]);
    for act in ACTS {
        for vectors in choices(&["BIAS", "FACTOR"]) {
            list.add("act", &[&[act], &vectors], wg);
        }
        list.add("gate", &[&[act]], wg);
        list.add("glu", &[&["GLU", act]], wg);
        list.add("glu", &[&["GLU", act, "LIMIT"]], wg);
    }
    list.add("glu", &[&["GLU", "SILU", "LIMIT", "LIMITS_RESULT"]], wg);
    list.add("copy", &[], &[("WG", 256)]);
    list.add("probe_coherent", &[&["COHERENT"]], wg);
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
    for features in choices(&["NORM"]) {
        list.add("quantise", &[&features], &[("WG", 64)]);
    }
    list.add("pick", &[], &[("WG", 256)]);
}

/// Kernels of mixtures beside their products.
fn picks(list: &mut List) {
    list.add("combine", &[], &[("WG", 64)]);
    list.add("combine", &[&["UNWEIGHTED"]], &[("WG", 64)]);
    list.add("expert_linear_sort", &[], &[("WG", 256), ("E", 128)]);
    for scoring in SCORINGS {
        for more in choices(&["BIAS", "GROUPS", "SUBGROUPS"]) {
            list.add("route", &[&[scoring], &more], &[("WG", 64), ("E", 512)]);
        }
    }
}

/// Kernels with states.
fn recurrent(list: &mut List) {
    for taps in [1, 3, 4] {
        for more in choices(&["BIAS"]) {
            list.add("conv", &[&more], &[("WG", 64), ("TAPS", taps)]);
            for act in ACTS {
                list.add("conv", &[&["ACT", act], &more], &[("WG", 64), ("TAPS", taps)]);
            }
        }
    }
    for gates in choices(&["BETA", "V_SCALE"]) {
        // Strengths and factors lie beside the decays, or elsewhere.
        let apart: Vec<Features> = if gates.is_empty() { vec![vec![]] } else { choices(&["GATES"]) };
        for (apart, more) in
            apart.iter().flat_map(|apart| choices(&["K_APART", "SKIP"]).into_iter().map(move |m| (apart, m)))
        {
            // Every device binds eight buffers at once.
            let eight = apart.is_empty() || !more.contains(&"K_APART");
            if eight || !more.contains(&"SKIP") {
                list.add("recur", &[&gates, apart, &more], &[("K_DIM", 18)]);
                list.add("recur", &[&gates, apart, &more, &["DECAYS"]], &[("K_DIM", 128)]);
            }
            if eight {
                list.add("recur_columns", &[&gates, apart, &more, &["RATES"]], &[("WG", 64), ("K_DIM", 16)]);
            }
        }
    }
}

fn attention(list: &mut List) {
    let seen = [&["CHUNK"][..], &["SOURCE"], &["CROSS"]].map(<[_]>::to_vec);
    for features in choices(&["SINKS", "BOTH"]).into_iter().chain(seen) {
        list.add("attend_merge", &[&features], &[("WG", 64)]);
    }
    for kv in [&[][..], &["KV_F16"], &["KV_Q8"]] {
        for more in choices(&["TAIL", "V_IN_K"]) {
            list.add("kv_write", &[kv, &more], &[("WG", 64)]);
        }
        for clamp in [&[][..], &["CLAMP"]] {
            for norm in [&[][..], &["NORM"], &["NORM", "SUBGROUPS"]] {
                list.add("heads", &[kv, clamp, norm], &[("WG", 64), ("DIM", 128)]);
            }
        }
        // Rows of 8-bit blocks are whole blocks.
        for quads in [2, 4, 16, 20, 32, 64].into_iter().filter(|n| kv != ["KV_Q8"] || n % 8 == 0) {
            attend(list, kv, &[], quads);
        }
        attend(list, kv, &["V_IN_K"], 144);
        for scores in choices(&["HEAT", "CAP", "SLOPES", "SINKS", "BOTH"]) {
            attend(list, kv, &scores, 16);
        }
        attend(list, kv, &["BOTH"], 8);
        for scores in
            [&["CHUNK"][..], &["SOURCE"], &["CROSS"], &["RELATIVE"], &["RELATIVE", "BOTH"], &["RELATIVE", "SOURCE"]]
        {
            attend(list, kv, scores, 16);
        }
        list.add("select", &[kv, &["V_IN_K"]], &[("WG", 128), ("KQ", 32)]);
        for more in choices(&["V_IN_K", "SINKS"]) {
            let (quads, group) = if more.contains(&"V_IN_K") { (144, 3) } else { (16, 4) };
            let wg = crate::attend_vec_workgroup(quads, quads, group, true);
            let consts = [("WG", wg), ("KQ", quads), ("VQ", quads), ("GROUP", group)];
            list.add("attend_vec", &[kv, &more, &["CHOSEN"]], &consts);
        }
    }
}

/// Attention of heads of so many quads.
fn attend(list: &mut List, kv: &[&'static str], scores: &[&'static str], quads: u32) {
    let tile = (512 / quads).min(16);
    list.add("attend_tile", &[kv, scores], &[("KQ", quads), ("VQ", quads), ("KT", tile)]);
    for group in [1, 4, 8].into_iter().filter(|group| group * quads <= 512) {
        let wg = crate::attend_vec_workgroup(quads, quads, group, false);
        let consts = [("WG", wg), ("KQ", quads), ("VQ", quads), ("GROUP", group)];
        for form in [&[][..], &["COHERENT"]] {
            list.add("attend_vec", &[kv, scores, form], &consts);
        }
    }
}

/// What may happen to a product.
fn thens() -> Vec<Features> {
    let mut all: Vec<Features> = vec![vec![], vec!["ADD"]];
    for act in ACTS {
        all.extend([vec!["ACT", act], vec!["GLU", act]]);
    }
    // Limits are apart from what is between them.
    all.extend(["SILU", "GELU_QUICK"].map(|act| vec!["GLU", act, "LIMIT"]));
    all.push(vec!["GLU", "SILU", "LIMIT", "LIMITS_RESULT"]);
    all
}

/// Products of weights of a type, for these numbers of rows at once.
fn rows_at_once(list: &mut List, (dtype, _): &(&'static str, bool), rows: &[u32]) {
    for n in rows {
        few_rows(list, &[dtype], *n);
    }
}

/// Products of so many rows at once; with subgroups also those where one owns rows of the weight.
fn few_rows(list: &mut List, features: &[&'static str], n: u32) {
    // Products make the bytes of a single row themselves.
    let makes_bytes = features.contains(&"DOT4") && !features.contains(&"BYTES");
    if n == 1 || !makes_bytes {
        list.add("linear_vec", &[features], &[("WG", 64), ("ROWS", n)]);
    }
    if features.contains(&"SUBGROUPS") && !makes_bytes {
        list.add("linear_vec", &[features, &["OWNED"]], &[("WG", 128), ("ROWS", n)]);
    }
}

/// What products of few rows have beside norms and subgroups: of blocks x as bytes, of plain types any number of columns.
fn special(blocks: bool) -> Vec<Features> {
    let alone = if blocks {
        choices(&["BYTES", "NORM"]).into_iter().map(|more| [&["DOT4"][..], &more].concat()).collect()
    } else {
        vec![vec!["RAGGED"]]
    };
    let subgroups = alone.iter().map(|features| [&features[..], &["SUBGROUPS"]].concat()).collect::<Vec<_>>();
    [alone, subgroups].concat()
}

/// The caches that a product of few rows writes itself, with what it does to heads in front of that; with COHERENT heads have
/// norms and caches scales.
fn caches() -> Vec<Features> {
    let whole = choices(&["CLAMP"])
        .into_iter()
        .flat_map(|clamp| [&[][..], &["KV_F16"], &["KV_Q8"]].map(|kv| [&["COHERENT"][..], kv, &clamp].concat()));
    choices(&["KV_F16", "CLAMP"]).into_iter().chain(whole).collect()
}

/// Products of few rows whose columns are heads.
fn heads(
    list: &mut List,
    (dtype, blocks): &(&'static str, bool),
    caches: &[Features],
    vectors: &[Features],
    rows: &[u32],
) {
    let forms: Vec<Features> = choices(&["NORM", "SUBGROUPS"]).into_iter().chain(special(*blocks)).collect();
    for (cache, vectors) in caches.iter().flat_map(|cache| vectors.iter().map(move |v| (cache, v))) {
        for (features, n) in forms.iter().flat_map(|features| rows.iter().map(move |n| (features, n))) {
            few_rows(list, &[&[*dtype, "QKV"][..], cache, vectors, features].concat(), *n);
        }
    }
}

/// Products of weights of a type: what happens to them, and vectors beside them, each with each.
fn products(
    list: &mut List,
    (dtype, blocks): &(&'static str, bool),
    thens: &[Features],
    vectors: &[Features],
    rows: &[u32],
) {
    for (then, vectors) in thens.iter().flat_map(|then| vectors.iter().map(move |v| (then, v))) {
        let parts = [&[*dtype][..], then, vectors].concat();
        for features in choices(&["NORM", "SUBGROUPS"]).into_iter().chain(special(*blocks)) {
            for n in rows {
                few_rows(list, &[&parts[..], &features].concat(), *n);
            }
        }
        let ragged = (!blocks).then(|| choices(&["F16"]).into_iter().map(|f| [&["RAGGED"][..], &f].concat()));
        let ragged: Vec<Features> = ragged.into_iter().flatten().collect();
        for features in choices(&["TALL", "F16"]).iter().chain(&ragged) {
            list.add("linear_mat", &[&parts, features], &[]);
        }
        if !then.contains(&"ADD") {
            stacks(list, &parts, *blocks, rows);
        }
        for features in choices(&["F16"]).iter().chain(&ragged) {
            list.add("linear_coop", &[&parts, &["COOPMAT"], features], &[("WG", 256)]);
        }
    }
}

/// Products with matrices of a stack: picked ones, and those of heads, which have nothing beside them.
fn stacks(list: &mut List, parts: &[&'static str], blocks: bool, rows: &[u32]) {
    if !rows.contains(&1) {
        return;
    }
    let one = &[("WG", 64), ("ROWS", 1)];
    let special = special(blocks).into_iter().filter(|features| !features.contains(&"NORM"));
    for more in choices(&["SUBGROUPS"]).into_iter().chain(special) {
        list.add("expert_linear", &[parts, &["STACK"], &more], one);
        if more.contains(&"BYTES") || !more.contains(&"DOT4") {
            let together = &[("WG", 64), ("ROWS", 4), ("MOST", 256)];
            list.add("expert_linear", &[parts, &["STACK", "TOGETHER"], &more], together);
        }
    }
    let forms: &[&str] = if blocks { &["F16"] } else { &["RAGGED", "F16"] };
    for more in choices(forms) {
        list.add("linear_mat", &[parts, &["STACK"], &more], &[]);
    }
    if parts.len() == 1 {
        for more in choices(&["RAGGED", "SUBGROUPS"]) {
            list.add("head_linear", &[parts, &["STACK", "HEADS"], &more], one);
        }
        for more in choices(&["RAGGED", "F16"]) {
            list.add("linear_mat", &[parts, &["STACK", "HEADS"], &more], &[]);
        }
    }
}
