//! [`PushReader`]: reads a model file that arrives in pieces, from a download or a loop over the map, and says where
//! each piece of tensor data belongs. It holds the header and never the file; where the data goes is the caller's.

use std::sync::Arc;

use super::gguf::{self, Header};
use super::table::Table;
use crate::bytes::Bytes;
use crate::error::{Error, Result};
use crate::meta::Stop;

/// A piece of a tensor's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement<'a> {
    /// Index into [`Table::tensors`].
    pub tensor: usize,
    /// Where in the tensor's bytes the piece starts.
    pub offset: u64,
    /// The piece.
    pub bytes: &'a [u8],
}

/// Takes the placements of one [`PushReader::feed`], in the order of the file, with the header that names their tensors.
pub type Sink<'a> = dyn FnMut(&Arc<Table>, Placement<'_>) -> Result<()> + 'a;

/// The first attempt to read the header waits for enough to say what a file is that is no GGUF.
const FIRST_TRY: u64 = super::magic::LOOK as u64;
/// The largest header that is held. The largest vocabularies take some tens of megabytes.
const MAX_HEADER: u64 = 512 << 20;

/// Reads a file from its start to its end in chunks of any size.
#[derive(Debug)]
pub struct PushReader {
    total: u64,
    position: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The bytes from the file's start so far, and how many the next attempt waits for.
    Header { held: Vec<u8>, want: u64 },
    /// `order` are tensor indices by offset; those before `next` are complete.
    Data { table: Arc<Table>, order: Vec<u32>, next: usize },
    /// An error was returned.
    Failed,
}

impl PushReader {
    /// A reader of a file (or one part of a split set) that is `total` bytes long.
    pub fn new(total: u64) -> PushReader {
        PushReader { total, position: 0, state: State::Header { held: Vec::new(), want: FIRST_TRY.min(total) } }
    }

    /// The offset of the next byte to feed.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes of the file that were not fed yet.
    pub fn missing(&self) -> u64 {
        self.total - self.position
    }

    /// The header, once enough of the file has arrived.
    pub fn table(&self) -> Option<&Arc<Table>> {
        if let State::Data { table, .. } = &self.state { Some(table) } else { None }
    }

    /// Takes the file's bytes from `offset` on and hands the tensor data among them to `sink`. Bytes that were fed
    /// before are passed over, so that a repeated request does no harm.
    ///
    /// # Errors
    /// [`Error::Request`] where bytes were left out or lie beyond the file's length, [`Error::Format`] where the header
    /// is no whole GGUF header, and what `sink` returns. After an error the reader takes no more.
    pub fn feed(&mut self, offset: u64, bytes: &[u8], sink: &mut Sink<'_>) -> Result<()> {
        let fed = self.take(offset, bytes, sink);
        if fed.is_err() {
            self.state = State::Failed;
        }
        fed
    }

    /// Ends the file.
    ///
    /// # Errors
    /// [`Error::Format`] where the header or tensor data is missing.
    pub fn finish(self) -> Result<Arc<Table>> {
        let (missing, total) = (self.missing(), self.total);
        match self.state {
            State::Data { table, order, next } if next == order.len() => Ok(table),
            State::Header { .. } if total == 0 => Err(gguf::explain(Stop::Bad(super::magic::not_gguf(&[])), 0)),
            State::Failed => Err(failed()),
            _ => Err(Error::format(format!(
                "the file is cut short: {missing} of its {total} bytes are missing, download it again"
            ))),
        }
    }

    fn take(&mut self, offset: u64, bytes: &[u8], sink: &mut Sink<'_>) -> Result<()> {
        let Some(seen) = self.position.checked_sub(offset) else {
            let wanted = self.position;
            return Err(Error::request(format!(
                "bytes from {offset} on were fed where those from {wanted} on are due"
            )));
        };
        let mut bytes = usize::try_from(seen).ok().and_then(|n| bytes.get(n..)).unwrap_or_default();
        if bytes.len() as u64 > self.missing() {
            return Err(Error::request(format!("more bytes were fed than the {} of the file", self.total)));
        }
        while let State::Header { held, want } = &mut self.state
            && !bytes.is_empty()
        {
            let n = bytes.len().min(usize::try_from(*want).unwrap_or(usize::MAX) - held.len());
            held.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            self.position += n as u64;
            if held.len() as u64 == *want {
                self.try_header(sink)?;
            }
        }
        if !bytes.is_empty() {
            place(&mut self.state, self.position, bytes, sink)?;
            self.position += bytes.len() as u64;
        }
        Ok(())
    }

    /// Reads the header from the bytes held; where they end inside it, says how many to wait for.
    fn try_header(&mut self, sink: &mut Sink<'_>) -> Result<()> {
        let State::Header { held, want } = &mut self.state else { return Ok(()) };
        let bytes = Bytes::from(std::mem::take(held));
        match Header::parse(&bytes, self.total) {
            Ok(header) => {
                let order = gguf::by_offset(&header.tensors);
                let table = Arc::new(Table::new(header.version, header.meta, header.tensors)?);
                self.state = State::Data { table, order, next: 0 };
                place(&mut self.state, 0, &bytes, sink)
            }
            Err(Stop::More(need)) if need <= self.total => {
                // Each attempt starts over, so it waits for a quarter more: all attempts together cost a few of the last.
                *want = need.max(*want + *want / 4).min(self.total);
                if *want > MAX_HEADER {
                    return Err(Error::limit(format!(
                        "the header is longer than {MAX_HEADER} bytes: the file is damaged"
                    )));
                }
                *held = bytes.into_vec();
                Ok(())
            }
            Err(stop) => Err(gguf::explain(stop, self.total)),
        }
    }
}

fn failed() -> Error {
    Error::request("the file could not be read, and its reader takes no more")
}

/// Hands on what of the file's `bytes` from `offset` on is tensor data.
fn place(state: &mut State, offset: u64, bytes: &[u8], sink: &mut Sink<'_>) -> Result<()> {
    let State::Data { table, order, next } = state else { return Err(failed()) };
    let end = offset + bytes.len() as u64;
    while let Some(index) = order.get(*next) {
        let tensor = &table.tensors()[*index as usize];
        let tensor_end = tensor.offset() + tensor.byte_len();
        let (from, to) = (tensor.offset().max(offset), tensor_end.min(end));
        if from < to {
            // Both lie between `offset` and `end`, so they index `bytes`.
            let piece = &bytes[(from - offset) as usize..(to - offset) as usize];
            sink(table, Placement { tensor: *index as usize, offset: from - tensor.offset(), bytes: piece })?;
        }
        if tensor_end > end {
            break;
        }
        *next += 1;
    }
    Ok(())
}
