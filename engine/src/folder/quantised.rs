//! Weights that were quantised before they were published: FP8, GPTQ, AWQ and compressed-tensors. [`Settings`] is what
//! `config.json` says of them, [`role`] tells a matrix from what stands beside it, [`Matrix`] is one matrix, [`joined`] makes
//! tensors of matrices. Integers become blocks that hold them exactly if their groups allow it, and f16 if not; FP8 stays
//! as it is, with a factor for each row beside the matrix if a scale is that of whole rows and with scales between its bytes if
//! they are those of whole blocks of columns, and becomes f16 if not.

use std::ops::Range;
use std::sync::Arc;

use serde_json::Value;

use super::config::Config;
use super::floats::Floats;
use super::integers::Integers;
use crate::bytes::Bytes;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::file::safetensors::{Element, Stored};
use crate::file::{Folder, Source};
use crate::meta::shown;
use crate::quant::{self, FLOATS_OF_4, FLOATS_OF_8, integers};

/// Methods of quantising whose folders are read.
const READ: [&str; 5] = ["fp8", "fbgemm_fp8", "gptq", "awq", "compressed-tensors"];

/// What `config.json` says of quantised weights.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    /// Words of packed integers lie as AWQ has them.
    pub(super) awq: bool,
    /// What is to be added to packed zero points: GPTQ's first format holds one less.
    pub(super) zero_offset: i32,
    /// Bits of an integer, if it is said; matrices may have others.
    pub(super) bits: Option<usize>,
    /// Columns of a group likewise.
    pub(super) group_size: Option<usize>,
    /// Rows and columns of a block of FP8.
    pub(super) block: [usize; 2],
}

impl Settings {
    /// `None` if the weights are plain numbers, or the reading of their method is built into their family.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for methods, formats and versions that are not read.
    pub(super) fn of(config: &Config) -> Result<Option<Settings>> {
        let Some(said) = config.get(&["quantization_config", "compression_config"]) else { return Ok(None) };
        let text = |key: &str| said.get(key).and_then(Value::as_str);
        let method = text("quant_method").or(text("quant_algo")).unwrap_or("an unnamed method");
        if method.eq_ignore_ascii_case(FLOATS_OF_4.name()) {
            return Ok(None);
        }
        if !READ.contains(&method) {
            return Err(Error::unsupported(format!(
                "this folder's weights are quantised by {}, which is not read ({} are): download a GGUF of this model",
                shown(method.as_bytes()),
                READ.join(", ")
            )));
        }
        let format = format_of(method, said)?;
        let count = |value: Option<&Value>| value.and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let groups = said.get("config_groups").and_then(Value::as_object);
        let group = groups.and_then(|groups| groups.values().next()?.get("weights"));
        let block = said.get("weight_block_size").or(group.and_then(|g| g.get("block_structure")));
        let side = |i: usize| count(block.and_then(|b| b.get(i))).filter(|n| *n > 0).unwrap_or(128);
        Ok(Some(Settings {
            awq: method == "awq",
            zero_offset: i32::from(method == "gptq" && format.as_deref() != Some("gptq_v2")),
            bits: count(said.get("bits").or(said.get("w_bit")).or(group.and_then(|g| g.get("num_bits")))),
            group_size: count(said.get("group_size").or(group.and_then(|g| g.get("group_size")))).filter(|n| *n > 0),
            block: [side(0), side(1)],
        }))
    }
}

/// The format that is said beside a method, in small letters.
///
/// # Errors
/// [`Error::Unsupported`] for one that is not read.
fn format_of(method: &str, said: &Value) -> Result<Option<String>> {
    let (key, known): (&str, &[&str]) = match method {
        "gptq" => ("checkpoint_format", &["gptq", "gptq_v2"]),
        "awq" => ("version", &["gemm", "exllama"]),
        "compressed-tensors" => (
            "format",
            &["pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "dense", "mixed-precision"],
        ),
        _ => return Ok(None),
    };
    let format = said.get(key).and_then(Value::as_str).map(str::to_ascii_lowercase);
    let odd = format.as_deref().filter(|format| !known.contains(format));
    let groups = said.get("transform_config").and_then(|t| t.get("config_groups")).and_then(Value::as_object);
    let turned = groups.filter(|groups| !groups.is_empty()).map(|_| "with transforms");
    match odd.or(turned) {
        None => Ok(format),
        Some(odd) => Err(Error::unsupported(format!(
            "this folder's weights are quantised by {method} in the format {}, which is not read: download a GGUF of this \
             model",
            shown(odd.as_bytes())
        ))),
    }
}

/// What a tensor of a quantised folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A tensor like that of any folder.
    Plain,
    /// Read together with a quantised matrix, or of no use here.
    Beside,
    /// The numbers of a quantised matrix.
    Matrix,
}

/// Endings of what stands beside packed integers, and beside FP8 and integers of 8 bits.
const BESIDE_PACKED: [&str; 8] = [
    "qzeros",
    "scales",
    "g_idx",
    "weight_scale",
    "weight_shape",
    "weight_zero_point",
    "weight_g_idx",
    "input_global_scale",
];
const BESIDE_BYTES: [&str; 4] = ["weight_scale", "weight_scale_inv", "weight_zero_point", "activation_scale"];
/// Scales of activations and of the cache, which are kept in more bits here.
const UNUSED: [&str; 7] =
    ["input_scale", "output_scale", "input_zero_point", "output_zero_point", "q_scale", "k_scale", "v_scale"];

/// What the tensor of this name is, in a folder that is quantised.
pub(super) fn role(folder: &Folder, tensor: &Stored) -> Role {
    let (base, ending) = parted(&tensor.name);
    let has = |ending: &str| folder.tensor(&format!("{base}.{ending}"));
    let bytes = || has("weight").is_some_and(|w| is_bytes(w.element));
    match ending {
        "qweight" | "weight_packed" => Role::Matrix,
        "weight" if is_bytes(tensor.element) => Role::Matrix,
        _ if UNUSED.contains(&ending) => Role::Beside,
        _ if BESIDE_PACKED.contains(&ending) && (has("qweight").or(has("weight_packed")).is_some()) => Role::Beside,
        _ if BESIDE_BYTES.contains(&ending) && bytes() => Role::Beside,
        _ => Role::Plain,
    }
}

fn is_bytes(element: Element) -> bool {
    matches!(element, Element::F8_E4M3 | Element::F8_E5M2 | Element::I8 | Element::U8)
}

/// A name without its ending, and the ending.
pub(super) fn parted(name: &str) -> (&str, &str) {
    name.rsplit_once('.').unwrap_or((name, ""))
}

/// A sentence about the matrix of this name.
pub(super) fn wrong(base: &str, what: &str) -> Error {
    Error::unsupported(format!("the quantised matrix {} {what}", shown(base.as_bytes())))
}

/// A tensor's two dimensions, neither of them 0.
pub(super) fn shape_of(base: &str, tensor: &Stored) -> Result<[usize; 2]> {
    let size = |n: u64| usize::try_from(n).ok();
    let both = match *tensor.shape() {
        [a, b] => size(a).zip(size(b)),
        _ => None,
    };
    let both = both.filter(|(a, b)| *a > 0 && *b > 0);
    let (a, b) = both.ok_or_else(|| wrong(base, "has other than two dimensions, or none of its elements"))?;
    Ok([a, b])
}

/// Plain numbers where they lie: scales.
#[derive(Debug, Clone)]
pub(super) struct Numbers {
    bytes: Bytes,
    element: Element,
    n: usize,
}

impl Numbers {
    /// # Errors
    /// Where the tensor is missing or holds anything but finite floats.
    pub(super) fn new(base: &str, tensor: Option<&Stored>) -> Result<Numbers> {
        let tensor = tensor.ok_or_else(|| wrong(base, "has no scales beside it"))?;
        let known = matches!(tensor.element, Element::F32 | Element::F16 | Element::BF16 | Element::F8_E8M0);
        if !known {
            return Err(wrong(base, &format!("has scales of the type {}, which is not read", tensor.element.name())));
        }
        let n = tensor.bytes.len() / tensor.element.size() as usize;
        let numbers = Numbers { bytes: tensor.bytes.clone(), element: tensor.element, n };
        if !(0..n).all(|i| numbers.get(i).is_finite()) {
            return Err(wrong(base, "has a scale that is no finite number"));
        }
        Ok(numbers)
    }

    pub(super) fn len(&self) -> usize {
        self.n
    }

    /// The `i`-th, or 0 if there are fewer.
    pub(super) fn get(&self, i: usize) -> f32 {
        fn at<const N: usize>(bytes: &[u8], i: usize) -> [u8; N] {
            bytes.get(N * i..).and_then(|b| b.first_chunk()).copied().unwrap_or([0; N])
        }
        match self.element {
            Element::F32 => f32::from_le_bytes(at(&self.bytes, i)),
            Element::F16 => quant::f16(at(&self.bytes, i)),
            Element::BF16 => f32::from_bits(u32::from(u16::from_le_bytes(at(&self.bytes, i))) << 16),
            // A power of two, of which the last stands for no number.
            _ => match at::<1>(&self.bytes, i)[0] {
                255 => f32::NAN,
                exponent => f32::from_bits(u32::from(exponent) << 23 | u32::from(exponent == 0) << 22),
            },
        }
    }
}

/// A quantised matrix.
#[derive(Debug)]
pub(super) enum Matrix {
    Floats(Floats),
    Integers(Integers),
}

impl Matrix {
    /// The matrix whose numbers are in `tensor`; `find` gives the tensors of the folder.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for forms that are not read, and for what does not fit together.
    pub(super) fn read<'a>(
        tensor: &'a Stored,
        find: impl Fn(&str) -> Option<&'a Stored>,
        settings: &Settings,
    ) -> Result<Matrix> {
        let (base, ending) = parted(&tensor.name);
        let beside = |ending: &str| find(&format!("{base}.{ending}"));
        match (ending, tensor.element) {
            ("weight", Element::F8_E4M3) => Floats::new(base, tensor, &beside, settings).map(Matrix::Floats),
            ("weight", Element::I8) => Integers::of_bytes(base, tensor, &beside).map(Matrix::Integers),
            ("weight_packed", Element::I32) => {
                Integers::compressed(base, tensor, &beside, settings).map(Matrix::Integers)
            }
            ("qweight", Element::I32) => Integers::grouped(base, tensor, &beside, settings).map(Matrix::Integers),
            (_, element) => Err(wrong(base, &format!("is of the type {}, which is not read", element.name()))),
        }
    }

    /// Rows and columns.
    pub(super) fn shape(&self) -> (usize, usize) {
        match self {
            Matrix::Floats(m) => (m.rows, m.cols),
            Matrix::Integers(m) => (m.rows, m.cols),
        }
    }

    /// The range of the integers, if blocks of 32 columns with an f16 scale hold them exactly.
    fn span(&self) -> Option<(i32, i32)> {
        match self {
            Matrix::Floats(_) => None,
            Matrix::Integers(m) => m.span,
        }
    }

    /// The order that columns have in blocks, if blocks hold the integers and it is not the columns' own.
    pub(super) fn columns(&self) -> Option<&[u32]> {
        let holding = self.span().and_then(|(least, most)| integers::holding(least, most));
        match self {
            _ if holding.is_none() => None,
            Matrix::Floats(_) => None,
            Matrix::Integers(m) => m.columns.as_deref(),
        }
    }

    /// The factor of each row, if the rows that are written lack it.
    fn factors(&self) -> Option<Vec<f32>> {
        match self {
            Matrix::Floats(m) => m.factors(),
            Matrix::Integers(m) => m.factors(),
        }
    }

    /// The type that keeps its bytes as they are, if one does.
    fn kept(&self) -> Option<DType> {
        match self {
            Matrix::Floats(m) => m.kept(),
            Matrix::Integers(_) => None,
        }
    }

    /// All its bytes, if they need no scales between them.
    fn in_place(&self) -> Option<Bytes> {
        match self {
            Matrix::Floats(m) if m.kept() == Some(FLOATS_OF_8[0]) => Some(m.bytes()),
            _ => None,
        }
    }

    /// Appends rows in this type; `whole` says if factors are to be in them.
    fn write(&self, rows: Range<usize>, dtype: DType, whole: bool, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Matrix::Integers(m) if !dtype.is_plain() => {
                m.write_blocks(rows, dtype, out);
                return Ok(());
            }
            Matrix::Floats(m) if dtype == FLOATS_OF_8[1] => {
                m.write_scaled(rows, out);
                return Ok(());
            }
            _ => {}
        }
        let mut values = vec![0.0; self.shape().1];
        for row in rows {
            match self {
                Matrix::Floats(m) => m.values(row, whole, &mut values),
                Matrix::Integers(m) => m.values(row, whole, &mut values),
            }
            quant::encode(dtype, &values, out)?;
        }
        Ok(())
    }

    /// The matrix as a tensor of plain numbers, for families that take it apart.
    ///
    /// # Errors
    /// [`Error::Shape`] for shapes that no tensor has.
    pub(super) fn plain(&self, name: &str) -> Result<Stored> {
        let (rows, cols) = self.shape();
        let bytes = in_pieces(&[(rows, cols)], |_, rows, out| self.write(rows, DType::F16, true, out))?;
        Stored::made(name, Element::F16, &[rows as u64, cols as u64], Bytes::from(bytes))
    }
}

/// A tensor of one matrix or of several.
#[derive(Debug)]
pub(super) struct Joined {
    /// Columns, rows, and the number of matrices if there is more than one.
    pub(super) dims: Vec<u64>,
    pub(super) dtype: DType,
    pub(super) source: Source,
    /// A factor for each row of all matrices, if any has one.
    pub(super) factors: Option<Vec<f32>>,
}

/// What may stand beside matrices: factors of rows, an order of columns. What may not is in the weights.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beside {
    pub(super) factors: bool,
    pub(super) columns: bool,
}

/// Matrices of one shape as one tensor, which is made when it is first asked for.
///
/// # Errors
/// [`Error::Shape`] for different shapes.
pub(super) fn joined(name: &str, matrices: Vec<Matrix>, may: Beside) -> Result<Joined> {
    let Beside { factors: with_factors, columns: ordered } = may;
    let (rows, cols) = matrices.first().map_or((0, 0), Matrix::shape);
    if matrices.iter().any(|m| m.shape() != (rows, cols)) {
        return Err(Error::shape(format!("the parts of {name} have different shapes")));
    }
    let both = |a: (i32, i32), b: (i32, i32)| (a.0.min(b.0), a.1.max(b.1));
    let span = |m: &Matrix| m.span().filter(|_| ordered || m.columns().is_none());
    let spans: Option<Vec<(i32, i32)>> = matrices.iter().map(span).collect();
    let factors: Vec<Option<Vec<f32>>> = matrices.iter().map(Matrix::factors).collect();
    let any = factors.iter().any(Option::is_some);
    let span = spans.and_then(|s| s.into_iter().reduce(both)).filter(|_| with_factors || !any);
    let kept = matrices.first().and_then(Matrix::kept).filter(|kept| matrices.iter().all(|m| m.kept() == Some(*kept)));
    let kept = kept.filter(|_| with_factors || !any);
    let dtype = kept.or_else(|| span.and_then(|(least, most)| integers::holding(least, most))).unwrap_or(DType::F16);
    let factors = factors.into_iter().flat_map(|f| f.unwrap_or_else(|| vec![1.0; rows]));
    let factors: Option<Vec<f32>> = (any && with_factors).then(|| factors.collect());
    let mut dims = vec![cols as u64, rows as u64];
    if matrices.len() > 1 {
        dims.push(matrices.len() as u64);
    }
    let in_place = if kept.is_some() { matrices.iter().map(Matrix::in_place).collect() } else { None };
    let source = match in_place {
        Some(pieces) => Source::Pieces(pieces),
        None => {
            let matrices = Arc::new(matrices);
            Source::made(move || {
                let shapes: Vec<(usize, usize)> = matrices.iter().map(Matrix::shape).collect();
                in_pieces(&shapes, |i, rows, out| matrices[i].write(rows, dtype, !with_factors, out))
            })
        }
    };
    Ok(Joined { dims, dtype, source, factors })
}

/// Elements that are written at once.
const PIECE: usize = 1 << 20;

/// What `write` appends for ranges of rows of matrices of these shapes, one after the other: shared out among as many threads
/// as the machine has.
fn in_pieces(
    shapes: &[(usize, usize)],
    write: impl Fn(usize, Range<usize>, &mut Vec<u8>) -> Result<()> + Sync,
) -> Result<Vec<u8>> {
    let mut pieces = Vec::new();
    for (i, (rows, cols)) in shapes.iter().enumerate() {
        let step = (PIECE / (*cols).max(1)).max(1);
        pieces.extend((0..*rows).step_by(step).map(|row| (i, row..(row + step).min(*rows))));
    }
    let all = |pieces: &[(usize, Range<usize>)]| {
        let mut out = Vec::new();
        pieces.iter().try_for_each(|(i, rows)| write(*i, rows.clone(), &mut out)).map(|()| out)
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(pieces.len());
    if threads < 2 {
        return all(&pieces);
    }
    let shares = pieces.chunks(pieces.len().div_ceil(threads));
    let parts: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let started: Vec<_> = shares.map(|share| scope.spawn(move || all(share))).collect();
        let ended = started.into_iter().map(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
        ended.collect::<Result<_>>()
    })?;
    Ok(parts.concat())
}
