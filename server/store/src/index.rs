//! [`Index`]: what folders hold and what files say, kept by modification times, so that a list opens no file twice. It is
//! kept in a file too; whoever removes that file loses nothing.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ir_engine::file::ModelFile;
use serde::{Deserialize, Serialize};

use crate::capabilities::Capabilities;
use crate::details::Details;
use crate::disk;
use crate::manifest::{MAX_MANIFEST, Manifest};

/// A folder that changed less than this ago is read again: its time of modification is too coarse to tell.
const FRESH: Duration = Duration::from_secs(2);

/// The index's file may have so many bytes.
const MAX_INDEX: u64 = 256 << 20;

/// Entries that the index keeps, at most; beyond, it begins anew.
const MAX_KEPT: usize = 200_000;

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// Whether it is a folder, links not followed.
    pub(crate) folder: bool,
}

/// When a file was written and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp(u64, u64);

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        let since = metadata.modified().ok().and_then(|m| m.duration_since(UNIX_EPOCH).ok());
        Stamp(since.map_or(0, |s| u64::try_from(s.as_nanos()).unwrap_or(u64::MAX)), metadata.len())
    }
}

/// What is known, with the stamps under which it was learnt.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Index {
    #[serde(default)]
    folders: BTreeMap<PathBuf, (Stamp, Vec<Entry>)>,
    #[serde(default)]
    manifests: BTreeMap<PathBuf, (Stamp, String, Manifest)>,
    #[serde(default)]
    details: BTreeMap<PathBuf, (Stamp, Details)>,
    #[serde(default)]
    capabilities: BTreeMap<PathBuf, (Stamp, Capabilities)>,
    #[serde(default)]
    texts: BTreeMap<PathBuf, (Stamp, String)>,
    #[serde(skip)]
    changed: bool,
}

impl Index {
    /// The index of a file; an empty one if there is none, or none that can be read.
    pub(crate) fn load(path: &Path) -> Index {
        let there = matches!(disk::regular(path), Ok(Some(_)));
        let bytes = if there { disk::read_small(path, MAX_INDEX).ok() } else { None };
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Writes the index, if it changed. Where that cannot be done the next list takes longer: no harm.
    pub(crate) fn save(&mut self, path: &Path) {
        let kept =
            self.folders.len() + self.manifests.len() + self.details.len() + self.capabilities.len() + self.texts.len();
        if kept > MAX_KEPT {
            *self = Index::default();
        }
        if std::mem::take(&mut self.changed) {
            let _ = disk::write_atomically(path, &serde_json::to_vec(self).unwrap_or_default());
        }
    }

    /// The entries of a folder by name, at most so many.
    pub(crate) fn entries(&mut self, folder: &Path, most: usize) -> Vec<Entry> {
        let Ok(metadata) = std::fs::metadata(folder) else {
            self.changed |= self.folders.remove(folder).is_some();
            return Vec::new();
        };
        let stamp = Stamp::of(&metadata);
        let settled = |s: &Stamp| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(FRESH);
            u128::from(s.0) < now.as_nanos()
        };
        if let Some((known, entries)) = self.folders.get(folder)
            && *known == stamp
        {
            return entries.clone();
        }
        let look = |(name, path): (String, PathBuf)| {
            let folder = disk::kind(&path).ok().flatten()?.is_dir();
            Some(Entry { name, folder })
        };
        let entries: Vec<Entry> = disk::entries(folder, most).into_iter().filter_map(look).collect();
        if settled(&stamp) {
            self.folders.insert(folder.to_owned(), (stamp, entries.clone()));
            self.changed = true;
        }
        entries
    }

    /// A manifest and the digest of its bytes; `None` if it cannot be read.
    pub(crate) fn manifest(&mut self, path: &Path) -> Option<(String, Manifest)> {
        let stamp = Stamp::of(&std::fs::metadata(path).ok()?);
        if let Some((known, digest, manifest)) = self.manifests.get(path)
            && *known == stamp
        {
            return Some((digest.clone(), manifest.clone()));
        }
        let bytes = disk::read_small(path, MAX_MANIFEST).ok()?;
        let manifest = Manifest::parse(&bytes).ok()?;
        let digest = crate::Digest::of(&bytes).hex();
        self.manifests.insert(path.to_owned(), (stamp, digest.clone(), manifest.clone()));
        self.changed = true;
        Some((digest, manifest))
    }

    /// What a model file says of itself, and when it was written.
    pub(crate) fn details(&mut self, path: &Path) -> (Details, SystemTime, u64) {
        let Ok(metadata) = std::fs::metadata(path) else {
            return (Details::broken("it is missing"), UNIX_EPOCH, 0);
        };
        let stamp = Stamp::of(&metadata);
        let modified = metadata.modified().unwrap_or(UNIX_EPOCH);
        if let Some((known, details)) = self.details.get(path)
            && *known == stamp
        {
            return (details.clone(), modified, metadata.len());
        }
        disk::OPENED.fetch_add(1, Ordering::Relaxed);
        let details = Details::of(path);
        self.details.insert(path.to_owned(), (stamp, details.clone()));
        self.changed = true;
        (details, modified, metadata.len())
    }

    /// What the model of a file can do; nothing, where the file cannot be read.
    pub(crate) fn capabilities(&mut self, path: &Path) -> Capabilities {
        let Ok(metadata) = std::fs::metadata(path) else { return Capabilities::default() };
        let stamp = Stamp::of(&metadata);
        if let Some((known, capabilities)) = self.capabilities.get(path)
            && *known == stamp
        {
            return *capabilities;
        }
        disk::OPENED.fetch_add(1, Ordering::Relaxed);
        let found = ModelFile::open(path).map_or_else(|_| Capabilities::default(), |f| Capabilities::of_file(f.meta()));
        self.capabilities.insert(path.to_owned(), (stamp, found));
        self.changed = true;
        found
    }

    /// A file of a few bytes.
    pub(crate) fn small_text(&mut self, path: &Path) -> Option<String> {
        let stamp = Stamp::of(&std::fs::metadata(path).ok()?);
        if let Some((known, text)) = self.texts.get(path)
            && *known == stamp
        {
            return Some(text.clone());
        }
        let text = String::from_utf8(disk::read_small(path, 4096).ok()?).ok()?;
        self.texts.insert(path.to_owned(), (stamp, text.clone()));
        self.changed = true;
        Some(text)
    }
}
