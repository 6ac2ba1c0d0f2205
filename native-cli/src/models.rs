//! From what the user calls a model to an opened one: a file, a name in the models folder, or the built-in model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ir_engine::error::Error;
use ir_engine::file::ModelFile;
use ir_engine::model::{self, Model, ModelOptions, ModelSpec};
use ir_engine::plan::Plan;
use ir_engine::{Tokenizer, builtin};

use crate::args::{FileArgs, PlaceArgs};
use crate::failure::{Failure, Result};

/// Folders below the models folder are searched this deep.
const MAX_DEPTH: usize = 3;

/// Files of the models folder that are looked at, at most.
const MAX_FILES: usize = 10_000;

/// Where a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In this program.
    Builtin,
    /// A file (of a split set: any part).
    File(PathBuf),
}

impl Place {
    /// The name for people.
    pub(crate) fn name(&self) -> String {
        match self {
            Place::Builtin => builtin::NAME.to_owned(),
            Place::File(path) => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        }
    }

    /// Opens the file: metadata and tensor table, no weights.
    pub(crate) fn open_file(&self, args: &PlaceArgs) -> Result<ModelFile> {
        Ok(match self {
            Place::Builtin => ModelFile::from_bytes(builtin::bytes())?,
            Place::File(path) if args.no_mmap => ModelFile::read(path)?,
            Place::File(path) => ModelFile::open(path)?,
        })
    }

    /// Opens the model.
    pub(crate) fn open(&self, args: &FileArgs) -> Result<Model> {
        let options = ModelOptions { no_mmap: args.place.no_mmap, tokenizer_pre: args.tokenizer_pre.clone() };
        Model::from_file(self.open_file(&args.place)?, &options).map_err(|e| self.failure(&e))
    }

    /// Opens the model to run on token ids: no tokenizer is built, and the file needs none.
    pub(crate) fn record(&self, args: &FileArgs) -> Result<Recorded> {
        Recorded::new(self.open_file(&args.place)?).map_err(|e| self.failure(&e))
    }

    /// The tokenizer of a model that was opened without.
    pub(crate) fn tokenizer(&self, model: &Recorded, args: &FileArgs) -> Result<Tokenizer> {
        Tokenizer::from_meta(model.file.meta(), args.tokenizer_pre.as_deref()).map_err(|e| self.failure(&e))
    }

    /// What the model's file is to blame for, with its path in front.
    pub(crate) fn failure(&self, error: &Error) -> Failure {
        let sentence = error.to_string();
        Failure::run(match self {
            Place::File(path) if !sentence.contains(&*path.to_string_lossy()) => {
                format!("{}: {sentence}", path.display())
            }
            _ => sentence,
        })
    }
}

/// A model without tokenizer and template: it takes token ids and gives logits.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) file: ModelFile,
    pub(crate) spec: ModelSpec,
    pub(crate) plan: Arc<Plan>,
}

impl Recorded {
    /// The model of an open file.
    pub(crate) fn new(file: ModelFile) -> ir_engine::Result<Recorded> {
        let (spec, plan) = model::inspect(&file)?;
        Ok(Recorded { file, spec, plan: Arc::new(plan) })
    }
}

/// A model of the models folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// Its path below the folder, without `.gguf` and without a split set's `-00001-of-0000N`.
    pub(crate) name: String,
    /// The file, or the first part.
    pub(crate) path: PathBuf,
}

/// The models folder: the flag, else `IR_MODELS`, else `ir/models` in the user's data folder.
pub(crate) fn folder(flag: Option<&Path>) -> Option<PathBuf> {
    use etcetera::BaseStrategy;
    let from_env = || std::env::var_os("IR_MODELS").filter(|v| !v.is_empty()).map(PathBuf::from);
    let from_home = || Some(etcetera::choose_base_strategy().ok()?.data_dir().join("ir").join("models"));
    flag.map(Path::to_owned).or_else(from_env).or_else(from_home)
}

/// The models of a folder by name. A folder that cannot be read has none.
pub(crate) fn named(folder: &Path) -> Vec<Named> {
    let mut found = Vec::new();
    walk(folder, "", MAX_DEPTH, &mut found);
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn walk(folder: &Path, prefix: &str, depth: usize, found: &mut Vec<Named>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten().take(MAX_FILES) {
        let (path, Some(name)) = (entry.path(), entry.file_name().to_str().map(str::to_owned)) else { continue };
        if path.is_dir() {
            if depth > 1 {
                walk(&path, &format!("{prefix}{name}/"), depth - 1, found);
            }
        } else if let Some(stem) = name.strip_suffix(".gguf")
            && let Some(name) = whole_name(stem)
            && found.len() < MAX_FILES
        {
            found.push(Named { name: format!("{prefix}{name}"), path });
        }
    }
}

/// The name of a file's model: a split set is known by its first part.
fn whole_name(stem: &str) -> Option<&str> {
    let number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    let Some((front, count)) = stem.rsplit_once("-of-").filter(|(_, count)| number(count)) else { return Some(stem) };
    match front.rsplit_once('-').filter(|(_, no)| number(no) && number(count)) {
        Some((name, "00001")) => Some(name),
        Some(_) => None,
        None => Some(stem),
    }
}

/// Finds the model that the user names.
///
/// # Errors
/// [`Failure::Usage`] where there is none of that name.
pub(crate) fn find(name: &str, args: &FileArgs) -> Result<Place> {
    find_in(name, &args.place)
}

/// The same where no tokenizer is needed.
///
/// # Errors
/// As [`find`].
pub(crate) fn find_in(name: &str, args: &PlaceArgs) -> Result<Place> {
    if name == builtin::NAME {
        return Ok(Place::Builtin);
    }
    let path = Path::new(name);
    if path.exists() && !path.is_dir() {
        return Ok(Place::File(path.to_owned()));
    }
    let folder = folder(args.models.as_deref());
    let wanted = name.strip_suffix(".gguf").unwrap_or(name);
    if let Some(model) = folder.as_deref().map(named).unwrap_or_default().into_iter().find(|m| m.name == wanted) {
        return Ok(Place::File(model.path));
    }
    if path.exists() {
        // A directory: opening it says so.
        return Ok(Place::File(path.to_owned()));
    }
    Err(Failure::usage(unknown(name)))
}

/// What to say of a name that nothing has.
fn unknown(name: &str) -> String {
    let shown = crate::term::cut(name, 80);
    let tiny = builtin::NAME;
    if name.contains(char::is_whitespace) {
        return format!(
            "no model is named {shown:?}: if that is a prompt, ask the built-in model with `ir run {tiny} \"...\"`"
        );
    }
    let kind = if name.ends_with(".gguf") || name.contains(['/', '\\']) { "no file" } else { "no file or model" };
    format!(
        "there is {kind} {shown:?}: `ir list` shows the models that are known, \
         and `ir run {tiny} \"...\"` asks the built-in one"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_set_is_one_model() {
        let cases = [
            ("qwen3-8b", Some("qwen3-8b")),
            ("big-00001-of-00003", Some("big")),
            ("big-00002-of-00003", None),
            ("one-of-00003", Some("one-of-00003")),
            ("best-of-class", Some("best-of-class")),
        ];
        for (stem, want) in cases {
            assert_eq!(whole_name(stem), want, "{stem}");
        }
    }

    #[test]
    fn unknown_names_say_how_to_ask_the_built_in_model() {
        for name in ["nope", "nope.gguf", "Tell me a story", "a/b"] {
            let Err(Failure::Usage(what)) = find(name, &FileArgs::default()) else { panic!("{name} was found") };
            assert!(what.contains("ir run ir-tiny \"...\""), "{what}");
        }
    }
}
