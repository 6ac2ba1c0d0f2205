//! Model files cut into the parts of a split set, `NAME-00001-of-0000N.gguf`, and joined again, as llama.cpp's `gguf-split` does
//! both. Tensors stay as they are, and so does what metadata says.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::write::{Progress, Unfinished};
use crate::error::{Error, Result};
use crate::file::{GgufWriter, ModelFile, Tensor, part_name};
use crate::meta::MetaBuilder;

/// What a part holds at most.
#[derive(Debug, Clone, Copy)]
pub enum PartLimit {
    /// So many tensors.
    Tensors(usize),
    /// Tensors of so many bytes together, or a single one that is larger.
    Bytes(u64),
}

/// Bytes that are written between two looks at who is told.
const PIECE: usize = 16 << 20;

/// Writes a model's parts and gives their paths. `prefix` is their path without the ending. `told` is called after each piece,
/// and if it says no, nothing is left.
///
/// # Errors
/// [`Error::Request`] for a model that one part would hold, and for a part that is there already; [`Error::Io`] if they cannot
/// be written.
pub fn split(
    file: &ModelFile,
    prefix: &Path,
    most: PartLimit,
    told: &mut dyn FnMut(Progress) -> bool,
) -> Result<Vec<PathBuf>> {
    let writer = writer(file)?;
    let shares = shares(file.tensors(), most);
    let n = match u16::try_from(shares.len()) {
        Ok(n) if n > 1 => n,
        Ok(_) => {
            return Err(Error::request(format!(
                "the model's {} tensors fit into one part: ask for smaller parts",
                file.tensors().len()
            )));
        }
        Err(_) => return Err(Error::request(format!("{} parts are more than there can be", shares.len()))),
    };
    let paths: Vec<PathBuf> = (0..n).map(|no| part_name(prefix, no, n)).collect();
    paths.iter().try_for_each(|path| expect_free(path))?;
    let (mut copying, mut rest, mut written) = (Copying::new(file, told), file.tensors(), Vec::new());
    for ((part, path), share) in writer.into_parts(&shares).iter().zip(&paths).zip(&shares) {
        let (tensors, others) = rest.split_at(*share);
        written.push(copying.file(part, tensors, path)?);
        rest = others;
    }
    written.into_iter().zip(&paths).try_for_each(|(part, path)| part.finish(path))?;
    Ok(paths)
}

/// Writes the parts of a split model as one file. `told` as [`split`] has it.
///
/// # Errors
/// [`Error::Request`] for a model that is one file, and for an output that is there already; [`Error::Io`] if it cannot be
/// written.
pub fn merge(file: &ModelFile, path: &Path, told: &mut dyn FnMut(Progress) -> bool) -> Result<()> {
    let writer = writer(file)?;
    if file.parts().len() < 2 {
        return Err(Error::request("this model is one file: there are no parts to join"));
    }
    expect_free(path)?;
    Copying::new(file, told).file(&writer, file.tensors(), path)?.finish(path)
}

/// The model as one file.
fn writer(file: &ModelFile) -> Result<GgufWriter> {
    if file.is_folder() {
        return Err(Error::request("this is a folder of safetensors: write it as one file with `ir convert` first"));
    }
    let pairs = file.meta().iter().filter(|(key, _)| !key.starts_with("split."));
    let meta = pairs.fold(MetaBuilder::new(), |meta, (key, value)| meta.value(&key, value));
    let mut writer = GgufWriter::new(meta)?.version(file.table().version());
    for tensor in file.tensors() {
        writer.tensor(tensor.name(), tensor.dims(), tensor.dtype()?)?;
    }
    Ok(writer)
}

/// How many tensors each part gets, in the file's order.
fn shares(tensors: &[Tensor], most: PartLimit) -> Vec<usize> {
    let (mut shares, mut bytes) = (Vec::new(), 0u64);
    for tensor in tensors {
        let size = tensor.byte_len().next_multiple_of(32);
        bytes = bytes.saturating_add(size);
        match shares.last_mut() {
            Some(n) if matches!(most, PartLimit::Tensors(limit) if *n < limit) => *n += 1,
            Some(n) if matches!(most, PartLimit::Bytes(limit) if bytes <= limit) => *n += 1,
            _ => {
                shares.push(1);
                bytes = size;
            }
        }
    }
    shares
}

fn expect_free(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Err(Error::request(format!("{} is there already: remove it, or give another name", path.display()))),
        Err(_) => Ok(()),
    }
}

/// Tensors on their way from one model to files.
struct Copying<'a> {
    file: &'a ModelFile,
    told: &'a mut dyn FnMut(Progress) -> bool,
    progress: Progress,
}

impl<'a> Copying<'a> {
    fn new(file: &'a ModelFile, told: &'a mut dyn FnMut(Progress) -> bool) -> Copying<'a> {
        let total = file.tensors().iter().map(Tensor::byte_len).sum();
        let progress = Progress { tensors: 0, n_tensors: file.tensors().len(), done: 0, total };
        Copying { file, told, progress }
    }

    /// Writes a file of these tensors, which has another name until it is finished.
    fn file(&mut self, writer: &GgufWriter, tensors: &[Tensor], path: &Path) -> Result<Unfinished> {
        let io = |source| Error::Io { action: "write", path: path.to_owned(), source };
        let (part, out) = Unfinished::create(path)?;
        let mut out = BufWriter::with_capacity(1 << 20, out);
        out.write_all(&writer.header()).map_err(io)?;
        for (i, tensor) in tensors.iter().enumerate() {
            for bytes in self.file.pieces(tensor)?.ok_or(Error::Reload("the model's weights are not held here"))? {
                for piece in bytes.chunks(PIECE) {
                    out.write_all(piece).map_err(io)?;
                    self.progress.done += piece.len() as u64;
                    if !(self.told)(self.progress) {
                        return Err(Error::request("stopped: nothing was written"));
                    }
                }
                bytes.drop_pages();
            }
            out.write_all(&vec![0; writer.padding(i)]).map_err(io)?;
            self.progress.tensors += 1;
        }
        let out = out.into_inner().map_err(|e| io(e.into_error()))?;
        out.sync_all().map_err(io)?;
        self.file.check_unchanged()?;
        Ok(part)
    }
}
