//! The list of all models: this store's, the files in its folder, and other programs'.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use ir_engine::builtin;
use ir_engine::file::ModelFile;

use crate::capabilities::Capabilities;
use crate::details::Details;
use crate::foreign;
use crate::index::Index;
use crate::manifest;
use crate::quant;
use crate::settings::Origin;
use crate::store::{OWN, Store, locked};

/// Folders below the models folder are searched this deep for files.
const MAX_DEPTH: usize = 3;

/// Files of the models folder that are listed, at most.
const MAX_FILES: usize = 10_000;

/// A model of the list.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its name, by which it is found.
    pub name: String,
    /// Whose it is.
    pub origin: Origin,
    /// What to open. `None` for models of several blobs, until they are resolved.
    pub path: Option<PathBuf>,
    /// Bytes of all its files.
    pub size: u64,
    /// When it was pulled, made or written.
    pub modified: SystemTime,
    /// The digest of its manifest, 64 digits.
    pub digest: Option<String>,
    /// What its file says.
    pub details: Details,
}

impl Listed {
    /// The built-in model.
    pub fn builtin() -> Listed {
        static DETAILS: OnceLock<Details> = OnceLock::new();
        let read = || {
            let file = ModelFile::from_bytes(builtin::bytes());
            file.map_or_else(|e| Details::broken(&e.to_string()), |file| Details::of_file(&file))
        };
        Listed {
            name: builtin::NAME.into(),
            origin: Origin::Builtin,
            path: None,
            size: builtin::bytes().len() as u64,
            modified: SystemTime::UNIX_EPOCH,
            digest: None,
            details: DETAILS.get_or_init(read).clone(),
        }
    }

    /// Whether it can be opened and is of a form that runs.
    pub fn is_usable(&self) -> bool {
        let there = self.origin == Origin::Builtin || self.path.is_some();
        there && self.details.error.is_none()
    }
}

impl Store {
    /// A file that the program was told of, as the list would have it.
    pub fn listed_file(&self, name: &str, path: &Path) -> Listed {
        let (details, modified, length) = locked(&self.index).details(path);
        let size = match crate::place::parts(path).len() {
            1 => length,
            _ => crate::Place::File(path.to_owned()).bytes(),
        };
        let name = name.to_owned();
        Listed { name, origin: Origin::Named, path: Some(path.to_owned()), size, modified, digest: None, details }
    }

    /// What models of the list can do. A file that has not changed since it was asked last is not opened again.
    pub fn capabilities(&self, models: &[Listed]) -> Vec<Capabilities> {
        static OF_BUILTIN: OnceLock<Capabilities> = OnceLock::new();
        let of_builtin = || {
            let file = ModelFile::from_bytes(builtin::bytes());
            file.map_or_else(|_| Capabilities::default(), |file| Capabilities::of_file(file.meta()))
        };
        let mut index = locked(&self.index);
        let mut one = |model: &Listed| match (&model.path, model.origin) {
            (_, Origin::Builtin) => *OF_BUILTIN.get_or_init(of_builtin),
            (Some(path), _) => index.capabilities(path),
            (None, _) => Capabilities::default(),
        };
        let all = models.iter().map(&mut one).collect();
        self.save(&mut index);
        all
    }

    fn save(&self, index: &mut Index) {
        let root = &self.settings.root;
        if root.is_dir() && crate::disk::make_folders(root, &[OWN]).is_ok() {
            index.save(&root.join(OWN).join("index.json"));
        }
    }

    /// All models by name. What has not changed since it was listed last is not opened again.
    pub fn list(&self) -> Vec<Listed> {
        let mut index = locked(&self.index);
        let root = &self.settings.root;
        let mut all = of_manifests(root, Origin::Store, &mut index);
        all.extend(of_folder(root, &mut index));
        for place in &self.settings.foreign {
            match place.origin {
                Origin::Ollama => all.extend(of_manifests(&place.folder, Origin::Ollama, &mut index)),
                _ => all.extend(foreign::all(place, &mut index).into_iter().map(|found| {
                    let (details, modified, _) = index.details(&found.path);
                    let (name, size) = (found.name, found.size);
                    Listed { name, origin: found.origin, path: Some(found.path), size, modified, digest: None, details }
                })),
            }
        }
        all.sort_by(|a, b| (&a.name, a.origin).cmp(&(&b.name, b.origin)));
        self.save(&mut index);
        all
    }

    /// Models that lie as files in the models folder: their names and first files.
    pub fn files(&self) -> Vec<(String, PathBuf)> {
        let mut index = locked(&self.index);
        let mut found = Vec::new();
        walk(&self.settings.root, "", MAX_DEPTH, &mut index, &mut found);
        found.sort();
        found
    }
}

/// The models whose manifests stand in a folder of Ollama's shape.
fn of_manifests(root: &Path, origin: Origin, index: &mut Index) -> Vec<Listed> {
    let mut all = Vec::new();
    for (parts, path) in foreign::manifests(root, index) {
        let Some((digest, manifest)) = index.manifest(&path) else { continue };
        let noted = manifest.annotations.get(manifest::NAME).cloned();
        let Some(name) = noted.or_else(|| foreign::name_at(&parts).ok().map(|n| n.short())) else { continue };
        let models: Vec<_> = manifest.with_role("model").chain(manifest.with_role("file")).collect();
        let blob = models.first().and_then(|l| l.digest().ok()).map(|d| root.join("blobs").join(d.file_name()));
        let (details, file) = match (models.len(), blob) {
            (1, Some(blob)) if models[0].role() == "model" => (index.details(&blob).0, Some(blob)),
            // Parts have their names in a folder of links, which is made when the model is opened.
            (1.., _) => {
                let first = models[0].title().ok().flatten().unwrap_or("").to_owned();
                let links = root.join(OWN).join("links").join(&digest[..32]);
                let parts = models.iter().all(|l| l.role() == "model");
                let file = if parts { links.join(first) } else { links };
                if file.exists() { (index.details(&file).0, Some(file)) } else { (Details::default(), None) }
            }
            _ => (Details::broken("its manifest names no model"), None),
        };
        let modified = std::fs::metadata(&path).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        all.push(Listed { name, origin, path: file, size: manifest.size(), modified, digest: Some(digest), details });
    }
    all
}

/// The GGUF files of the models folder.
fn of_folder(root: &Path, index: &mut Index) -> Vec<Listed> {
    let mut found = Vec::new();
    walk(root, "", MAX_DEPTH, index, &mut found);
    let listed = |(name, path): (String, PathBuf)| {
        let (details, modified, size) = index.details(&path);
        Listed { name, origin: Origin::Folder, path: Some(path), size, modified, digest: None, details }
    };
    found.into_iter().map(listed).collect()
}

fn walk(folder: &Path, prefix: &str, depth: usize, index: &mut Index, found: &mut Vec<(String, PathBuf)>) {
    for entry in index.entries(folder, MAX_FILES) {
        let (name, path) = (&entry.name, folder.join(&entry.name));
        let own = prefix.is_empty() && matches!(name.as_str(), "blobs" | "manifests");
        if entry.folder || path.is_dir() {
            if depth > 1 && !own && !name.starts_with('.') {
                walk(&path, &format!("{prefix}{name}/"), depth - 1, index, found);
            }
        } else if let Some(stem) = name.strip_suffix(".gguf")
            && let Some(stem) = first_part(stem)
            && found.len() < MAX_FILES
        {
            found.push((format!("{prefix}{stem}"), path));
        }
    }
}

/// The name of a file's model: a split set is known by its first part.
fn first_part(stem: &str) -> Option<&str> {
    match quant::part_of(stem) {
        Some((name, 1, _)) => Some(name),
        Some(_) => None,
        None => Some(stem),
    }
}

#[cfg(test)]
mod tests {
    use super::first_part;

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
            assert_eq!(first_part(stem), want, "{stem}");
        }
    }
}
