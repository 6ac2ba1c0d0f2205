//! Model files made of others: weights rounded to other types, folders of safetensors written as GGUF. [`Job::new`] says what
//! would be written, [`Job::write`] writes it: in pieces of bounded size, on several threads, under another name until it is
//! whole. [`split`] and [`merge`] cut a file into parts and join them. Nothing is printed; progress is told to the caller, who may stop it.

mod importance;
mod merged;
mod observe;
mod parts;
mod reader;
mod write;

use std::path::Path;

pub use importance::ImportanceMatrix;
pub use observe::Observer;
pub use parts::{PartLimit, merge, split};
use reader::Reader;
pub use write::Progress;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::file::{GgufWriter, ModelFile, Tensor};
use crate::meta::{Meta, MetaBuilder, shown};
use crate::model::Attached;
use crate::model::columns::COLUMNS;
use crate::quant::mixes::{self, Facts, Mix, Part};

/// Says of a tensor's name whether an override is meant for it.
pub type Pattern = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// What is to be made.
#[derive(Default)]
pub struct Settings {
    /// Which types tensors get; `None` leaves each as it is.
    pub mix: Option<Mix>,
    /// Types of tensors whose names fit, the first that does.
    pub overrides: Vec<(Pattern, DType)>,
    /// Every tensor that is rounded gets the mix's own type.
    pub pure: bool,
    /// Which columns matter.
    pub importance: Option<ImportanceMatrix>,
    /// Adapters that are merged into the weights, each so much as its scale says.
    pub merged: Vec<Attached>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("mix", &self.mix).field("pure", &self.pure).finish_non_exhaustive()
    }
}

/// A tensor of the file to be written.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// Its shape, contiguous elements first.
    pub dims: Vec<u64>,
    /// Its type now.
    pub from: DType,
    /// Its type in the new file.
    pub to: DType,
    /// Bytes now.
    pub bytes_before: u64,
    /// Bytes in the new file.
    pub bytes_after: u64,
    /// Whether the type it should have had does not divide its rows.
    pub fallback: bool,
}

/// A file to be written.
#[derive(Debug)]
pub struct Job<'a> {
    planned: Vec<Planned>,
    readers: Vec<Reader<'a>>,
    writer: GgufWriter,
    importance: Option<&'a ImportanceMatrix>,
}

impl<'a> Job<'a> {
    /// What the settings make of a model.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where a tensor has a type that is not read, or would get one that is not written.
    pub fn new(file: &'a ModelFile, settings: &'a Settings) -> Result<Job<'a>> {
        let tensors: Vec<&Tensor> = file.tensors().iter().filter(|t| !reader::is_folded(file, t.name())).collect();
        if let Some(order) = file.tensors().iter().find(|t| t.name().ends_with(COLUMNS)) {
            return Err(Error::request(format!(
                "{} says that columns are not in their own order: open the folder with `open_natural`",
                named(order)
            )));
        }
        let facts = facts(file, settings)?;
        let merged = merged::Adapters::new(file, &settings.merged)?;
        let mut chooser = Chooser { settings, facts: &facts, n_values: 0, n_down: 0 };
        let mut types = vec![None; tensors.len()];
        // Layers are counted in their own order, whatever the file's is.
        let mut order: Vec<usize> = (0..tensors.len()).collect();
        order.sort_by_key(|i| (layer(tensors[*i].name()).unwrap_or(0), *i));
        for i in order {
            types[i] = Some(chooser.choose(tensors[i])?);
        }
        let mut writer = GgufWriter::new(meta(file.meta(), settings, tensors.iter().zip(&types)))?;
        let (mut planned, mut readers) = (Vec::new(), Vec::new());
        for (tensor, to) in tensors.into_iter().zip(types) {
            let from = tensor.dtype()?;
            let (to, fallback) = to.unwrap_or((from, false));
            let reader = Reader::new(file, tensor, merged.of(tensor))?;
            let bytes_after = to.file_bytes_for(tensor.n_elements()).unwrap_or(0);
            if (to != from || reader.is_merged()) && to.encoder().is_none() {
                return Err(Error::unsupported(format!("{to} can be read but not written: give another type")));
            }
            writer.tensor(tensor.name(), tensor.dims(), to)?;
            planned.push(Planned {
                name: tensor.name().to_owned(),
                dims: tensor.dims().to_vec(),
                from,
                to,
                bytes_before: tensor.byte_len(),
                bytes_after,
                fallback,
            });
            readers.push(reader);
        }
        Ok(Job { planned, readers, writer, importance: settings.importance.as_ref() })
    }

    /// The tensors, in the order in which they are written.
    pub fn planned(&self) -> &[Planned] {
        &self.planned
    }

    /// Bytes of the file to be written.
    pub fn byte_len(&self) -> u64 {
        self.writer.byte_len()
    }

    /// Writes the file on so many threads. It has another name until it is whole; `told` is called after each piece, and if it
    /// says no, nothing is left.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be written, [`Error::Request`] where `told` said no.
    pub fn write(&self, path: &Path, threads: usize, told: &mut dyn FnMut(Progress) -> bool) -> Result<()> {
        write::whole(self, path, threads, told)
    }
}

/// The number of a tensor's layer.
fn layer(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split_once('.')?.0.parse().ok()
}

fn facts(file: &ModelFile, settings: &Settings) -> Result<Facts> {
    let meta = file.meta();
    let arch = meta.arch().unwrap_or_default().to_owned();
    let first = |name: &str| {
        let value = meta.get(&format!("{arch}.{name}"))?;
        let number = match value.as_array() {
            Some(array) => array.iter().find_map(|v| v.as_u64().filter(|n| *n > 0)),
            None => value.as_u64(),
        };
        number.and_then(|n| usize::try_from(n).ok())
    };
    let heads = first("attention.head_count").unwrap_or(1);
    let keys = first("attention.head_count_kv").unwrap_or(heads).max(1);
    Ok(Facts {
        n_layers: first("block_count").unwrap_or(0),
        queries_per_key: heads / keys,
        n_experts: first("expert_count").unwrap_or(0),
        tied: file.tensor("output.weight").is_none(),
        important: settings.importance.is_some(),
        n_values: file.tensors().iter().filter(|t| Part::of(t.name()) == Part::Values).count(),
        arch,
    })
}

/// Chooses types, counting layers.
struct Chooser<'a> {
    settings: &'a Settings,
    facts: &'a Facts,
    n_values: usize,
    n_down: usize,
}

impl Chooser<'_> {
    /// The type of the next tensor, and whether it is one that had to be taken for its shape.
    fn choose(&mut self, tensor: &Tensor) -> Result<(DType, bool)> {
        let (from, name) = (tensor.dtype()?.in_files(), tensor.name());
        let Some(mix) = self.settings.mix else { return Ok((from, false)) };
        if !mixes::is_rounded(name, tensor.dims().len()) {
            return Ok((from, false));
        }
        let cols = usize::try_from(tensor.dims().first().copied().unwrap_or(1)).unwrap_or(usize::MAX);
        let part = Part::of(name);
        // Experts are counted by their layer, others as they come.
        let of_layer = layer(name).filter(|_| self.facts.n_experts > 1);
        let nth = match part {
            Part::Values => self.n_values,
            Part::Down => of_layer.unwrap_or(self.n_down),
            _ => 0,
        };
        let chosen = self.settings.overrides.iter().find(|(fits, _)| fits(name)).map(|(_, dtype)| *dtype);
        let wanted = match chosen {
            Some(dtype) => dtype,
            None if self.settings.pure || mix.dtype.is_plain() => mix.dtype,
            None => mixes::choose(mix, self.facts, part, nth, cols, tensor.dims().len() > 2),
        };
        self.n_values += usize::from(part == Part::Values);
        self.n_down += usize::from(part == Part::Down);
        let fitting = mixes::fitting(wanted, cols);
        Ok((fitting, fitting != wanted))
    }
}

/// The metadata of the new file.
fn meta<'t>(
    from: &Meta,
    settings: &Settings,
    tensors: impl Iterator<Item = (&'t &'t Tensor, &'t Option<(DType, bool)>)>,
) -> MetaBuilder {
    let own =
        |key: &str| key.starts_with("split.") || ["general.file_type", "general.quantization_version"].contains(&key);
    let mut out = MetaBuilder::new();
    for (key, value) in from.iter().filter(|(key, _)| !own(key) && !reader::is_folded_key(from, key)) {
        out = out.value(&key, value);
    }
    let file_type = match settings.mix {
        Some(mix) => Some(mix.file_type),
        // The type that most bytes are of, if a mix has its name.
        None => {
            let mut sizes: Vec<(DType, u64)> = Vec::new();
            for (tensor, to) in tensors {
                let Some(dtype) = to.map(|(dtype, _)| dtype) else { continue };
                let bytes = dtype.file_bytes_for(tensor.n_elements()).unwrap_or(0);
                match sizes.iter_mut().find(|(d, _)| *d == dtype) {
                    Some((_, n)) => *n = n.saturating_add(bytes),
                    None => sizes.push((dtype, bytes)),
                }
            }
            let most = sizes.into_iter().max_by_key(|(_, n)| *n).map(|(dtype, _)| dtype.name());
            most.and_then(Mix::of).map(|mix| mix.file_type)
        }
    };
    if let Some(file_type) = file_type {
        out = out.u32("general.file_type", file_type);
    }
    out.u32("general.quantization_version", 2)
}

/// A tensor's name as an error shows it.
fn named(tensor: &Tensor) -> String {
    shown(tensor.name().as_bytes())
}
