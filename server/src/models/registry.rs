//! [`Registry`]: which models are known and by what names. Files are looked for anew at every question: a model that is
//! put into the folder can be asked at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ir_engine::builtin;

use super::model_ref::ModelRef;
use crate::engine::error::ApiError;

/// Where a model is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In this program.
    Builtin,
    /// A file (of a split set: the first part).
    File(PathBuf),
}

impl Place {
    /// When the file was written; 1970 where that is not known.
    pub(crate) fn modified(&self) -> SystemTime {
        match self {
            Place::Builtin => UNIX_EPOCH,
            Place::File(path) => std::fs::metadata(path).and_then(|m| m.modified()).unwrap_or(UNIX_EPOCH),
        }
    }
}

/// A known model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub place: Place,
}

/// Lists the models of the folder: names and first files. The command's own, so that both know the same names.
pub type ListFolder = Box<dyn Fn() -> Vec<(String, PathBuf)> + Send + Sync>;

/// The models that are known.
pub struct Registry {
    /// Files that the server was started with, by name.
    pub served: Vec<(String, PathBuf)>,
    /// Other names: from alias to name.
    pub aliases: BTreeMap<String, String>,
    /// The folder; paths below it may be asked for by anyone.
    pub folder: Option<PathBuf>,
    /// What the folder holds.
    pub list_folder: ListFolder,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("served", &self.served).field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Registry {
    /// All models: those served first, then the folder's, then the built-in one.
    pub fn list(&self) -> Vec<Entry> {
        let files = self.served.iter().cloned().chain((self.list_folder)());
        let mut all: Vec<Entry> = Vec::new();
        for (name, path) in files {
            if !all.iter().any(|e| e.name == name) {
                all.push(Entry { name, place: Place::File(path) });
            }
        }
        if !all.iter().any(|e| e.name == builtin::NAME) {
            all.push(Entry { name: builtin::NAME.into(), place: Place::Builtin });
        }
        all
    }

    /// The model that a client means: an alias, a name with or without `:latest` and `.gguf` in any case, or a path
    /// where the client may name one.
    ///
    /// # Errors
    /// There is none, or none that this client may name.
    pub fn find(&self, wanted: &ModelRef) -> Result<Entry, ApiError> {
        let name = wanted.name.as_str();
        let lower = |text: &str| text.to_lowercase();
        let bare = name.strip_suffix(":latest").unwrap_or(name);
        let alias = self.aliases.iter().find(|(alias, _)| lower(alias) == lower(bare));
        let bare = alias.map_or(bare, |(_, name)| name.as_str());
        let bare = bare.strip_suffix(".gguf").unwrap_or(bare);
        let all = self.list();
        let exact = all.iter().find(|e| e.name == bare);
        if let Some(entry) = exact.or_else(|| all.iter().find(|e| lower(&e.name) == lower(bare))) {
            return Ok(entry.clone());
        }
        self.by_path(name, wanted.any_path)
    }

    fn by_path(&self, name: &str, any_path: bool) -> Result<Entry, ApiError> {
        let is_path = name.contains(['/', '\\']) || name.ends_with(".gguf");
        // Links are followed first: what counts is where the file is.
        let path = Path::new(name).canonicalize().ok().filter(|p| is_path && is_model(p));
        let folder = self.folder.as_deref().and_then(|f| f.canonicalize().ok());
        let below = |path: &Path| folder.as_deref().is_some_and(|f| path.starts_with(f));
        // Whether a file exists elsewhere is not for everyone to know: the answer is the same.
        let Some(path) = path.filter(|p| any_path || below(p)) else { return Err(ApiError::no_model(name)) };
        let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
        let stem = stem.unwrap_or_default().to_string_lossy().into_owned();
        Ok(Entry { name: stem, place: Place::File(path) })
    }
}

/// Whether a path may be a model: a file, or a folder of safetensors.
fn is_model(path: &Path) -> bool {
    path.is_file() || path.join("config.json").is_file()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    #[test]
    fn names_aliases_and_paths() {
        let root = std::env::temp_dir().join(format!("ir-registry-{}", std::process::id()));
        let (inside, outside) = (root.join("models"), root.join("other"));
        for folder in [&inside, &outside] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let (known, secret) = (inside.join("Qwen.gguf"), outside.join("secret.gguf"));
        for file in [&known, &secret] {
            std::fs::write(file, b"").unwrap();
        }
        let listed = known.clone();
        let registry = Registry {
            served: Vec::new(),
            aliases: BTreeMap::from([("gpt-4o".into(), "Qwen".into())]),
            folder: Some(inside.clone()),
            list_folder: Box::new(move || vec![("Qwen".into(), listed.clone())]),
        };
        let find = |name: &str, any_path| {
            let wanted = ModelRef { name: name.into(), any_path, ..ModelRef::default() };
            registry.find(&wanted).map(|e| e.name)
        };
        let path = |p: &Path| p.to_str().unwrap().to_owned();
        for name in ["Qwen", "qwen:latest", "QWEN.gguf", "GPT-4o", path(&known).as_str()] {
            assert_eq!(find(name, false).unwrap(), "Qwen", "{name}");
        }
        assert_eq!(find("ir-tiny", false).unwrap(), "ir-tiny");
        assert_eq!(find(&path(&secret), true).unwrap(), "secret");
        let around = format!("{}/../other/secret.gguf", path(&inside));
        for name in [path(&secret), around, "/nowhere/x.gguf".into(), String::new(), "nope".into()] {
            let error = find(&name, false).unwrap_err();
            assert_eq!(error.kind, crate::engine::error::Kind::NotFound, "{name}");
        }
        std::fs::remove_dir_all(&root).unwrap();
    }
}
