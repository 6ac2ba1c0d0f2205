//! Real files open: every GGUF of the shared folder, and what a user gives by mistake is refused with the way out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::common::shared;
use ir_engine::dtype::DType;
use ir_engine::file::ModelFile;
use ir_engine::quant;

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

/// The folder grows: of types that are not read yet the test says so, and fails where too little is read.
#[test]
fn every_shared_file_opens() {
    let Some(folder) = shared("") else { return };
    let mut paths = Vec::new();
    gguf_files(&folder, &mut paths);
    let (mut n_tensors, mut not_read) = (0, BTreeSet::new());
    for path in &paths {
        let opened = ModelFile::open(path);
        if path.ends_with("version1-rejected.gguf") {
            let error = opened.unwrap_err().to_string();
            assert!(error.contains("GGUF version 1") && error.contains("download"), "{error}");
            continue;
        }
        let file = opened.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(!file.meta().arch().unwrap().is_empty());
        for tensor in file.tensors() {
            if let Err(error) = tensor.dtype() {
                not_read.insert(format!("{}: {error}", path.display()));
                continue;
            }
            assert_eq!(file.bytes(tensor).unwrap().len() as u64, tensor.byte_len());
            assert_eq!(file.tensor(tensor.name()), Some(tensor));
            n_tensors += 1;
        }
    }
    not_read.iter().for_each(|what| eprintln!("not read yet: {what}"));
    assert!(paths.len() >= 30 && n_tensors > 500, "{} files, {n_tensors} tensors", paths.len());
}

/// Encoding the F32 file's weights gives the blocks of the files that llama.cpp's tools wrote, byte for byte.
#[test]
fn encoders_agree_with_llama_cpp() {
    let Some(folder) = shared("models") else { return };
    let open = |name| {
        let path = folder.join(format!("babyllama-1M/babyllama-tok361-{name}.gguf"));
        ModelFile::open(&path).unwrap()
    };
    let source = open("F32");
    for name in ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"] {
        let file = open(name);
        let mut n_blocks = 0;
        for tensor in file.tensors().iter().filter(|t| t.dtype().unwrap().name() == name) {
            let original = source.tensor(tensor.name()).unwrap();
            let mut values = vec![0.0; original.n_elements() as usize];
            quant::decode(DType::F32, &source.bytes(original).unwrap(), &mut values).unwrap();
            let mut encoded = Vec::new();
            quant::encode(tensor.dtype().unwrap(), &values, &mut encoded).unwrap();
            let (expected, block) = (file.bytes(tensor).unwrap(), tensor.dtype().unwrap().block_bytes());
            for (i, (encoded, expected)) in encoded.chunks(block).zip(expected.chunks(block)).enumerate() {
                assert_eq!(encoded, expected, "{name}: {} block {i}", tensor.name());
                n_blocks += 1;
            }
        }
        assert!(n_blocks > 10_000, "{name}: {n_blocks} blocks show little");
    }
}
