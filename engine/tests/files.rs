//! Real files open: every GGUF of the shared folder, and what a user gives by mistake is refused with the way out.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking and says what it skips")]

use std::path::{Path, PathBuf};

use ir_engine::file::ModelFile;

/// The folder of shared reference data, where there is one.
fn shared() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let folder = std::env::var_os("IR_SHARED").map_or(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: no shared folder at {}", folder.display());
    None
}

fn gguf_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            gguf_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "gguf") {
            found.push(path);
        }
    }
}

#[test]
fn every_shared_file_opens() {
    let Some(folder) = shared() else { return };
    let mut paths = Vec::new();
    gguf_files(&folder, &mut paths);
    let mut n_tensors = 0;
    for path in &paths {
        let opened = ModelFile::open(path);
        if path.ends_with("version1-rejected.gguf") {
            let error = opened.unwrap_err().to_string();
            assert!(error.contains("GGUF version 1") && error.contains("download"), "{error}");
            continue;
        }
        let file = opened.unwrap();
        assert!(!file.meta().arch().unwrap().is_empty());
        for tensor in file.tensors() {
            assert_eq!(file.bytes(tensor).unwrap().len() as u64, tensor.byte_len());
            assert_eq!(file.tensor(tensor.name()), Some(tensor));
            tensor.dtype().unwrap();
        }
        n_tensors += file.tensors().len();
    }
    assert!(paths.len() >= 30 && n_tensors > 500, "{} files, {n_tensors} tensors", paths.len());
}
