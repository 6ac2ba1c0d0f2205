//! [`Store`]: where a name's files are, and what can be done with names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ir_engine::builtin;

use crate::digest::Digest;
use crate::disk::{self, Lock};
use crate::error::{Error, Kind, Result};
use crate::index::Index;
use crate::manifest::{self, MAX_MANIFEST, MAX_TEXT, Manifest};
use crate::modelfile::Modelfile;
use crate::name::{Key, ModelName};
use crate::progress::Shared;
use crate::settings::{Foreign, Origin, Settings};

/// The folder of what the store needs for itself.
pub(crate) const OWN: &str = ".ir";

/// The models of this machine, by name.
#[derive(Debug)]
pub struct Store {
    pub(crate) settings: Settings,
    pub(crate) index: Mutex<Index>,
    /// Pulls that run in this process.
    pub(crate) pulls: Mutex<BTreeMap<Key, Weak<Shared>>>,
}

/// Where a model is.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its whole name.
    pub name: String,
    /// Whose it is.
    pub origin: Origin,
    /// What to open: a GGUF file (of a split set the first part), or a folder of safetensors.
    pub path: PathBuf,
    /// Bytes of all its files.
    pub size: u64,
    /// Its manifest, if it has one.
    pub manifest: Option<Manifest>,
    /// The digest of the manifest's bytes, if it has one.
    pub digest: Option<Digest>,
    /// The folder in which its blobs are.
    pub(crate) root: PathBuf,
}

impl Found {
    /// Whether adapters stand beside its weights.
    pub fn has_adapters(&self) -> bool {
        self.manifest.as_ref().is_some_and(|m| m.layers.iter().any(|layer| layer.role() == "adapter"))
    }

    /// The text of a model's layers of a role (`template`, `system`, `license`, `params`, `messages`).
    ///
    /// # Errors
    /// A blob cannot be read, or is larger than a text may be.
    pub fn texts(&self, role: &str) -> Result<Vec<String>> {
        let Some(manifest) = &self.manifest else { return Ok(Vec::new()) };
        let read = |layer: &manifest::Layer| {
            let path = self.root.join("blobs").join(layer.digest()?.file_name());
            let there = match self.origin {
                Origin::Store => disk::regular(&path)?,
                _ => crate::foreign::inside(&self.root, &path),
            };
            if there.is_none() {
                return Err(Error::corrupt(format!(
                    "the {role} of {} is missing: `ir pull` fetches it again",
                    self.name
                )));
            }
            let bytes = disk::read_small(&path, MAX_TEXT)?;
            String::from_utf8(bytes).map_err(|_| Error::corrupt(format!("the {role} of {} is not UTF-8", self.name)))
        };
        manifest.with_role(role).take(64).map(read).collect()
    }
}

/// Whether the name is that of the built-in model.
fn is_builtin(name: &ModelName) -> bool {
    let short = name.short();
    short.strip_suffix(":latest").unwrap_or(&short).eq_ignore_ascii_case(builtin::NAME)
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// A store with these settings. Nothing is read or made yet.
    pub fn new(settings: Settings) -> Arc<Store> {
        let mut settings = settings;
        let own = settings.root.canonicalize().unwrap_or_else(|_| settings.root.clone());
        let differs = |f: &Foreign| f.folder.canonicalize().map_or(f.folder != own, |folder| folder != own);
        settings.foreign.retain(differs);
        let index = Mutex::new(Index::load(&settings.root.join(OWN).join("index.json")));
        Arc::new(Store { settings, index, pulls: Mutex::new(BTreeMap::new()) })
    }

    /// The store's settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A file of this process's own; its folder is made.
    pub(crate) fn own(&self, folder: &str, name: &str) -> Result<PathBuf> {
        let inside: &[&str] = if folder.is_empty() { &[OWN] } else { &[OWN, folder] };
        Ok(disk::make_folders(&self.settings.root, inside)?.join(name))
    }

    /// Held while manifests or blobs appear or vanish; for moments only.
    pub(crate) fn lock(&self) -> Result<Lock> {
        Lock::wait(&self.own("", "lock")?)
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.settings.root.join("blobs").join(digest.file_name())
    }

    /// Whether the blob is there and has this size, if one is given.
    pub(crate) fn has_blob(&self, digest: &Digest, size: Option<u64>) -> Result<bool> {
        disk::check_folders(&self.settings.root, &["blobs"])?;
        let found = disk::regular(&self.blob(digest))?;
        Ok(found.is_some_and(|f| size.is_none_or(|size| size == f.len())))
    }

    /// The path of a blob that clients name by its digest, if it is there.
    ///
    /// # Errors
    /// A link or folder stands in its place.
    pub fn blob_path(&self, digest: &Digest) -> Result<Option<PathBuf>> {
        Ok(self.has_blob(digest, None)?.then(|| self.blob(digest)))
    }

    /// Stores a few bytes and gives their digest.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        disk::make_folders(&self.settings.root, &["blobs"])?;
        if !self.has_blob(&digest, Some(bytes.len() as u64))? {
            disk::write_atomically(&self.blob(&digest), bytes)?;
        }
        Ok(digest)
    }

    pub(crate) fn manifest_path(&self, key: &Key) -> PathBuf {
        let [host, namespace, model, tag] = &key.0;
        self.settings.root.join("manifests").join(host).join(namespace).join(model).join(tag)
    }

    /// The manifest's bytes, if this store has one of that name.
    pub(crate) fn manifest_bytes(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        let [host, namespace, model, _] = &key.0;
        if !disk::check_folders(&self.settings.root, &["manifests", host, namespace, model])? {
            return Ok(None);
        }
        let path = self.manifest_path(key);
        match disk::regular(&path)? {
            Some(_) => match disk::read_small(&path, MAX_MANIFEST) {
                // It was removed in between.
                Err(e) if disk::regular(&path)?.is_none() && e.kind == Kind::Disk => Ok(None),
                other => other.map(Some),
            },
            None => Ok(None),
        }
    }

    /// Writes a manifest. The caller holds the store's lock, and all blobs are there.
    pub(crate) fn publish(&self, key: &Key, bytes: &[u8]) -> Result {
        let [host, namespace, model, tag] = &key.0;
        let folder = disk::make_folders(&self.settings.root, &["manifests", host, namespace, model])?;
        let path = folder.join(tag);
        disk::regular(&path)?;
        disk::write_atomically(&path, bytes)
    }

    /// Finds a model here or among other programs' models; `None` if nothing has the name.
    ///
    /// # Errors
    /// It is there and cannot be used.
    pub fn resolve(&self, name: &ModelName) -> Result<Option<Found>> {
        if let ModelName::Path(path) = name {
            return self.by_path(path);
        }
        let Some(key) = name.key() else { return Ok(None) };
        if let Some(bytes) = self.manifest_bytes(&key)? {
            return self.found(name, &bytes, &self.settings.root, Origin::Store).map(Some);
        }
        for place in &self.settings.foreign {
            let found = match place.origin {
                Origin::Ollama => crate::foreign::ollama_manifest(&place.folder, &key)?
                    .map(|bytes| self.found(name, &bytes, &place.folder, Origin::Ollama))
                    .transpose()?,
                _ => crate::foreign::in_repositories(place, name)?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn by_path(&self, path: &Path) -> Result<Option<Found>> {
        let Ok(metadata) = std::fs::metadata(path) else { return Ok(None) };
        let found = Found {
            name: path.display().to_string(),
            origin: Origin::Folder,
            path: path.to_owned(),
            size: metadata.len(),
            manifest: None,
            digest: None,
            root: self.settings.root.clone(),
        };
        Ok(Some(found))
    }

    /// A model by the bytes of its manifest.
    pub(crate) fn found(&self, name: &ModelName, bytes: &[u8], root: &Path, origin: Origin) -> Result<Found> {
        let spoiled = |e: Error| Error { what: format!("{}: {}", name.short(), e.what), ..e };
        let manifest = Manifest::parse(bytes).map_err(spoiled)?;
        let digest = Digest::of(bytes);
        let models: Vec<_> = manifest.with_role("model").chain(manifest.with_role("file")).collect();
        let mut blobs = Vec::new();
        for layer in &models {
            let path = root.join("blobs").join(layer.digest()?.file_name());
            let metadata = match origin {
                Origin::Store => disk::regular(&path).map_err(spoiled)?,
                _ => crate::foreign::inside(root, &path),
            };
            if metadata.is_none_or(|m| m.len() != layer.size) {
                return Err(Error::corrupt(format!(
                    "{}: its blob {} is missing or has another size: `ir pull` fetches it again",
                    name.short(),
                    layer.digest
                )));
            }
            blobs.push(path);
        }
        let whole = models.len() == 1 && models[0].role() == "model";
        let path = match blobs.as_slice() {
            [] => {
                return Err(Error::unsupported(format!("{} holds no model that can be opened", name.short())));
            }
            [one] if whole => one.clone(),
            _ => crate::links::folder(self, &digest, &models, &blobs)?,
        };
        let known = manifest.annotations.get(manifest::NAME).cloned();
        let name = known.unwrap_or_else(|| match origin {
            // The case of the letters is known for names that were written here only.
            Origin::Store => name.short().to_lowercase(),
            _ => name.short(),
        });
        Ok(Found {
            name,
            origin,
            path,
            size: manifest.size(),
            manifest: Some(manifest),
            digest: Some(digest),
            root: root.to_owned(),
        })
    }

    /// As [`Found::texts`].
    ///
    /// # Errors
    /// As there.
    pub fn texts(&self, found: &Found, role: &str) -> Result<Vec<String>> {
        found.texts(role)
    }

    /// Gives a model another name; its blobs are shared.
    ///
    /// # Errors
    /// There is no such model, or the new name cannot be one.
    pub fn copy(&self, source: &ModelName, destination: &ModelName) -> Result {
        let Some(from) = source.key() else {
            return Err(Error::name("a file has no other name: `ir create` makes a model of a file"));
        };
        let to = destination.key();
        let to = to.filter(|_| matches!(destination, ModelName::Registry { .. } | ModelName::Hub { .. }));
        let to = to.ok_or_else(|| {
            Error::name("the new name is invalid: it must be a plain one, as in my-model or my-model:small")
        })?;
        let lock = self.lock()?;
        let Some(bytes) = self.manifest_bytes(&from)? else {
            drop(lock);
            if is_builtin(source) {
                let file = Modelfile { from: builtin::NAME.into(), ..Modelfile::default() };
                return self.create(destination, &file, None, &mut |_| {});
            }
            let elsewhere = self.resolve(source)?;
            return Err(elsewhere.map_or_else(
                || self.unknown(source),
                |f| {
                    Error::unsupported(format!(
                        "{} is in {}'s folder, which is only read: pull it first",
                        f.name,
                        f.origin.name()
                    ))
                },
            ));
        };
        let mut manifest = Manifest::parse(&bytes)?;
        if manifest.annotations.contains_key(manifest::NAME) {
            manifest.annotations.insert(manifest::NAME.into(), destination.short());
            return self.publish(&to, &manifest.bytes());
        }
        self.publish(&to, &bytes)
    }

    /// Removes a name, and the blobs that no other name needs.
    ///
    /// # Errors
    /// There is no such model, or a file cannot be removed.
    pub fn remove(&self, name: &ModelName) -> Result {
        let Some(key) = name.key() else {
            return Err(Error::name("that is a file and not the store's: remove it as you remove files"));
        };
        let lock = self.lock()?;
        let [host, namespace, model, _] = &key.0;
        let there = disk::check_folders(&self.settings.root, &["manifests", host, namespace, model])?;
        let bytes = if there { self.manifest_bytes(&key).unwrap_or_default() } else { None };
        let path = self.manifest_path(&key);
        if !there || !disk::remove(&path)? {
            drop(lock);
            if is_builtin(name) {
                return Err(Error::unsupported(format!("{} is in this program, not in the store", builtin::NAME)));
            }
            let elsewhere = self.resolve(name)?;
            return Err(elsewhere.map_or_else(
                || self.unknown(name),
                |f| {
                    Error::unsupported(format!(
                        "{} is in {}'s folder, which is only read: remove it there",
                        f.name,
                        f.origin.name()
                    ))
                },
            ));
        }
        for folder in path.ancestors().skip(1).take(3) {
            if std::fs::remove_dir(folder).is_err() {
                break;
            }
        }
        let Some(bytes) = bytes else { return Ok(()) };
        crate::links::forget(self, &Digest::of(&bytes));
        let Ok(manifest) = Manifest::parse(&bytes) else { return Ok(()) };
        let own: BTreeSet<Digest> = manifest.blobs().filter_map(|l| l.digest().ok()).collect();
        // A manifest that cannot be read may need any blob: then nothing goes, and `gc` says which it is.
        if let Ok(needed) = self.needed() {
            for digest in own.difference(&needed) {
                disk::remove(&self.blob(digest))?;
            }
        }
        Ok(())
    }

    /// The names that are nearest to one that nothing has.
    pub fn nearest(&self, name: &ModelName) -> Vec<String> {
        let known = self.list();
        crate::nearest::nearest(&name.short().to_lowercase(), known.iter().map(|m| m.name.as_str()))
    }

    /// What to say of a name that nothing has: what was looked through, and the nearest names.
    pub fn unknown(&self, name: &ModelName) -> Error {
        let near = self.nearest(name);
        let near = if near.is_empty() { String::new() } else { format!("; the nearest are {}", near.join(", ")) };
        let others =
            if self.settings.foreign.is_empty() { "" } else { ", nor have Ollama, Hugging Face and LM Studio here" };
        let what = format!(
            "{:?} is not in the store{others}{near}: `ir list` shows what there is, `ir pull` fetches",
            name.short()
        );
        Error::new(Kind::NotFound, what)
    }
}
