//! A model file cut into the parts of a split set, `NAME-00001-of-0000N.gguf`, as llama.cpp's `gguf-split` does it. The other
//! way is a [`super::Job`] that leaves every tensor as it is: opening any part opens the set.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::write::Unfinished;
use crate::error::{Error, Result};
use crate::file::{GgufWriter, ModelFile, part_name};
use crate::meta::MetaBuilder;

/// Writes the parts, their tensors shared out evenly in order, and gives their paths. `prefix` is the path without the ending.
/// After each tensor `told` is called with the bytes written and all bytes; if it says no, nothing is left.
///
/// # Errors
/// [`Error::Request`] for a number of parts that is not from 2 to the number of tensors, [`Error::Io`] where they cannot be
/// written.
pub fn split(
    file: &ModelFile,
    prefix: &Path,
    parts: u16,
    told: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Vec<PathBuf>> {
    let tensors = file.tensors();
    if parts < 2 || usize::from(parts) > tensors.len() {
        return Err(Error::request(format!("a model of {} tensors cannot be cut into {parts} parts", tensors.len())));
    }
    let all = file.meta().iter().filter(|(key, _)| !key.starts_with("split."));
    let mut writer = GgufWriter::new(all.fold(MetaBuilder::new(), |meta, (key, value)| meta.value(&key, value)))?;
    for tensor in tensors {
        writer.tensor(tensor.name(), tensor.dims(), tensor.dtype()?)?;
    }
    let total: u64 = tensors.iter().map(|t| t.byte_len()).sum();
    let (mut done, mut at, mut unfinished) = (0, 0, Vec::new());
    for (no, part) in writer.split(parts).into_iter().enumerate() {
        let path = part_name(prefix, no as u16, parts);
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{}.part", std::process::id()));
        let temporary = path.with_file_name(name);
        let io = |action| {
            let path = temporary.clone();
            move |source| Error::Io { action, path, source }
        };
        let opened = std::fs::File::create(&temporary).map_err(io("create"))?;
        unfinished.push((Unfinished::new(temporary.clone()), path));
        let mut out = BufWriter::with_capacity(1 << 20, opened);
        out.write_all(&part.header()).map_err(io("write"))?;
        for i in 0..part.len() {
            let tensor = &tensors[at];
            for piece in file.pieces(tensor)?.unwrap_or_default() {
                out.write_all(&piece).map_err(io("write"))?;
                piece.drop_pages();
            }
            out.write_all(&vec![0; part.padding(i)]).map_err(io("write"))?;
            (done, at) = (done + tensor.byte_len(), at + 1);
            if !told(done, total) {
                return Err(Error::request("stopped: nothing was written"));
            }
        }
        let opened = out.into_inner().map_err(|e| io("write")(e.into_error()))?;
        opened.sync_all().map_err(io("write"))?;
    }
    let mut paths = Vec::new();
    for (part, path) in unfinished {
        part.finish(&path)?;
        paths.push(path);
    }
    Ok(paths)
}
