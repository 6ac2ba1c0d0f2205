//! Other programs' models, read in place: Ollama's stores, the Hugging Face cache and LM Studio's folders. Nothing in
//! them is ever written, and a link in them is followed only to a file in the same folder.

use std::fs::Metadata;
use std::path::{Path, PathBuf};

use crate::disk;
use crate::error::{Error, Result};
use crate::index::Index;
use crate::manifest::MAX_MANIFEST;
use crate::name::{Key, ModelName, from_file_name};
use crate::quant::{self, Choice};
use crate::settings::{Foreign, Origin};
use crate::store::Found;

/// Entries of a folder that are looked at, at most.
const MAX_ENTRIES: usize = 20_000;

/// Folders below a snapshot or repository are searched this deep.
const MAX_DEPTH: usize = 3;

/// The metadata of a file that is, links followed, inside `root`.
pub(crate) fn inside(root: &Path, path: &Path) -> Option<Metadata> {
    let found = std::fs::symlink_metadata(path).ok()?;
    if found.is_file() {
        return Some(found);
    }
    let real = path.canonicalize().ok()?;
    let root = root.canonicalize().ok()?;
    std::fs::metadata(&real).ok().filter(|m| m.is_file() && real.starts_with(&root))
}

/// The bytes of a manifest of an Ollama store; names count in any case.
pub(crate) fn ollama_manifest(folder: &Path, key: &Key) -> Result<Option<Vec<u8>>> {
    let mut at = folder.join("manifests");
    for wanted in &key.0 {
        let wanted = from_file_name(wanted);
        let exact = at.join(&wanted);
        if exact.symlink_metadata().is_ok() {
            at = exact;
            continue;
        }
        let same = |name: &str| from_file_name(name).eq_ignore_ascii_case(&wanted);
        let Some((_, path)) = disk::entries(&at, MAX_ENTRIES).into_iter().find(|(name, _)| same(name)) else {
            return Ok(None);
        };
        at = path;
    }
    match inside(folder, &at) {
        Some(_) => disk::read_small(&at, MAX_MANIFEST).map(Some),
        None => Ok(None),
    }
}

/// A repository's files on this machine.
#[derive(Debug)]
pub(crate) struct Repository {
    pub(crate) user: String,
    pub(crate) repo: String,
    folder: PathBuf,
}

/// Finds a hub's model in the Hugging Face cache or in LM Studio's folder.
pub(crate) fn in_repositories(place: &Foreign, name: &ModelName) -> Result<Option<Found>> {
    let ModelName::Hub { user, repo, tag, revision } = name else { return Ok(None) };
    let mut index = Index::default();
    let same = |r: &Repository| r.user.eq_ignore_ascii_case(user) && r.repo.eq_ignore_ascii_case(repo);
    for repository in repositories(place, revision.as_deref(), &mut index).into_iter().filter(same) {
        let files = files(&repository.folder, &mut index);
        let names: Vec<&str> = files.iter().map(String::as_str).collect();
        // What is not whole here may be had from the hub.
        let Ok(choice) = quant::choose(&names, tag.as_deref(), "the cache") else { continue };
        if let Some(found) = open(place, &repository, &choice) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The files of a choice, if each is inside the folder.
pub(crate) fn open(place: &Foreign, repository: &Repository, choice: &Choice) -> Option<Found> {
    let (Choice::Gguf(files) | Choice::Safetensors(files)) = choice;
    let sizes: Option<Vec<u64>> =
        files.iter().map(|f| inside(&place.folder, &repository.folder.join(f)).map(|m| m.len())).collect();
    let tag = files[0].rsplit('/').next().unwrap_or(&files[0]);
    let (tag, path) = match choice {
        Choice::Gguf(_) => (format!(":{tag}"), repository.folder.join(&files[0])),
        Choice::Safetensors(_) => (String::new(), repository.folder.clone()),
    };
    Some(Found {
        name: format!("{}/{}/{}{tag}", crate::hubs::HUB_HOST, repository.user, repository.repo),
        origin: place.origin,
        path,
        size: sizes?.into_iter().fold(0, u64::saturating_add),
        manifest: None,
        digest: None,
        root: place.folder.clone(),
    })
}

/// The repositories of a folder; of the Hugging Face cache those of a revision (`main`, else any).
pub(crate) fn repositories(place: &Foreign, revision: Option<&str>, index: &mut Index) -> Vec<Repository> {
    match place.origin {
        Origin::HuggingFace => {
            let all = index.entries(&place.folder, MAX_ENTRIES);
            all.into_iter().filter_map(|e| cached(&place.folder.join(&e.name), &e.name, revision, index)).collect()
        }
        _ => {
            let mut all = Vec::new();
            for user in index.entries(&place.folder, MAX_ENTRIES).into_iter().filter(|e| e.folder) {
                let folder = place.folder.join(&user.name);
                for repo in index.entries(&folder, MAX_ENTRIES).into_iter().filter(|e| e.folder) {
                    let folder = folder.join(&repo.name);
                    all.push(Repository { user: user.name.clone(), repo: repo.name, folder });
                }
            }
            all
        }
    }
}

/// A repository of the Hugging Face cache: `models--USER--REPO/snapshots/COMMIT`.
fn cached(folder: &Path, name: &str, revision: Option<&str>, index: &mut Index) -> Option<Repository> {
    let (user, repo) = name.strip_prefix("models--")?.split_once("--")?;
    let snapshots = folder.join("snapshots");
    let revision = revision.unwrap_or("main");
    let commit = index.small_text(&folder.join("refs").join(revision)).unwrap_or_else(|| revision.to_owned());
    let names: Vec<String> = index.entries(&snapshots, 1000).into_iter().filter(|e| e.folder).map(|e| e.name).collect();
    let chosen = names.iter().find(|n| **n == commit.trim());
    let chosen = chosen.or_else(|| names.first().filter(|_| revision == "main"))?;
    Some(Repository { user: user.to_owned(), repo: repo.replace("--", "-"), folder: snapshots.join(chosen) })
}

/// The model files of a repository's folder, by their paths in it.
pub(crate) fn files(folder: &Path, index: &mut Index) -> Vec<String> {
    let mut all = Vec::new();
    walk(folder, "", MAX_DEPTH, index, &mut all);
    all
}

fn walk(folder: &Path, prefix: &str, depth: usize, index: &mut Index, all: &mut Vec<String>) {
    for entry in index.entries(folder, MAX_ENTRIES) {
        let path = format!("{prefix}{}", entry.name);
        if entry.folder {
            if depth > 1 {
                walk(&folder.join(&entry.name), &format!("{path}/"), depth - 1, index, all);
            }
        } else if all.len() < MAX_ENTRIES {
            all.push(path);
        }
    }
}

/// All models of a folder of repositories.
pub(crate) fn all(place: &Foreign, index: &mut Index) -> Vec<Found> {
    let mut found = Vec::new();
    for repository in repositories(place, None, index) {
        let files = files(&repository.folder, index);
        let names: Vec<&str> = files.iter().map(String::as_str).filter(|f| quant::is_plain(f)).collect();
        for group in quant::groups(&names) {
            // Sets with parts missing are no models.
            let whole = quant::choose(&names, Some(&group.files[0]), "");
            found.extend(whole.ok().and_then(|choice| open(place, &repository, &choice)));
        }
    }
    found
}

/// The names and manifests of an Ollama-shaped store: `host/namespace/model/tag` and the file.
pub(crate) fn manifests(folder: &Path, index: &mut Index) -> Vec<([String; 4], PathBuf)> {
    let mut all = vec![(Vec::<String>::new(), folder.join("manifests"))];
    for level in 0..4 {
        let mut next = Vec::new();
        for (parts, path) in all {
            for entry in index.entries(&path, MAX_ENTRIES) {
                let temporary = entry.name.ends_with(".tmp") || entry.name.starts_with('.');
                if entry.folder == (level < 3) && !temporary && next.len() < MAX_ENTRIES {
                    let parts = parts.iter().cloned().chain([entry.name.clone()]).collect();
                    next.push((parts, path.join(&entry.name)));
                }
            }
        }
        all = next;
    }
    all.into_iter().filter_map(|(parts, path)| Some((parts.try_into().ok()?, path))).collect()
}

/// The name of a manifest by its place.
pub(crate) fn name_at(parts: &[String; 4]) -> Result<ModelName> {
    let [host, namespace, model, tag] = parts.each_ref().map(|p| from_file_name(p));
    if host == "url" {
        return Err(Error::name("an address is known by its manifest only"));
    }
    if crate::hubs::HUB_HOSTS.contains(&host.as_str()) {
        let (tag, revision) = match tag.split_once('@') {
            Some((tag, revision)) => (tag.to_owned(), format!("@{revision}")),
            None => (tag, String::new()),
        };
        let tag = if tag == "latest" { String::new() } else { format!(":{tag}") };
        return ModelName::parse(&format!("{host}/{namespace}/{model}{tag}{revision}"));
    }
    ModelName::parse(&format!("{host}/{namespace}/{model}:{tag}"))
}
