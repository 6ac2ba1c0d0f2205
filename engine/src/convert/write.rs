//! Writing: a tensor after the other, each in pieces of about a million elements. Threads encode them, each the next that is
//! left; one writes them in their order, and lets the others be only so far ahead.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};

use super::{Job, Planned, Reader};
use crate::cpu::simd::encoders;
use crate::error::{Error, Result};

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

/// Elements that a thread takes at once.
const PIECE: usize = 1 << 20;

/// Elements of them that are floats at once: what stays in a cache.
const CACHED: usize = 1 << 15;

/// Bytes that are written until the system is asked to bring them to the disk, meanwhile.
const SYNCED: u64 = 64 << 20;

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

/// Rows of a tensor.
struct Piece {
    tensor: usize,
    rows: Range<usize>,
}

/// A piece, and where its bytes go.
type Order = (Piece, SyncSender<Result<Vec<u8>>>);

pub(super) fn whole(job: &Job<'_>, path: &Path, threads: usize, told: &mut dyn FnMut(Progress) -> bool) -> Result<()> {
    let failed = |source| Error::Io { action: "write", path: path.to_owned(), source };
    let (part, file) = Unfinished::create(path)?;
    let (orders, taken) = channel();
    let (written, syncs) = sync_channel(1);
    let taken = Mutex::new(taken);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| work(job, &taken));
        }
        // What it would say, the last sync says.
        let file = &file;
        scope.spawn(move || syncs.iter().for_each(|()| drop(file.sync_data())));
        let mut output = Output { out: BufWriter::new(file), written, unsynced: 0 };
        let coming = Coming { orders, pieces: pieces(job), given: VecDeque::new(), ahead: 2 * threads.max(1) + 1 };
        all(job, coming, &mut output, told)?.map_err(failed)
    })?;
    file.sync_all().map_err(failed)?;
    drop(file);
    part.finish(path)
}

/// Writes everything.
fn all(
    job: &Job<'_>,
    mut coming: Coming<impl Iterator<Item = Piece>>,
    output: &mut Output<'_>,
    told: &mut dyn FnMut(Progress) -> bool,
) -> Result<io::Result<()>> {
    let total = job.planned.iter().map(|t| t.bytes_before).sum();
    let mut progress = Progress { tensors: 0, n_tensors: job.planned.len(), done: 0, total };
    if let Err(e) = output.write(&job.writer.header()) {
        return Ok(Err(e));
    }
    for (i, (planned, reader)) in job.planned.iter().zip(&job.readers).enumerate() {
        let mut written = 0;
        for rows in ranges(reader) {
            let bytes = coming.next()?;
            written += bytes.len() as u64;
            if let Err(e) = output.write(&bytes) {
                return Ok(Err(e));
            }
            let share = rows.len() as u64 * planned.bytes_before / reader.rows.max(1) as u64;
            progress.done = (progress.done + share).min(total);
            if !told(progress) {
                return Err(Error::request("stopped: nothing was written"));
            }
        }
        if written != planned.bytes_after {
            let expected = planned.bytes_after;
            return Err(Error::shape(format!("{} took {written} bytes, not {expected}", planned.name)));
        }
        if let Err(e) = output.write(&vec![0; job.writer.padding(i)]) {
            return Ok(Err(e));
        }
        progress.tensors = i + 1;
    }
    Ok(output.out.flush())
}

/// The file, and the thread that brings it to the disk.
struct Output<'a> {
    out: BufWriter<&'a File>,
    written: SyncSender<()>,
    unsynced: u64,
}

impl Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.unsynced += bytes.len() as u64;
        // Where the disk is behind, it is asked again with the next piece.
        if self.unsynced >= SYNCED && self.written.try_send(()).is_ok() {
            self.unsynced = 0;
        }
        Ok(())
    }
}

/// The rows of a tensor in pieces.
fn ranges(reader: &Reader<'_>) -> impl Iterator<Item = Range<usize>> + use<> {
    let (all, rows) = (reader.rows, (PIECE / reader.cols.max(1)).clamp(1, reader.rows.max(1)));
    (0..all).step_by(rows).map(move |start| start..(start + rows).min(all))
}

/// All tensors in pieces.
fn pieces(job: &Job<'_>) -> impl Iterator<Item = Piece> {
    let of = |(tensor, reader)| ranges(reader).map(move |rows| Piece { tensor, rows });
    job.readers.iter().enumerate().flat_map(of)
}

/// Pieces in their order, of which so many are given to threads ahead.
struct Coming<P> {
    orders: Sender<Order>,
    pieces: P,
    given: VecDeque<Receiver<Result<Vec<u8>>>>,
    ahead: usize,
}

impl<P: Iterator<Item = Piece>> Coming<P> {
    fn next(&mut self) -> Result<Vec<u8>> {
        while self.given.len() < self.ahead
            && let Some(piece) = self.pieces.next()
        {
            let (to, from) = sync_channel(1);
            // Threads end only behind this.
            drop(self.orders.send((piece, to)));
            self.given.push_back(from);
        }
        // Without an answer the thread has panicked, and so does who waits for it.
        let answer = self.given.pop_front().and_then(|from| from.recv().ok());
        answer.unwrap_or_else(|| Err(Error::request("a thread that encodes has ended")))
    }
}

/// Encodes pieces as long as there are any.
fn work(job: &Job<'_>, orders: &Mutex<Receiver<Order>>) {
    let mut values = Vec::new();
    loop {
        let order = orders.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((Piece { tensor, rows }, to)) = order else { return };
        let bytes = encoded(job, tensor, rows.clone(), &mut values);
        job.readers[tensor].forget(rows);
        // Nobody waits for it where writing has failed or was stopped.
        drop(to.send(bytes));
    }
}

/// Rows of a tensor in its new type. `values` is room for some of them.
fn encoded(job: &Job<'_>, i: usize, rows: Range<usize>, values: &mut Vec<f32>) -> Result<Vec<u8>> {
    let (reader, Planned { name, to, dims, .. }) = (&job.readers[i], &job.planned[i]);
    if *to == reader.dtype && !reader.is_merged() {
        return reader.bytes(rows);
    }
    let mut out = Vec::with_capacity(to.bytes_for(rows.len() * reader.cols).unwrap_or(0));
    let deltas = reader.deltas()?;
    let matrices = dims.get(2).map_or(1, |n| *n as usize).max(1);
    let each = (reader.rows / matrices).max(1);
    let cached = (CACHED / reader.cols.max(1)).max(1);
    let mut at = rows.start;
    while at < rows.end {
        // Each of several matrices has weights of its own.
        let matrix = at / each;
        let end = rows.end.min((matrix + 1) * each).min(at + cached);
        reader.values(at..end, &deltas, values)?;
        let important = job.importance.and_then(|m| m.of(name, matrix, matrices, reader.cols));
        encoders::encode(*to, values, important.filter(|_| !to.is_plain()), &mut out)?;
        at = end;
    }
    Ok(out)
}
