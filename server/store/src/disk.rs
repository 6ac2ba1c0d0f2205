//! Files as a store needs them: bounded reads, atomic writes, locks that other processes see, and links refused.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Kind, Result};

/// Files opened by this process for the store's lists, so that tests can count them.
pub(crate) static OPENED: AtomicU64 = AtomicU64::new(0);

/// Reads a file of at most so many bytes.
pub(crate) fn read_small(path: &Path, most: u64) -> Result<Vec<u8>> {
    OPENED.fetch_add(1, Ordering::Relaxed);
    let file = File::open(path).map_err(|e| Error::disk("read", path, &e))?;
    let kind = file.metadata().map_err(|e| Error::disk("read", path, &e))?;
    if !kind.is_file() {
        return Err(Error::new(Kind::Disk, format!("{} is no file", path.display())));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(|e| Error::disk("read", path, &e))?;
    if bytes.len() as u64 > most {
        return Err(Error::corrupt(format!("{} is larger than {most} bytes, which is all it may be", path.display())));
    }
    Ok(bytes)
}

/// What a path is, links not followed. `None` if there is nothing.
pub(crate) fn kind(path: &Path) -> Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(Error::disk("look at", path, &e)),
    }
}

/// The metadata of a regular file; `None` if there is nothing there.
///
/// # Errors
/// A link, folder or device stands there.
pub(crate) fn regular(path: &Path) -> Result<Option<Metadata>> {
    match kind(path)? {
        Some(found) if found.is_file() => Ok(Some(found)),
        Some(_) => Err(Error::corrupt(format!(
            "{} is a link, a folder or a device, which the store never has there: remove it",
            path.display()
        ))),
        None => Ok(None),
    }
}

/// Makes the folders of `inside` below `root`, none of which may be a link.
pub(crate) fn make_folders(root: &Path, inside: &[&str]) -> Result<PathBuf> {
    fs::create_dir_all(root).map_err(|e| Error::disk("make the folder", root, &e))?;
    let mut folder = root.to_owned();
    for part in inside {
        folder.push(part);
        match kind(&folder)? {
            Some(found) if found.is_dir() => {}
            Some(_) => return Err(refused(&folder)),
            None => match fs::create_dir(&folder) {
                Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                    return Err(Error::disk("make the folder", &folder, &e));
                }
                _ => {}
            },
        }
    }
    Ok(folder)
}

/// Whether all of these folders below `root` are folders and not links.
pub(crate) fn check_folders(root: &Path, inside: &[&str]) -> Result<bool> {
    let mut folder = root.to_owned();
    for part in inside {
        folder.push(part);
        match kind(&folder)? {
            Some(found) if found.is_dir() => {}
            Some(_) => return Err(refused(&folder)),
            None => return Ok(false),
        }
    }
    Ok(true)
}

fn refused(folder: &Path) -> Error {
    Error::corrupt(format!("{} is no folder but a file or a link, which the store does not follow", folder.display()))
}

/// Writes a file whole or not at all.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.{number}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&temporary);
        Error::disk("write", path, &e)
    })
}

/// Removes a file; one that is gone already is no error.
pub(crate) fn remove(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(e) => Err(Error::disk("remove", path, &e)),
    }
}

/// The entries of a folder by name, at most so many; a folder that is not there has none.
pub(crate) fn entries(folder: &Path, most: usize) -> Vec<(String, PathBuf)> {
    OPENED.fetch_add(1, Ordering::Relaxed);
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let named = |e: fs::DirEntry| Some((e.file_name().into_string().ok()?, e.path()));
    let mut all: Vec<_> = entries.flatten().filter_map(named).take(most).collect();
    all.sort();
    all
}

/// A lock that ends when it is dropped, and when the process ends.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code, reason = "held, not read: closing it ends the lock")] File);

impl Lock {
    fn file(path: &Path) -> Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        if regular(path)?.is_some() {
            options.create(false);
        }
        match options.open(path) {
            // It was removed in between.
            Err(e) if e.kind() == ErrorKind::NotFound => options.create(true).open(path),
            other => other,
        }
        .map_err(|e| Error::disk("open", path, &e))
    }

    /// Waits for it. For locks that are held for moments.
    pub(crate) fn wait(path: &Path) -> Result<Lock> {
        let file = Lock::file(path)?;
        file.lock().map_err(|e| Error::disk("lock", path, &e))?;
        Ok(Lock(file))
    }

    /// Takes it, or `None` if another has it.
    pub(crate) fn attempt(path: &Path) -> Result<Option<Lock>> {
        let file = Lock::file(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(e)) => Err(Error::disk("lock", path, &e)),
        }
    }
}
