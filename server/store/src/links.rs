//! Models of several files: a folder in which the blobs have the names that the files must have. The names are links, so
//! nothing is there twice.

use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::disk;
use crate::error::{Error, Result};
use crate::manifest::Layer;
use crate::store::{OWN, Store};

fn place(manifest: &Digest) -> String {
    manifest.hex()[..32].to_owned()
}

/// The first file of the set for GGUF parts, the folder for others.
pub(crate) fn folder(store: &Store, manifest: &Digest, layers: &[&Layer], blobs: &[PathBuf]) -> Result<PathBuf> {
    let name = place(manifest);
    let folder = disk::make_folders(&store.settings.root, &[OWN, "links", &name])?;
    let mut first = None;
    for (layer, blob) in layers.iter().zip(blobs) {
        let title = layer
            .title()?
            .ok_or_else(|| Error::unsupported("the model has several files, and its manifest gives them no names"))?;
        let path = folder.join(title);
        match std::fs::metadata(&path) {
            Ok(there) if there.len() == layer.size => {}
            Ok(_) => {
                disk::remove(&path)?;
                link(blob, &path)?;
            }
            Err(_) => link(blob, &path)?,
        }
        first.get_or_insert(path);
    }
    let parts = layers.iter().all(|l| l.role() == "model");
    Ok(first.filter(|_| parts).unwrap_or(folder))
}

fn link(blob: &Path, path: &Path) -> Result {
    let hard = match std::fs::hard_link(blob, path) {
        // Another process was faster.
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        other => other,
    };
    hard.or_else(|e| soft(blob, path).map_err(|_| e)).map_err(|e| Error::disk("link", path, &e))
}

#[cfg(unix)]
fn soft(blob: &Path, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(blob.canonicalize()?, path)
}

#[cfg(not(unix))]
fn soft(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Removes the folder of a manifest that is gone.
pub(crate) fn forget(store: &Store, manifest: &Digest) {
    let folder = store.settings.root.join(OWN).join("links").join(place(manifest));
    if matches!(disk::kind(&folder), Ok(Some(found)) if found.is_dir()) {
        let _ = std::fs::remove_dir_all(folder);
    }
}

/// Removes the folders of all manifests but these.
pub(crate) fn keep_only(store: &Store, manifests: &[Digest]) {
    let keep: Vec<String> = manifests.iter().map(place).collect();
    for (name, path) in disk::entries(&store.settings.root.join(OWN).join("links"), usize::MAX) {
        if !keep.contains(&name) && matches!(disk::kind(&path), Ok(Some(found)) if found.is_dir()) {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}
