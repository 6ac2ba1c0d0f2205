//! Shapes of synthetic models: the metadata and tensors of each, as its architecture's files have them. Dense Llamas in the
//! sizes of published models; one of every other kind, scaled down to about half a billion weights.

use ir_engine::meta::MetaBuilder;

use super::more_shapes;

/// How a tensor is filled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fill {
    /// Random, in the model's type.
    Matrix,
    /// Random, in the model's type, or in 8 bits if a head's columns are no whole blocks of it.
    OfHeads,
    /// Random, as F32.
    Floats,
    /// Everywhere this, as F32.
    Constant(f32),
}

/// A tensor to be made.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tensor {
    pub name: String,
    pub dims: Vec<u64>,
    pub fill: Fill,
}

/// A model to be made.
#[derive(Debug)]
pub(super) struct Draft {
    arch: &'static str,
    /// Of the architecture and of the shape; not of the vocabulary.
    pub meta: MetaBuilder,
    pub tensors: Vec<Tensor>,
    width: u64,
    prefix: String,
    /// The norm in front of the head.
    pub last_norm: Option<&'static str>,
    /// Tables with a row for each entry of the vocabulary, and their columns.
    tables: Vec<(&'static str, u64)>,
}

/// What follows attention in a layer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Feed {
    /// So many columns.
    Dense(u64),
    /// `n` experts of which `used` compute a row, and one for all rows.
    Experts { n: u64, used: u64, hidden: u64 },
}

/// A shape's name, size of its vocabulary, and how it is drawn.
pub(super) struct Shape {
    pub name: &'static str,
    pub n_vocab: u64,
    draw: Drawn,
}

enum Drawn {
    Dense(Dense),
    By(fn(&mut Draft)),
}

/// A dense Llama's sizes.
struct Dense {
    width: u64,
    n_layers: u32,
    n_heads: u64,
    n_kv_heads: u64,
    hidden: u64,
    context: u32,
    rope_base: f32,
    tied: bool,
}

/// The shapes: tiny ones, SmolLM2-135M, Llama-3.2-1B, Llama-3.2-3B, Llama-3.1-8B, and the other kinds.
#[rustfmt::skip]
pub(super) const SHAPES: &[Shape] = &[
    Shape { name: "tiny", n_vocab: 2000, draw: Drawn::Dense(Dense { width: 256, n_layers: 4, n_heads: 8, n_kv_heads: 4, hidden: 768, context: 2048, rope_base: 1e4, tied: true }) },
    Shape { name: "135m", n_vocab: 49152, draw: Drawn::Dense(Dense { width: 576, n_layers: 30, n_heads: 9, n_kv_heads: 3, hidden: 1536, context: 8192, rope_base: 1e5, tied: true }) },
    Shape { name: "1b", n_vocab: 128_256, draw: Drawn::Dense(Dense { width: 2048, n_layers: 16, n_heads: 32, n_kv_heads: 8, hidden: 8192, context: 131_072, rope_base: 5e5, tied: true }) },
    Shape { name: "3b", n_vocab: 128_256, draw: Drawn::Dense(Dense { width: 3072, n_layers: 28, n_heads: 24, n_kv_heads: 8, hidden: 8192, context: 131_072, rope_base: 5e5, tied: true }) },
    Shape { name: "8b", n_vocab: 128_256, draw: Drawn::Dense(Dense { width: 4096, n_layers: 32, n_heads: 32, n_kv_heads: 8, hidden: 14336, context: 131_072, rope_base: 5e5, tied: false }) },
    Shape { name: "mixture", n_vocab: 32768, draw: Drawn::By(mixture) },
    Shape { name: "window", n_vocab: 32768, draw: Drawn::By(window) },
    Shape { name: "hybrid", n_vocab: 32768, draw: Drawn::By(hybrid) },
    Shape { name: "latent", n_vocab: 32768, draw: Drawn::By(more_shapes::latent) },
    Shape { name: "gemma4", n_vocab: 32768, draw: Drawn::By(more_shapes::gemma4) },
    Shape { name: "gpt-oss", n_vocab: 32768, draw: Drawn::By(more_shapes::gpt_oss) },
    Shape { name: "lfm2", n_vocab: 32768, draw: Drawn::By(more_shapes::lfm2) },
    Shape { name: "nomic", n_vocab: 30522, draw: Drawn::By(more_shapes::nomic) },
    Shape { name: "qwen35moe", n_vocab: 32768, draw: Drawn::By(more_shapes::qwen35moe) },
    Shape { name: "tiny-mixture", n_vocab: 2000, draw: Drawn::By(tiny_mixture) },
    Shape { name: "tiny-window", n_vocab: 2000, draw: Drawn::By(tiny_window) },
    Shape { name: "tiny-hybrid", n_vocab: 2000, draw: Drawn::By(tiny_hybrid) },
    Shape { name: "tiny-latent", n_vocab: 2000, draw: Drawn::By(more_shapes::tiny_latent) },
];

impl Shape {
    /// Draws the model.
    pub(super) fn draft(&self) -> Draft {
        let meta = MetaBuilder::new();
        let mut draft = Draft {
            arch: "llama",
            meta,
            tensors: Vec::new(),
            width: 0,
            prefix: String::new(),
            last_norm: Some("output_norm"),
            tables: Vec::new(),
        };
        match &self.draw {
            Drawn::Dense(sizes) => dense(&mut draft, sizes),
            Drawn::By(draw) => draw(&mut draft),
        }
        draft.prefix.clear();
        if let Some(norm) = draft.last_norm {
            draft.ones(norm, draft.width);
        }
        draft.matrix_of_vocabulary("token_embd", draft.width);
        for (name, columns) in std::mem::take(&mut draft.tables) {
            draft.matrix(name, columns, self.n_vocab);
        }
        if let Drawn::Dense(Dense { tied: false, .. }) = self.draw {
            draft.matrix("output", draft.width, self.n_vocab);
        }
        draft
    }
}

impl Draft {
    /// Begins a model: the keys that all architectures have.
    pub(super) fn begin(&mut self, arch: &'static str, width: u64, n_layers: u32, context: u32, eps: f32) {
        (self.arch, self.width) = (arch, width);
        self.meta = MetaBuilder::new().str("general.architecture", arch);
        self.count("embedding_length", width);
        self.count("block_count", n_layers.into());
        self.count("context_length", context.into());
        self.number("attention.layer_norm_rms_epsilon", eps);
    }

    pub(super) fn layer(&mut self, i: u32) {
        self.prefix = format!("blk.{i}.");
    }

    pub(super) fn count(&mut self, key: &str, value: u64) {
        self.meta = std::mem::take(&mut self.meta).u32(&format!("{}.{key}", self.arch), value as u32);
    }

    pub(super) fn counts(&mut self, pairs: &[(&str, u64)]) {
        pairs.iter().for_each(|(key, value)| self.count(key, *value));
    }

    pub(super) fn number(&mut self, key: &str, value: f32) {
        self.meta = std::mem::take(&mut self.meta).f32(&format!("{}.{key}", self.arch), value);
    }

    pub(super) fn tensor(&mut self, name: &str, dims: &[u64], fill: Fill) {
        self.tensors.push(Tensor { name: format!("{}{name}", self.prefix), dims: dims.to_vec(), fill });
    }

    /// `cols` are contiguous.
    pub(super) fn matrix(&mut self, name: &str, cols: u64, rows: u64) {
        self.tensor(&format!("{name}.weight"), &[cols, rows], Fill::Matrix);
    }

    /// A matrix with a row for each entry of the vocabulary.
    pub(super) fn matrix_of_vocabulary(&mut self, name: &'static str, columns: u64) {
        self.tables.push((name, columns));
    }

    pub(super) fn stack(&mut self, name: &str, cols: u64, rows: u64, n: u64) {
        self.tensor(&format!("{name}.weight"), &[cols, rows, n], Fill::Matrix);
    }

    pub(super) fn ones(&mut self, name: &str, n: u64) {
        self.tensor(&format!("{name}.weight"), &[n], Fill::Constant(1.0));
    }

    /// Queries, keys, values and what brings back: `q` and `kv` columns, out of `seen`.
    pub(super) fn attention(&mut self, q: u64, kv: u64, seen: u64) {
        let width = self.width;
        self.matrix("attn_q", width, q);
        self.matrix("attn_k", width, kv);
        self.matrix("attn_v", width, kv);
        self.matrix("attn_output", seen, width);
    }

    pub(super) fn feed_forward(&mut self, hidden: u64) {
        let width = self.width;
        self.matrix("ffn_gate", width, hidden);
        self.matrix("ffn_up", width, hidden);
        self.matrix("ffn_down", hidden, width);
    }

    pub(super) fn shared_expert(&mut self, hidden: u64) {
        let width = self.width;
        self.matrix("ffn_gate_shexp", width, hidden);
        self.matrix("ffn_up_shexp", width, hidden);
        self.matrix("ffn_down_shexp", hidden, width);
    }

    pub(super) fn experts(&mut self, n: u64, hidden: u64) {
        let width = self.width;
        self.tensor("ffn_gate_inp.weight", &[width, n], Fill::Floats);
        self.stack("ffn_gate_exps", width, hidden, n);
        self.stack("ffn_up_exps", width, hidden, n);
        self.stack("ffn_down_exps", hidden, width, n);
    }
}

fn dense(d: &mut Draft, sizes: &Dense) {
    let Dense { width, n_layers, n_heads, n_kv_heads, hidden, context, rope_base, tied: _ } = *sizes;
    let head_dim = width / n_heads;
    d.begin("llama", width, n_layers, context, 1e-5);
    d.counts(&[
        ("feed_forward_length", hidden),
        ("attention.head_count", n_heads),
        ("attention.head_count_kv", n_kv_heads),
    ]);
    d.number("rope.freq_base", rope_base);
    for i in 0..n_layers {
        d.layer(i);
        d.ones("attn_norm", width);
        d.attention(width, n_kv_heads * head_dim, width);
        d.ones("ffn_norm", width);
        d.feed_forward(hidden);
    }
}

fn mixture(d: &mut Draft) {
    qwen3_moe(d, 1024, 8, [16, 4, 128], [64, 8, 512]);
}

fn tiny_mixture(d: &mut Draft) {
    qwen3_moe(d, 256, 3, [4, 2, 64], [8, 2, 256]);
}

/// Qwen3-MoE: `[heads, KV heads, their size]`, `[experts, used, their columns]`.
fn qwen3_moe(d: &mut Draft, width: u64, n_layers: u32, heads: [u64; 3], experts: [u64; 3]) {
    let [n_heads, n_kv_heads, dim] = heads;
    let [n, used, hidden] = experts;
    d.begin("qwen3moe", width, n_layers, 40_960, 1e-6);
    d.counts(&[
        ("feed_forward_length", 3 * width),
        ("expert_feed_forward_length", hidden),
        ("expert_count", n),
        ("expert_used_count", used),
        ("attention.head_count", n_heads),
        ("attention.head_count_kv", n_kv_heads),
        ("attention.key_length", dim),
        ("attention.value_length", dim),
    ]);
    d.number("rope.freq_base", 1e6);
    for i in 0..n_layers {
        d.layer(i);
        d.ones("attn_norm", width);
        d.attention(n_heads * dim, n_kv_heads * dim, n_heads * dim);
        d.ones("attn_q_norm", dim);
        d.ones("attn_k_norm", dim);
        d.ones("ffn_norm", width);
        d.experts(n, hidden);
    }
}

fn window(d: &mut Draft) {
    gemma3(d, 1024, 26, [4, 1, 256], 4096, 1024);
}

fn tiny_window(d: &mut Draft) {
    gemma3(d, 256, 7, [4, 1, 64], 768, 64);
}

/// Gemma 3: five layers with a window to one without.
fn gemma3(d: &mut Draft, width: u64, n_layers: u32, heads: [u64; 3], hidden: u64, window: u64) {
    let [n_heads, n_kv_heads, dim] = heads;
    d.begin("gemma3", width, n_layers, 131_072, 1e-6);
    d.counts(&[
        ("feed_forward_length", hidden),
        ("attention.head_count", n_heads),
        ("attention.head_count_kv", n_kv_heads),
        ("attention.key_length", dim),
        ("attention.value_length", dim),
        ("attention.sliding_window", window),
    ]);
    d.number("rope.freq_base", 1e6);
    d.number("rope.freq_base_swa", 1e4);
    for i in 0..n_layers {
        d.layer(i);
        d.ones("attn_norm", width);
        d.attention(n_heads * dim, n_kv_heads * dim, n_heads * dim);
        d.ones("attn_q_norm", dim);
        d.ones("attn_k_norm", dim);
        d.ones("post_attention_norm", width);
        d.ones("ffn_norm", width);
        d.feed_forward(hidden);
        d.ones("post_ffw_norm", width);
    }
}

fn hybrid(d: &mut Draft) {
    qwen35(d, "qwen35", 1024, 16, [8, 2, 256], [16, 16, 128], Feed::Dense(3584));
}

fn tiny_hybrid(d: &mut Draft) {
    qwen35(d, "qwen35", 256, 4, [4, 1, 128], [4, 2, 64], Feed::Dense(512));
}

/// Qwen3.5: three gated delta nets to one layer of gated attention. `[heads of values, of keys, their size]`.
pub(super) fn qwen35(
    d: &mut Draft,
    arch: &'static str,
    width: u64,
    n_layers: u32,
    heads: [u64; 3],
    recurrent: [u64; 3],
    feed: Feed,
) {
    let ([n_heads, n_kv_heads, dim], [values, keys, state], taps) = (heads, recurrent, 4);
    let (inner, mixed) = (values * state, (values + 2 * keys) * state);
    d.begin(arch, width, n_layers, 131_072, 1e-6);
    match feed {
        Feed::Dense(hidden) => d.count("feed_forward_length", hidden),
        Feed::Experts { n, used, hidden } => d.counts(&[
            ("expert_feed_forward_length", hidden),
            ("expert_shared_feed_forward_length", hidden),
            ("expert_count", n),
            ("expert_used_count", used),
        ]),
    }
    d.counts(&[
        ("attention.head_count", n_heads),
        ("attention.head_count_kv", n_kv_heads),
        ("attention.key_length", dim),
        ("attention.value_length", dim),
        ("rope.dimension_count", dim / 4),
        ("full_attention_interval", 4),
        ("ssm.conv_kernel", taps),
        ("ssm.state_size", state),
        ("ssm.group_count", keys),
        ("ssm.time_step_rank", values),
        ("ssm.inner_size", inner),
    ]);
    let sections = [11, 11, 10].map(|of_32: i32| of_32 * dim as i32 / 256);
    let sections = [&sections[..], &[0]].concat();
    d.meta = std::mem::take(&mut d.meta).i32s(&format!("{arch}.rope.dimension_sections"), &sections);
    d.number("rope.freq_base", 1e7);
    for i in 0..n_layers {
        d.layer(i);
        d.ones("attn_norm", width);
        if (i + 1) % 4 == 0 {
            d.attention(2 * n_heads * dim, n_kv_heads * dim, n_heads * dim);
            d.ones("attn_q_norm", dim);
            d.ones("attn_k_norm", dim);
        } else {
            d.matrix("attn_qkv", width, mixed);
            d.matrix("attn_gate", width, inner);
            d.matrix("ssm_alpha", width, values);
            d.matrix("ssm_beta", width, values);
            d.tensor("ssm_conv1d.weight", &[taps, mixed], Fill::Constant(0.25));
            d.tensor("ssm_dt.bias", &[values], Fill::Constant(0.5));
            d.tensor("ssm_a", &[values], Fill::Constant(-0.5));
            d.ones("ssm_norm", state);
            d.matrix("ssm_out", inner, width);
        }
        d.ones("post_attention_norm", width);
        match feed {
            Feed::Dense(hidden) => d.feed_forward(hidden),
            Feed::Experts { n, hidden, .. } => {
                d.experts(n, hidden);
                d.shared_expert(hidden);
                d.tensor("ffn_gate_inp_shexp.weight", &[width], Fill::Floats);
            }
        }
    }
}
