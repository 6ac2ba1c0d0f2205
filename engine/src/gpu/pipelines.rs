//! The driver's compiled pipelines, in a file for each device: another start then compiles nothing anew. A file that is damaged,
//! or of another device or driver, is deleted and made again.
//!
//! The file: [`MAGIC`], the SHA-256 of what follows, the SHA-256 of the device's description, the driver's bytes as wgpu gives
//! them. Drivers trust those, so that nothing but what was written reaches one.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest, Sha256};

const MAGIC: &[u8; 8] = b"irpipes1";
const DIGEST: usize = 32;
/// Bytes of a file, at most: a model's pipelines take some hundred kilobytes.
const MOST_BYTES: u64 = 256 << 20;

/// A device's file of pipelines.
#[derive(Debug)]
pub(super) struct PipelineFile {
    pub cache: wgpu::PipelineCache,
    path: PathBuf,
    device: [u8; DIGEST],
    /// Pipelines that were made when the file was written, and when the last step was submitted.
    written: AtomicUsize,
    seen: AtomicUsize,
    note: Mutex<Option<String>>,
}

/// What tells devices and drivers apart.
fn describe(info: &wgpu::AdapterInfo) -> [u8; DIGEST] {
    let of = [&info.name, &info.driver, &info.driver_info];
    let text = format!("{of:?} {:?} {} {}", info.backend, info.vendor, info.device);
    Sha256::digest(text).into()
}

/// The driver's bytes in a file; why they are of no use.
fn unpack<'a>(file: &'a [u8], device: &[u8; DIGEST]) -> Result<&'a [u8], &'static str> {
    let damaged = "is damaged";
    let rest = file.strip_prefix(MAGIC).ok_or(damaged)?;
    let (sum, rest) = rest.split_at_checked(DIGEST).ok_or(damaged)?;
    if Sha256::digest(rest)[..] != *sum {
        return Err(damaged);
    }
    let (of, data) = rest.split_at_checked(DIGEST).ok_or(damaged)?;
    if of == device { Ok(data) } else { Err("is of another device or driver") }
}

fn pack(data: &[u8], device: &[u8; DIGEST]) -> Vec<u8> {
    let rest = [device, data].concat();
    [&MAGIC[..], &Sha256::digest(&rest), &rest].concat()
}

/// A file's bytes; none where there is no file.
fn read(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match fs::File::open(path) {
        Ok(file) => file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map(|_| Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl PipelineFile {
    /// The file of a device in `folder`; `None` where its backend has no such thing.
    pub(super) fn open(folder: &Path, device: &wgpu::Device, info: &wgpu::AdapterInfo) -> Option<PipelineFile> {
        let offered = device.features().contains(wgpu::Features::PIPELINE_CACHE);
        wgpu::util::pipeline_cache_key(info).filter(|_| offered)?;
        let path = folder.join(format!("{:08x}-{:08x}.pipelines", info.vendor, info.device));
        let (of, mut note) = (describe(info), None);
        let file = read(&path).unwrap_or_else(|error| {
            note = Some(format!("{} cannot be read: {error}", path.display()));
            None
        });
        let data = file.as_deref().and_then(|file| {
            let unpacked = unpack(file, &of);
            unpacked
                .map_err(|why| {
                    let left = fs::remove_file(&path).err().map(|e| format!(", cannot be deleted ({e})"));
                    let left = left.unwrap_or_default();
                    note = Some(format!("{} {why}{left}: pipelines are compiled anew", path.display()));
                })
                .ok()
        });
        let cache = create(device, data);
        let (written, seen) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Some(PipelineFile { cache, path, device: of, written, seen, note: Mutex::new(note) })
    }

    /// What is worth a line in a log, once.
    pub(super) fn note(&self) -> Option<String> {
        self.note.lock().ok()?.take()
    }

    /// Writes the file where pipelines were made since it was written, but none since the last step. `made` counts all of them.
    pub(super) fn keep(&self, made: usize) {
        if self.seen.swap(made, Ordering::Relaxed) == made && self.written.swap(made, Ordering::Relaxed) != made {
            self.write();
        }
    }

    /// Writes the file where pipelines were made since it was written.
    pub(super) fn close(&self, made: usize) {
        if self.written.swap(made, Ordering::Relaxed) != made {
            self.write();
        }
    }

    fn write(&self) {
        let Some(data) = self.cache.get_data() else { return };
        let part = self.path.with_extension(format!("{}.part", std::process::id()));
        let written = self
            .path
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&part, pack(&data, &self.device)))
            .and_then(|()| fs::rename(&part, &self.path));
        if let Err(error) = written {
            let _ = fs::remove_file(&part);
            if let Ok(mut note) = self.note.lock() {
                *note = Some(format!("{} cannot be written: {error}", self.path.display()));
            }
        }
    }
}

fn create(device: &wgpu::Device, data: Option<&[u8]>) -> wgpu::PipelineCache {
    let descriptor = wgpu::PipelineCacheDescriptor { label: Some("pipelines"), data, fallback: true };
    #[allow(unsafe_code, reason = "drivers trust what a pipeline cache holds")]
    // SAFETY: `data` is what `get_data` gave for a device of this description: its checksum has been compared. wgpu compares
    // the driver's own key, too, and starts with an empty cache where it differs.
    unsafe {
        device.create_pipeline_cache(&descriptor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_as_it_was_written_is_of_no_use() {
        let (device, other) = ([7; DIGEST], [8; DIGEST]);
        let file = pack(b"compiled", &device);
        assert_eq!(unpack(&file, &device), Ok(&b"compiled"[..]));
        assert_eq!(unpack(&file, &other), Err("is of another device or driver"));
        for n in 0..file.len() {
            assert_eq!(unpack(&file[..n], &device), Err("is damaged"), "{n} bytes");
            for bit in 0..8 {
                let mut flipped = file.clone();
                flipped[n] ^= 1 << bit;
                assert_eq!(unpack(&flipped, &device), Err("is damaged"), "bit {bit} of byte {n}");
            }
        }
        assert_eq!(unpack(&[&file[..], &[0]].concat(), &device), Err("is damaged"));
    }
}
