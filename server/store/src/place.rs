//! [`Place`]: where a model is that can be opened, and finding it by what people call it. Command and server share it, so
//! that both know the same names.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ir_engine::builtin;
use ir_engine::error::{Error as EngineError, Result as EngineResult};
use ir_engine::file::ModelFile;
use ir_engine::model::{Model, ModelOptions};

use crate::error::Result;
use crate::name::ModelName;
use crate::quant;
use crate::store::{Found, Store};

/// Where a model is.
#[derive(Debug, Clone)]
pub enum Place {
    /// In this program.
    Builtin,
    /// A file (of a split set: any part), or a folder of safetensors.
    File(PathBuf),
    /// A model of the store, or of another program's.
    Stored(Arc<Found>),
}

impl Place {
    /// The name for people.
    pub fn name(&self) -> String {
        match self {
            Place::Builtin => builtin::NAME.to_owned(),
            // A folder's dots are part of its name, and `.` has none.
            Place::File(path) if path.is_dir() => {
                let whole = path.canonicalize().unwrap_or_else(|_| path.clone());
                whole.file_name().unwrap_or_default().to_string_lossy().into_owned()
            }
            Place::File(path) => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            Place::Stored(found) => found.name.clone(),
        }
    }

    /// The file (of a split set: a part); `None` for the built-in model. Two names with the same one are one model.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Place::Builtin => None,
            Place::File(path) => Some(path),
            Place::Stored(found) => Some(&found.path),
        }
    }

    /// Bytes of all its files; 0 where they are not known.
    pub fn bytes(&self) -> u64 {
        match self {
            Place::Builtin => builtin::bytes().len() as u64,
            // A folder's files together.
            Place::File(path) if path.is_dir() => std::fs::read_dir(path).map_or(0, |entries| {
                let size =
                    |entry: std::io::Result<std::fs::DirEntry>| Some(std::fs::metadata(entry.ok()?.path()).ok()?.len());
                entries.filter_map(size).fold(0, u64::saturating_add)
            }),
            Place::File(path) => {
                let length = |path: &PathBuf| std::fs::metadata(path).map_or(0, |m| m.len());
                parts(path).iter().map(length).fold(0, u64::saturating_add)
            }
            Place::Stored(found) => found.size,
        }
    }

    /// When the file was written; 1970 where that is not known.
    pub fn modified(&self) -> SystemTime {
        let time = |path: &Path| std::fs::metadata(path).and_then(|m| m.modified()).ok();
        self.path().and_then(time).unwrap_or(UNIX_EPOCH)
    }

    /// Opens the file: metadata and tensor table, no weights.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn file(&self, no_mmap: bool) -> EngineResult<ModelFile> {
        self.opened(no_mmap, ir_engine::model::open_file)
    }

    /// The same, to write the matrices elsewhere: see [`ir_engine::model::open_natural`].
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn file_natural(&self, no_mmap: bool) -> EngineResult<ModelFile> {
        self.opened(no_mmap, ir_engine::model::open_natural)
    }

    fn opened(&self, no_mmap: bool, open: fn(&Path, bool) -> EngineResult<ModelFile>) -> EngineResult<ModelFile> {
        // Without them it would answer as another model.
        if matches!(self, Place::Stored(found) if found.has_adapters()) {
            return Err(EngineError::unsupported(
                "an adapter stands beside the model's weights, and those of the store are not used yet: \
                 run the model that it is for with --lora FILE",
            ));
        }
        match self.path() {
            None => ModelFile::from_bytes(builtin::bytes()),
            Some(path) => open(path, no_mmap),
        }
    }

    /// Opens the model.
    ///
    /// # Errors
    /// What is wrong with the file, or what of it does not run here.
    pub fn model(&self, options: &ModelOptions) -> EngineResult<Model> {
        Model::from_file(self.file(options.no_mmap)?, options)
    }
}

impl Store {
    /// Finds a model by its name: the built-in one, a file of the models folder (with or without `.gguf` and `:latest`, in
    /// any case), or one of this store or another program's. Paths are the caller's to allow.
    ///
    /// # Errors
    /// It is there and cannot be used.
    pub fn find(&self, text: &str) -> Result<Option<Place>> {
        let bare = text.strip_suffix(":latest").unwrap_or(text);
        if bare.eq_ignore_ascii_case(builtin::NAME) {
            return Ok(Some(Place::Builtin));
        }
        let bare = bare.strip_suffix(".gguf").unwrap_or(bare);
        let files = self.files();
        let same = |name: &str| name.to_lowercase() == bare.to_lowercase();
        let file = files.iter().find(|(name, _)| name == bare).or_else(|| files.iter().find(|(name, _)| same(name)));
        if let Some((_, path)) = file {
            return Ok(Some(Place::File(path.clone())));
        }
        let Ok(name) = ModelName::parse(text) else { return Ok(None) };
        if matches!(name, ModelName::Path(_)) {
            return Ok(None);
        }
        let Some(found) = self.resolve(&name)? else { return Ok(None) };
        Ok(Some(Place::Stored(Arc::new(found))))
    }
}

/// All parts of a split set; of another file that file.
pub(crate) fn parts(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
    match quant::part_of(name.strip_suffix(".gguf").unwrap_or("")) {
        Some((stem, _, count)) => {
            (1..=count).map(|no| path.with_file_name(format!("{stem}-{no:05}-of-{count:05}.gguf"))).collect()
        }
        None => vec![path.to_owned()],
    }
}
