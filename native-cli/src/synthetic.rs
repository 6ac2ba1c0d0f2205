//! Models of random weights in realistic shapes, made in memory in seconds: `1b-q4_0` and the like, for `ir bench`.
//! Every block is valid; what such a model says means nothing.

use ir_engine::bytes::Bytes;
use ir_engine::dtype::DType;
use ir_engine::file::{GgufWriter, ModelFile};
use ir_engine::meta::MetaBuilder;

use crate::failure::{Failure, Result};
use crate::models::Recorded;

/// A dense Llama's sizes.
struct Shape {
    name: &'static str,
    width: u64,
    n_layers: u64,
    n_heads: u64,
    n_kv_heads: u64,
    hidden: u64,
    n_vocab: u64,
    context: u32,
    rope_base: f32,
    tied: bool,
}

/// The shapes by name: tiny ones, SmolLM2-135M, Llama-3.2-1B, Llama-3.2-3B, Llama-3.1-8B.
#[rustfmt::skip]
const SHAPES: &[Shape] = &[
    Shape { name: "tiny", width: 256, n_layers: 4, n_heads: 8, n_kv_heads: 4, hidden: 768, n_vocab: 2000, context: 2048, rope_base: 1e4, tied: true },
    Shape { name: "135m", width: 576, n_layers: 30, n_heads: 9, n_kv_heads: 3, hidden: 1536, n_vocab: 49152, context: 8192, rope_base: 1e5, tied: true },
    Shape { name: "1b", width: 2048, n_layers: 16, n_heads: 32, n_kv_heads: 8, hidden: 8192, n_vocab: 128_256, context: 131_072, rope_base: 5e5, tied: true },
    Shape { name: "3b", width: 3072, n_layers: 28, n_heads: 24, n_kv_heads: 8, hidden: 8192, n_vocab: 128_256, context: 131_072, rope_base: 5e5, tied: true },
    Shape { name: "8b", width: 4096, n_layers: 32, n_heads: 32, n_kv_heads: 8, hidden: 14336, n_vocab: 128_256, context: 131_072, rope_base: 5e5, tied: false },
];

/// Makes the model that `SHAPE-TYPE` names.
///
/// # Errors
/// Where the name is none, or the shape's rows are no whole blocks of the type.
pub(crate) fn model(name: &str) -> Result<Recorded> {
    let (shape, dtype) = parse(name)?;
    let (writer, tensors) = declare(shape, dtype)?;
    let mut bytes = Vec::new();
    let size = usize::try_from(writer.byte_len()).ok();
    let fits = size.is_some_and(|n| bytes.try_reserve_exact(n).is_ok());
    if !fits {
        return Err(Failure::run(format!("{name} takes more memory than there is: choose a smaller shape or type")));
    }
    bytes.extend(writer.header());
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for (dtype, n_elements) in tensors {
        random.tensor(dtype, n_elements as usize, &mut bytes);
        bytes.resize(bytes.len().next_multiple_of(32), 0);
    }
    let file = ModelFile::from_bytes(Bytes::from(bytes))?;
    Ok(Recorded::new(file)?)
}

/// The types by the names that people write, `f32, f16, ...`.
pub(crate) fn type_names() -> String {
    DType::ALL.iter().map(|d| d.name().to_lowercase()).collect::<Vec<_>>().join(", ")
}

fn parse(name: &str) -> Result<(&'static Shape, DType)> {
    let wrong = || {
        let shapes: Vec<_> = SHAPES.iter().map(|s| s.name).collect();
        let types = type_names();
        Failure::usage(format!(
            "--synthetic {name:?} is no SHAPE-TYPE: shapes are {}, types are {}",
            shapes.join(", "),
            types
        ))
    };
    let (shape, dtype) = name.split_once('-').ok_or_else(wrong)?;
    let shape = SHAPES.iter().find(|s| s.name.eq_ignore_ascii_case(shape)).ok_or_else(wrong)?;
    Ok((shape, DType::from_name(dtype).ok_or_else(wrong)?))
}

/// The file's header, and type and length of each tensor in order.
fn declare(shape: &Shape, dtype: DType) -> Result<(GgufWriter, Vec<(DType, u64)>)> {
    let (width, hidden, head_dim) = (shape.width, shape.hidden, shape.width / shape.n_heads);
    let (q, kv) = (shape.n_heads * head_dim, shape.n_kv_heads * head_dim);
    let matrix = |name: String, cols, rows| (name, vec![cols, rows], dtype);
    let vector = |name: String| (name, vec![width], DType::F32);
    let mut list = vec![matrix("token_embd.weight".into(), width, shape.n_vocab)];
    for i in 0..shape.n_layers {
        let name = |part: &str| format!("blk.{i}.{part}.weight");
        list.extend([
            vector(name("attn_norm")),
            matrix(name("attn_q"), width, q),
            matrix(name("attn_k"), width, kv),
            matrix(name("attn_v"), width, kv),
            matrix(name("attn_output"), q, width),
            vector(name("ffn_norm")),
            matrix(name("ffn_gate"), width, hidden),
            matrix(name("ffn_up"), width, hidden),
            matrix(name("ffn_down"), hidden, width),
        ]);
    }
    list.push(vector("output_norm.weight".into()));
    if !shape.tied {
        list.push(matrix("output.weight".into(), width, shape.n_vocab));
    }
    let mut writer = GgufWriter::new(metadata(shape, dtype))?;
    let mut sizes = Vec::new();
    for (name, dims, dtype) in list {
        let impossible = |_| {
            let (kind, shape) = (dtype.name().to_lowercase(), shape.name);
            Failure::usage(format!("a {shape} model has rows of {} columns, no whole blocks of {kind}", dims[0]))
        };
        writer.tensor(&name, &dims, dtype).map_err(impossible)?;
        sizes.push((dtype, dims.iter().product()));
    }
    Ok((writer, sizes))
}

fn metadata(shape: &Shape, dtype: DType) -> MetaBuilder {
    let n_vocab = shape.n_vocab as usize;
    let control = ["<unk>".to_owned(), "<s>".into(), "</s>".into()];
    let bytes = (0..256).map(|b| format!("<0x{b:02X}>"));
    let tokens: Vec<String> = control.into_iter().chain(bytes).chain((259..n_vocab).map(|i| format!("t{i}"))).collect();
    let kind = |i: usize| match i {
        0 => 2,
        1 | 2 => 3,
        3..259 => 6,
        _ => 1,
    };
    MetaBuilder::new()
        .str("general.architecture", "llama")
        .str("general.name", &format!("synthetic {} {dtype}", shape.name))
        .u32("llama.context_length", shape.context)
        .u32("llama.embedding_length", shape.width as u32)
        .u32("llama.block_count", shape.n_layers as u32)
        .u32("llama.feed_forward_length", shape.hidden as u32)
        .u32("llama.attention.head_count", shape.n_heads as u32)
        .u32("llama.attention.head_count_kv", shape.n_kv_heads as u32)
        .f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
        .f32("llama.rope.freq_base", shape.rope_base)
        .str("tokenizer.ggml.model", "llama")
        .strs("tokenizer.ggml.tokens", &tokens)
        .f32s("tokenizer.ggml.scores", &(0..n_vocab).map(|i| -(i as f32)).collect::<Vec<_>>())
        .i32s("tokenizer.ggml.token_type", &(0..n_vocab).map(kind).collect::<Vec<_>>())
        .u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.eos_token_id", 2)
        .u32("tokenizer.ggml.unknown_token_id", 0)
}

/// Marsaglia's xorshift with 64 bits of state.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Appends a tensor: random bits with the exponents or scales set. Vectors (norms) are F32 ones.
    fn tensor(&mut self, dtype: DType, n_elements: usize, out: &mut Vec<u8>) {
        let start = out.len();
        let len = dtype.bytes_for(n_elements).unwrap_or(0);
        let is_norm = dtype == DType::F32 && n_elements < 1 << 16;
        if is_norm {
            out.extend(std::iter::repeat_n(1f32.to_le_bytes(), n_elements).flatten());
            return;
        }
        // Sign and fraction random, exponent that of 2^-6: 0.016 to 0.031.
        let (keep, set) = match dtype {
            DType::F32 => (0x807F_FFFF_807F_FFFF, 0x3C80_0000_3C80_0000),
            DType::F16 => (0x83FF_83FF_83FF_83FF, 0x2400_2400_2400_2400),
            DType::BF16 => (0x807F_807F_807F_807F, 0x3C80_3C80_3C80_3C80),
            _ => (u64::MAX, 0),
        };
        while out.len() - start + 8 <= len {
            out.extend_from_slice(&(self.next() & keep | set).to_le_bytes());
        }
        let rest = len - (out.len() - start);
        out.extend_from_slice(&(self.next() & keep | set).to_le_bytes()[..rest]);
        if let Some(traits) = &dtype.traits().groups {
            let (scale, min) = traits.usual;
            out[start..].chunks_exact_mut(dtype.block_bytes()).for_each(|b| (traits.set_scale)(b, scale, min));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_decodes_to_small_finite_weights() {
        for dtype in DType::ALL {
            let mut bytes = Vec::new();
            let n = 1 << 16;
            Random(7).tensor(*dtype, n, &mut bytes);
            let mut values = vec![0.0; n];
            ir_engine::quant::decode(*dtype, &bytes, &mut values).unwrap();
            let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / n as f64;
            let rms = (values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / n as f64).sqrt();
            assert!((0.01..0.04).contains(&rms) && mean.abs() < 0.25 * rms, "{dtype}: mean {mean}, rms {rms}");
        }
    }

    #[test]
    fn every_name_makes_a_model_or_says_why_not() {
        for dtype in DType::ALL {
            let model = model(&format!("tiny-{}", dtype.name().to_lowercase())).unwrap();
            assert_eq!(model.plan.n_vocab(), 2000);
        }
        for name in ["1b", "2b-q4_0", "1b-q9", "135m-q4_k"] {
            assert!(matches!(model(name), Err(Failure::Usage(_))), "{name}");
        }
    }
}
