//! Models of random weights in realistic shapes, made in memory in seconds: `1b-q4_0`, `mixture-q8_0` and the like, for
//! `ir bench`.
//! Every block is valid; what such a model says means nothing.

mod more_shapes;
mod shapes;

use ir_engine::bytes::Bytes;
use ir_engine::device::KvKind;
use ir_engine::dtype::DType;
use ir_engine::file::{GgufWriter, ModelFile};
use ir_engine::meta::MetaBuilder;

use crate::failure::{Failure, Result};
use crate::models::Recorded;
use shapes::{Fill, SHAPES, Shape, Tensor};

/// Makes the model that `SHAPE-TYPE` names.
///
/// # Errors
/// Where the name is none, or the shape's rows are no whole blocks of the type.
pub(crate) fn model(name: &str) -> Result<Recorded> {
    Ok(Recorded::new(ModelFile::from_bytes(Bytes::from(bytes(name)?))?, &[])?)
}

/// The same as a GGUF file's bytes.
///
/// # Errors
/// As [`model`].
pub(crate) fn bytes(name: &str) -> Result<Vec<u8>> {
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
    for tensor in tensors {
        let n = tensor.dims.iter().product::<u64>() as usize;
        match tensor.fill {
            Fill::Constant(x) => bytes.extend(std::iter::repeat_n(x.to_le_bytes(), n).flatten()),
            _ => random.tensor(type_of(&tensor, dtype), n, &mut bytes),
        }
        bytes.resize(bytes.len().next_multiple_of(32), 0);
    }
    Ok(bytes)
}

/// The types that files hold.
fn types() -> impl Iterator<Item = DType> {
    DType::ALL.iter().copied().filter(|dtype| !dtype.is_of_folders())
}

/// The types by the names that people write, `f32, f16, ...`.
pub(crate) fn type_names() -> String {
    types().map(|d| d.name().to_lowercase()).collect::<Vec<_>>().join(", ")
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
    let (shape, dtype) = name.rsplit_once('-').ok_or_else(wrong)?;
    let shape = SHAPES.iter().find(|s| s.name.eq_ignore_ascii_case(shape)).ok_or_else(wrong)?;
    let dtype = DType::from_name(dtype).filter(|dtype| !dtype.is_of_folders());
    Ok((shape, dtype.ok_or_else(wrong)?))
}

/// The file's header, and its tensors in order.
fn declare(shape: &Shape, dtype: DType) -> Result<(GgufWriter, Vec<Tensor>)> {
    let draft = shape.draft();
    let meta = vocabulary(draft.meta, shape.n_vocab as usize);
    let mut writer = GgufWriter::new(meta.str("general.name", &format!("synthetic {} {dtype}", shape.name)))?;
    for tensor in &draft.tensors {
        let Tensor { name, dims, .. } = tensor;
        let kind = type_of(tensor, dtype);
        let impossible = |_| {
            let kind = dtype.name().to_lowercase();
            Failure::usage(format!("a {} model has rows of {} columns, no whole blocks of {kind}", shape.name, dims[0]))
        };
        writer.tensor(name, dims, kind).map_err(impossible)?;
    }
    Ok((writer, draft.tensors))
}

/// The type of a tensor in a model of a type.
fn type_of(tensor: &Tensor, dtype: DType) -> DType {
    match tensor.fill {
        Fill::Matrix => dtype,
        Fill::OfHeads if tensor.dims[0].is_multiple_of(dtype.block_len() as u64) => dtype,
        Fill::OfHeads => KvKind::Blocks8.dtype(),
        Fill::Floats | Fill::Constant(_) => DType::F32,
    }
}

/// A vocabulary of bytes and made-up words.
fn vocabulary(meta: MetaBuilder, n_vocab: usize) -> MetaBuilder {
    let control = ["<unk>".to_owned(), "<s>".into(), "</s>".into()];
    let bytes = (0..256).map(|b| format!("<0x{b:02X}>"));
    let tokens: Vec<String> = control.into_iter().chain(bytes).chain((259..n_vocab).map(|i| format!("t{i}"))).collect();
    let kind = |i: usize| match i {
        0 => 2,
        1 | 2 => 3,
        3..259 => 6,
        _ => 1,
    };
    meta.str("tokenizer.ggml.model", "llama")
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

    /// Appends a tensor: random bits with the exponents or scales set.
    fn tensor(&mut self, dtype: DType, n_elements: usize, out: &mut Vec<u8>) {
        let start = out.len();
        let len = dtype.bytes_for(n_elements).unwrap_or(0);
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
            for (i, block) in out[start..].chunks_exact_mut(dtype.block_bytes()).enumerate() {
                // Without minima the bits of some types lean to one side: every second block to the other.
                let sign = if min == 0.0 && i % 2 == 1 { -1.0 } else { 1.0 };
                (traits.set_scale)(block, sign * scale, min);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_decodes_to_small_finite_weights() {
        for dtype in types() {
            let mut bytes = Vec::new();
            let n = 1 << 16;
            Random(7).tensor(dtype, n, &mut bytes);
            let mut values = vec![0.0; n];
            ir_engine::quant::decode(dtype, &bytes, &mut values).unwrap();
            let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / n as f64;
            let rms = (values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / n as f64).sqrt();
            assert!((0.01..0.04).contains(&rms) && mean.abs() < 0.25 * rms, "{dtype}: mean {mean}, rms {rms}");
        }
    }

    #[test]
    fn every_name_makes_a_model_or_says_why_not() {
        for dtype in types() {
            let model = model(&format!("tiny-{}", dtype.name().to_lowercase())).unwrap();
            assert_eq!(model.plan.n_vocab(), 2000);
        }
        for kind in ["mixture", "window", "hybrid", "latent"] {
            let model = model(&format!("tiny-{kind}-q4_k")).unwrap();
            let states = usize::from(kind == "hybrid");
            assert_eq!(states, model.plan.states.len().min(1), "{kind}");
        }
        for name in ["1b", "2b-q4_0", "1b-q9", "1b-f8_e4m3", "135m-q4_k"] {
            assert!(matches!(model(name), Err(Failure::Usage(_))), "{name}");
        }
    }
}
