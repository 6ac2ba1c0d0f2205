//! What nothing needs goes ([`Store::gc`]), and what is there is read again and compared with its digest
//! ([`Store::verify`]).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::digest::Digest;
use crate::disk::{self, Lock};
use crate::error::{Error, Kind, Result};
use crate::foreign;
use crate::index::Index;
use crate::manifest::{MAX_MANIFEST, Manifest};
use crate::store::{OWN, Store, locked};

/// Unfinished downloads are kept for so long.
const PARTIAL_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Temporary files that a killed process left are kept for so long.
const TEMPORARY_AGE: Duration = Duration::from_secs(3600);

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs that no model needed.
    pub blobs: usize,
    /// Unfinished downloads.
    pub partials: usize,
    /// Bytes of both.
    pub bytes: u64,
}

/// What is wrong in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The model's name, or the blob's file.
    pub what: String,
    /// What is wrong, and what to do.
    pub why: String,
}

impl Store {
    /// All manifests' paths and contents.
    fn manifests(&self) -> Vec<([String; 4], PathBuf, Result<(Digest, Manifest)>)> {
        // Read anew: what is removed depends on it.
        let mut index = Index::default();
        let read = |path: &Path| {
            disk::regular(path)?;
            let bytes = disk::read_small(path, MAX_MANIFEST)?;
            Ok((Digest::of(&bytes), Manifest::parse(&bytes)?))
        };
        let all = foreign::manifests(&self.settings.root, &mut index);
        all.into_iter().map(|(parts, path)| (parts, path.clone(), read(&path))).collect()
    }

    /// The digests that a model or a running pull needs. The caller holds the store's lock.
    pub(crate) fn needed(&self) -> Result<BTreeSet<Digest>> {
        let mut needed = BTreeSet::new();
        for (_, path, manifest) in self.manifests() {
            let (_, manifest) = manifest.map_err(|e| {
                let what =
                    format!("{}: {}; remove that file, and nothing is lost but the name", path.display(), e.what);
                Error { what, ..e }
            })?;
            needed.extend(manifest.blobs().filter_map(|l| l.digest().ok()));
        }
        for (_, path) in disk::entries(&self.settings.root.join(OWN).join("pulls"), usize::MAX) {
            // A pull that runs holds a lock on its list; one that does not is dead.
            if Lock::attempt(&path)?.is_some() {
                disk::remove(&path)?;
                continue;
            }
            let text = disk::read_small(&path, MAX_MANIFEST).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            needed.extend(text.lines().filter_map(|l| Digest::parse(l).ok()));
        }
        Ok(needed)
    }

    /// Removes blobs that no model needs, and unfinished downloads that are a week old (`all_partials`: all that do not run).
    ///
    /// # Errors
    /// A manifest cannot be read, so that it is not known what it needs; or a file cannot be removed.
    pub fn gc(&self, all_partials: bool) -> Result<Collected> {
        let _lock = self.lock()?;
        let root = &self.settings.root;
        let needed = self.needed()?;
        let mut collected = Collected::default();
        disk::check_folders(root, &["blobs"])?;
        for (name, path) in disk::entries(&root.join("blobs"), usize::MAX) {
            let Some(metadata) = disk::kind(&path)?.filter(|m| !m.is_dir()) else { continue };
            match name.strip_prefix("sha256-").map(Digest::parse) {
                Some(Ok(digest)) if !needed.contains(&digest) => {
                    collected.blobs += 1;
                    collected.bytes += metadata.len();
                    disk::remove(&path)?;
                }
                _ if name.ends_with(".tmp") && older(&path, TEMPORARY_AGE) => {
                    disk::remove(&path)?;
                }
                _ => {}
            }
        }
        self.collect_partials(all_partials, &mut collected)?;
        let alive: Vec<Digest> = self.manifests().into_iter().filter_map(|(_, _, m)| Some(m.ok()?.0)).collect();
        crate::links::keep_only(self, &alive);
        Ok(collected)
    }

    fn collect_partials(&self, all: bool, collected: &mut Collected) -> Result {
        let own = self.settings.root.join(OWN);
        for (name, path) in disk::entries(&own.join("locks"), usize::MAX) {
            let Some(lock) = Lock::attempt(&path)? else { continue };
            let data = own.join("partial").join(&name);
            if all || older(&data, PARTIAL_AGE) {
                if let Some(metadata) = disk::regular(&data)? {
                    collected.partials += 1;
                    collected.bytes += metadata.len();
                    disk::remove(&data)?;
                }
                disk::remove(&data.with_extension("journal"))?;
            }
            if disk::regular(&data)?.is_none() {
                disk::remove(&path)?;
            }
            drop(lock);
        }
        Ok(())
    }

    /// Reads every blob that a model needs and compares it with its digest. With `repair`, spoiled blobs are removed, so
    /// that the next pull fetches them again.
    ///
    /// # Errors
    /// The store cannot be read at all.
    pub fn verify(&self, repair: bool, progress: &mut dyn FnMut(&str, u64)) -> Result<Vec<Fault>> {
        let mut faults = Vec::new();
        let mut seen = BTreeSet::new();
        for (parts, path, manifest) in self.manifests() {
            let name = foreign::name_at(&parts).map_or_else(|_| path.display().to_string(), |n| n.short());
            let (_, manifest) = match manifest {
                Ok(manifest) => manifest,
                // Removed meanwhile.
                Err(_) if matches!(disk::kind(&path), Ok(None)) => continue,
                Err(e) => {
                    faults.push(Fault { what: name, why: format!("{}: `ir rm` it and pull it again", e.what) });
                    continue;
                }
            };
            for layer in manifest.blobs() {
                let digest = layer.digest()?;
                if !seen.insert(digest) {
                    continue;
                }
                progress(&layer.digest, layer.size);
                let fault = self.fault_of(&digest, layer.size);
                // A model that was removed while this read is no fault.
                if let Some(why) = fault.filter(|_| matches!(disk::kind(&path), Ok(Some(_)))) {
                    if repair {
                        disk::remove(&self.blob(&digest))?;
                    }
                    faults.push(Fault { what: name.clone(), why });
                }
            }
        }
        Ok(faults)
    }

    fn fault_of(&self, digest: &Digest, size: u64) -> Option<String> {
        let again = "`ir pull` fetches it again";
        let path = self.blob(digest);
        match disk::regular(&path) {
            Err(e) => return Some(e.what),
            Ok(None) => return Some(format!("the blob {digest} is missing: {again}")),
            Ok(Some(m)) if m.len() != size => {
                return Some(format!("the blob {digest} has {} bytes instead of {size}: {again}", m.len()));
            }
            Ok(Some(_)) => {}
        }
        match hash_file(&path) {
            Err(e) if e.kind == Kind::Disk => Some(e.what),
            Err(e) => Some(e.what),
            Ok(found) if found != *digest => Some(format!("the blob {digest} holds other bytes ({found}): {again}")),
            Ok(_) => None,
        }
    }

    /// The pulls that run in this process, by name.
    pub fn pulling(&self) -> Vec<String> {
        locked(&self.pulls).iter().filter(|(_, p)| p.strong_count() > 0).map(|(k, _)| k.0.join("/")).collect()
    }
}

/// The digest of a file's bytes.
pub(crate) fn hash_file(path: &Path) -> Result<Digest> {
    use sha2::Digest as _;
    let failed = |e: std::io::Error| Error::disk("read", path, &e);
    let mut file = File::open(path).map_err(failed)?;
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(Digest::finish(hash)),
            n => hash.update(&buffer[..n]),
        }
    }
}

fn older(path: &Path, age: Duration) -> bool {
    let modified = std::fs::metadata(path).and_then(|m| m.modified());
    modified.is_ok_and(|m| SystemTime::now().duration_since(m).is_ok_and(|a| a > age))
}
