//! Writing: a tensor after the other, each in pieces of some millions of elements, which threads encode side by side.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::{Job, Planned};
use crate::error::{Error, Result};
use crate::quant;

/// How far writing is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Tensors that are written.
    pub tensors: usize,
    /// All tensors.
    pub n_tensors: usize,
    /// Bytes read.
    pub done: u64,
    /// Bytes to be read.
    pub total: u64,
}

/// Elements that a thread takes at once: sixteen megabytes as floats.
const PIECE: usize = 1 << 22;

/// A file that is removed unless it is finished.
pub(super) struct Unfinished {
    path: PathBuf,
    finished: bool,
}

impl Unfinished {
    /// Creates a file beside `path`, under another name.
    pub(super) fn create(path: &Path) -> Result<(Unfinished, File)> {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{}.part", std::process::id()));
        let part = Unfinished { path: path.with_file_name(name), finished: false };
        match File::create(&part.path) {
            Ok(file) => Ok((part, file)),
            Err(source) => Err(Error::Io { action: "create", path: part.path.clone(), source }),
        }
    }

    /// Gives the file its name.
    pub(super) fn finish(mut self, path: &Path) -> Result<()> {
        let failed = |source| Error::Io { action: "rename", path: path.to_owned(), source };
        std::fs::rename(&self.path, path).map_err(failed)?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            // There is nothing more that could be done.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

pub(super) fn whole(job: &Job<'_>, path: &Path, threads: usize, told: &mut dyn FnMut(Progress) -> bool) -> Result<()> {
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    };
    let (part, file) = Unfinished::create(path)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let failed = io("write", path);
    let total = job.planned.iter().map(|t| t.bytes_before).sum();
    let mut progress = Progress { tensors: 0, n_tensors: job.planned.len(), done: 0, total };
    let mut all = || -> Result<std::io::Result<()>> {
        if let Err(e) = out.write_all(&job.writer.header()) {
            return Ok(Err(e));
        }
        for i in 0..job.planned.len() {
            let mut written = 0;
            for pieces in batches(&job.readers[i], threads) {
                for bytes in encoded(job, i, &pieces)? {
                    written += bytes.len() as u64;
                    if let Err(e) = out.write_all(&bytes) {
                        return Ok(Err(e));
                    }
                }
                let rows = pieces.last().map_or(0, |p| p.end) - pieces.first().map_or(0, |p| p.start);
                let share = rows as u64 * job.planned[i].bytes_before / job.readers[i].rows.max(1) as u64;
                progress.done = (progress.done + share).min(total);
                if !told(progress) {
                    return Err(Error::request("stopped: nothing was written"));
                }
            }
            let expected = job.planned[i].bytes_after;
            if written != expected {
                return Err(Error::shape(format!("{} took {written} bytes, not {expected}", job.planned[i].name)));
            }
            let padding = job.writer.padding(i);
            if let Err(e) = out.write_all(&vec![0; padding]) {
                return Ok(Err(e));
            }
            progress.tensors = i + 1;
        }
        Ok(out.flush())
    };
    all()?.map_err(failed)?;
    let file = out.into_inner().map_err(|e| io("write", path)(e.into_error()))?;
    file.sync_all().map_err(io("write", path))?;
    drop(file);
    part.finish(path)
}

/// The rows of a tensor in pieces, as many at once as there are threads.
fn batches(reader: &super::Reader<'_>, threads: usize) -> Vec<Vec<Range<usize>>> {
    let rows = (PIECE / reader.cols.max(1)).clamp(1, reader.rows.max(1));
    let starts: Vec<usize> = (0..reader.rows).step_by(rows).collect();
    let piece = |start: &usize| *start..(start + rows).min(reader.rows);
    starts.chunks(threads.max(1)).map(|batch| batch.iter().map(piece).collect()).collect()
}

/// Pieces of a tensor in its new type, in order.
fn encoded(job: &Job<'_>, i: usize, pieces: &[Range<usize>]) -> Result<Vec<Vec<u8>>> {
    if let [one] = pieces {
        return Ok(vec![piece(job, i, one.clone())?]);
    }
    std::thread::scope(|scope| {
        let all: Vec<_> = pieces.iter().map(|p| scope.spawn(move || piece(job, i, p.clone()))).collect();
        let joined = all.into_iter().map(|thread| thread.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
        joined.collect()
    })
}

fn piece(job: &Job<'_>, i: usize, rows: Range<usize>) -> Result<Vec<u8>> {
    let (reader, Planned { name, to, dims, .. }) = (&job.readers[i], &job.planned[i]);
    if *to == reader.dtype && !reader.is_merged() {
        return reader.bytes(rows);
    }
    let mut out = Vec::new();
    let matrices = dims.get(2).map_or(1, |n| *n as usize).max(1);
    let each = (reader.rows / matrices).max(1);
    let mut at = rows.start;
    while at < rows.end {
        // Each of several matrices has weights of its own.
        let matrix = at / each;
        let end = rows.end.min((matrix + 1) * each);
        let values = reader.values(at..end)?;
        let important = job.importance.and_then(|m| m.of(name, matrix, matrices, reader.cols));
        match important.filter(|_| !to.is_plain()) {
            Some(important) => quant::encode_for(*to, &values, important, &mut out)?,
            None => quant::encode(*to, &values, &mut out)?,
        }
        at = end;
    }
    Ok(out)
}
