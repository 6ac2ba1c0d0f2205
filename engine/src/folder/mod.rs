//! The door for folders of safetensors: what a folder says in Hugging Face's terms is presented as a [`ModelFile`] in GGUF's,
//! so that everything behind the door knows one set of names. Matrices stay where they are on disk: their rows are found in
//! place, in as many ranges as it takes. Only small vectors are made (norms plus one, `-exp(A_log)`), matrices that are
//! stored on their side, which no kernel here reads, and matrices that were quantised by other tools (`quantised`).
//!
//! Where a converter to GGUF permutes rows, the door does not: it writes a key of its own instead ([`HALVES`], [`GROUPED`]),
//! which the spec follows.

mod adapters;
mod config;
mod encoders;
mod floats;
mod integers;
mod keys;
mod multimodal;
mod names;
mod pooling;
mod quantised;
mod rows;
mod t5;
mod tensors;
mod views;

#[cfg(not(target_arch = "wasm32"))]
use std::path::Path;

pub(crate) use adapters::{Theirs, translated};
use config::Config;
use rows::ROWS;

use crate::error::{Error, Result};
use crate::file::{Folder, ModelFile};
use crate::meta::{MetaBuilder, shown};
use crate::text::published::{self, Published};

/// Queries and keys are rotated in halves, whatever GGUF files of the architecture have.
pub(crate) const HALVES: &str = "folder.rope_halves";
/// Value heads of a delta net are beside their key's, whatever GGUF files of the architecture have.
pub(crate) const GROUPED: &str = "folder.grouped_heads";
/// Factors of embedding and logits are keys, which the weights of GGUF files have in them.
pub(crate) const SCALES: &str = "folder.scales";
/// Factors beside matrices count, also where the architecture's GGUF files have them folded in.
pub(crate) const FACTORS: &str = "folder.factors";

/// Opens a model: a GGUF file, or a folder of safetensors with its `config.json`. `read` reads files into memory instead of
/// mapping them.
///
/// # Errors
/// Where files cannot be read, are damaged, or hold what this version does not support.
#[cfg(not(target_arch = "wasm32"))]
pub fn open_file(path: &Path, read: bool) -> Result<ModelFile> {
    open_as(path, read, false)
}

/// As [`open_file`], for programs that write the matrices elsewhere, or name their columns: a folder's columns are in their own
/// order, also where the groups that were quantised together are others than neighbours.
///
/// # Errors
/// As [`open_file`].
#[cfg(not(target_arch = "wasm32"))]
pub fn open_natural(path: &Path, read: bool) -> Result<ModelFile> {
    open_as(path, read, true)
}

#[cfg(not(target_arch = "wasm32"))]
fn open_as(path: &Path, read: bool, natural: bool) -> Result<ModelFile> {
    // A file of a folder stands for the folder.
    let is_part = path.extension().is_some_and(|e| e == "safetensors" || e == "json") && path.is_file();
    let folder = if is_part { path.parent().unwrap_or(path) } else { path };
    if Folder::is_one(folder) || is_part {
        let folder = if read { Folder::read(folder) } else { Folder::open(folder) }?;
        return present_as(&folder, natural);
    }
    if path.is_dir() {
        return Err(Error::format(format!(
            "{} is a folder without config.json: give a .gguf file, or a folder with config.json and safetensors",
            path.display()
        )));
    }
    if read { ModelFile::read(path) } else { ModelFile::open(path) }
}

/// The architectures that folders are read of, by their names in GGUF files, with the classes of `config.json`.
pub fn families() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    ROWS.iter().map(|row| (row.arch, row.classes))
}

/// A folder as a model file.
///
/// # Errors
/// Where the folder's files are damaged, or hold what this version does not support.
pub fn present(folder: &Folder) -> Result<ModelFile> {
    present_as(folder, false)
}

/// The same; `natural` says whether all columns are to be in their own order.
fn present_as(folder: &Folder, natural: bool) -> Result<ModelFile> {
    let config = Config::new(folder.config());
    let class = config.class();
    let Some(row) = ROWS.iter().find(|row| row.classes.contains(&class.as_str()) && (row.when)(&config)) else {
        return Err(Error::unsupported(format!(
            "folders of the architecture {} are not read yet: download a GGUF of this model or convert it",
            shown(class.as_bytes())
        )));
    };
    let config = config.with_defaults(row.defaults);
    let mut door = tensors::Door::new(folder, config, row, natural)?;
    door.translate()?;
    let meta = keys::write(&mut door)?;
    let meta = beside(folder, &door, meta)?;
    let (tensors, files) = door.finish();
    ModelFile::from_sources(meta.build(), tensors, files)
}

/// The metadata of what lies beside the weights: tokenizer, chat template, recommended settings.
fn beside(folder: &Folder, door: &tensors::Door<'_>, mut meta: MetaBuilder) -> Result<MetaBuilder> {
    let json = |name: &str| Ok::<_, Error>(folder.json(name)?.unwrap_or_default());
    let generation = json("generation_config.json")?;
    let published = Published {
        json: folder.small("tokenizer.json")?,
        model: folder.small("tokenizer.model")?.or(folder.small("spiece.model")?),
        words: folder.small("vocab.txt")?,
        config: json("tokenizer_config.json")?,
        special: json("special_tokens_map.json")?,
        added: json("added_tokens.json")?,
        ids: vec![generation.clone(), door.config.text().clone(), folder.config().clone()],
        n_vocab: door.n_vocab(),
    };
    meta = published::write(&published, meta)?;
    for (name, template) in keys::templates(folder, &published.config)? {
        let key = if name == "default" { String::new() } else { format!(".{name}") };
        meta = meta.str(&format!("tokenizer.chat_template{key}"), &template);
    }
    Ok(keys::sampling(&generation, meta))
}

/// Whether folders of an architecture are read, or it is known why not.
#[cfg(test)]
pub(super) fn is_decided(arch: &str) -> bool {
    ROWS.iter().any(|row| row.arch == arch) != rows::WITHOUT.contains(&arch)
}
