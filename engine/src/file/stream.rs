//! [`PushReader`]: reads a model that arrives in pieces, from a download or a loop over the map, and says where each piece of
//! tensor data belongs. It holds headers and never a file; where the data goes is the caller's. Of a split set the headers of
//! all parts come first, since only together they say what the model is.

use std::sync::Arc;

use super::gguf::{self, Header};
use super::split;
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
/// What is held of headers at most, those of all files together. The largest vocabularies take some tens of megabytes.
const MAX_HEADER: u64 = 512 << 20;

/// Reads a file, or the parts of a split set, from the start to the end in chunks of any size.
#[derive(Debug)]
pub struct PushReader {
    files: Vec<Incoming>,
    joined: Option<Joined>,
    failed: bool,
}

/// One of the files.
#[derive(Debug)]
struct Incoming {
    /// For sentences.
    name: String,
    total: u64,
    position: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The bytes from the file's start so far, and how many the next attempt waits for.
    Header { held: Vec<u8>, want: u64 },
    /// The header, and the bytes that it came in: others' headers are not there yet.
    Read { header: Header, held: Bytes },
    /// Indices of the file's tensors in the table, by offset; those before `next` are complete.
    Data { order: Vec<u32>, next: usize },
}

/// What stands once all headers are there.
#[derive(Debug)]
struct Joined {
    table: Arc<Table>,
    /// The files in the order of their parts.
    order: Vec<usize>,
}

impl PushReader {
    /// A reader of one file that is `total` bytes long.
    pub fn new(total: u64) -> PushReader {
        PushReader::of_parts(vec![(String::new(), total)])
    }

    /// A reader of the parts of a split set: their names and lengths, in any order. A single one is a plain file.
    pub fn of_parts(parts: Vec<(String, u64)>) -> PushReader {
        PushReader { files: parts.into_iter().map(Incoming::new).collect(), joined: None, failed: false }
    }

    /// The file whose bytes are due, and the offset of the next one: first the headers of all files as they were given, then
    /// the data part by part. `None` once all is there.
    pub fn due(&self) -> Option<(usize, u64)> {
        let file = match &self.joined {
            Some(joined) => joined.order.iter().copied().find(|file| self.files[*file].missing() > 0),
            None => self.files.iter().position(|file| matches!(file.state, State::Header { .. })),
        };
        file.map(|file| (file, self.files[file].position))
    }

    /// The offset of the next byte to feed, in the file that is due.
    pub fn position(&self) -> u64 {
        let end = || self.files.last().map_or(0, |file| file.position);
        self.due().map_or_else(end, |(_, offset)| offset)
    }

    /// Bytes of a file that were taken.
    pub fn fed(&self, file: usize) -> u64 {
        self.files.get(file).map_or(0, |file| file.position)
    }

    /// Bytes of all files that were not fed yet.
    pub fn missing(&self) -> u64 {
        self.files.iter().map(Incoming::missing).fold(0, u64::saturating_add)
    }

    /// The header, once enough has arrived; of a split set what all headers say together.
    pub fn table(&self) -> Option<&Arc<Table>> {
        self.joined.as_ref().filter(|_| !self.failed).map(|joined| &joined.table)
    }

    /// Takes the bytes of a single file: see [`feed_part`](PushReader::feed_part).
    ///
    /// # Errors
    /// As there.
    pub fn feed(&mut self, offset: u64, bytes: &[u8], sink: &mut Sink<'_>) -> Result<()> {
        self.feed_part(0, offset, bytes, sink)
    }

    /// Takes the bytes of the file that is [`due`](PushReader::due), from `offset` on, and hands the tensor data among them to
    /// `sink`. Bytes that were fed before are passed over, so that a repeated request does no harm. Of a split set, bytes
    /// behind a header are left as long as other headers are missing, and become due afterwards.
    ///
    /// # Errors
    /// [`Error::Request`] where bytes were left out, lie beyond the file's length or are of a file that is not due,
    /// [`Error::Format`] where a header is no whole GGUF header or the files are not the parts of one set, and what `sink`
    /// returns. After an error the reader takes no more.
    pub fn feed_part(&mut self, file: usize, offset: u64, bytes: &[u8], sink: &mut Sink<'_>) -> Result<()> {
        let fed = if self.failed { Err(failed()) } else { self.take(file, offset, bytes, sink) };
        self.failed |= fed.is_err();
        fed
    }

    /// Ends the files.
    ///
    /// # Errors
    /// [`Error::Format`] where a header or tensor data is missing.
    pub fn finish(self) -> Result<Arc<Table>> {
        if self.failed {
            return Err(failed());
        }
        let headless = |file: &&Incoming| matches!(file.state, State::Header { .. });
        let cut = |file: &&Incoming| matches!(&file.state, State::Data { order, next } if *next < order.len());
        match (self.files.iter().find(headless).or(self.files.iter().find(cut)), self.joined) {
            (Some(file), _) if self.files.len() > 1 => Err(split::named(&file.name, file.cut_short())),
            (Some(file), _) => Err(file.cut_short()),
            (None, Some(joined)) => Ok(joined.table),
            (None, None) => Err(Error::request("a model needs at least one file")),
        }
    }

    fn take(&mut self, file: usize, offset: u64, bytes: &[u8], sink: &mut Sink<'_>) -> Result<()> {
        self.expect_due(file, offset)?;
        let alone = self.files.len() == 1;
        let Some(incoming) = self.files.get_mut(file) else {
            return Err(Error::request(format!("there is no file {file}: {} were named", self.files.len())));
        };
        let mut bytes = incoming.fresh(offset, bytes)?;
        incoming.read_header(&mut bytes).map_err(|e| if alone { e } else { split::named(&incoming.name, e) })?;
        if self.joined.is_none() && self.files.iter().map(Incoming::held).sum::<u64>() > MAX_HEADER {
            return Err(Error::limit(format!(
                "the headers of all parts together are longer than {MAX_HEADER} bytes: the files are damaged"
            )));
        }
        if self.joined.is_none() && self.files.iter().all(|file| matches!(file.state, State::Read { .. })) {
            self.join(sink)?;
        }
        match &self.joined {
            Some(joined) if self.due().is_some_and(|(due, _)| due == file) => {
                self.files[file].place_next(&joined.table, bytes, sink)
            }
            _ => Ok(()),
        }
    }

    /// Refuses bytes of a file while another's are due.
    fn expect_due(&self, file: usize, offset: u64) -> Result<()> {
        let name = |file: usize| self.files.get(file).map_or("no file", |file| &file.name);
        match self.due() {
            Some((due, wanted)) if due != file => Err(Error::request(format!(
                "bytes of {} from {offset} on were fed where those of {} from {wanted} on are due",
                name(file),
                name(due)
            ))),
            _ => Ok(()),
        }
    }

    /// Makes one table of all headers, and places what came with them.
    fn join(&mut self, sink: &mut Sink<'_>) -> Result<()> {
        let headers: Vec<(&str, &Header)> = (self.files.iter())
            .filter_map(
                |file| if let State::Read { header, .. } = &file.state { Some((&*file.name, header)) } else { None },
            )
            .collect();
        let order = if headers.len() == 1 { vec![0] } else { split::order(&headers)? };
        let (mut headers, mut held, mut by_offset, mut before) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for file in &order {
            let data = State::Data { order: Vec::new(), next: 0 };
            let State::Read { header, held: bytes } = std::mem::replace(&mut self.files[*file].state, data) else {
                continue;
            };
            by_offset.push(gguf::by_offset(&header.tensors).into_iter().map(|i| i + before).collect());
            before += header.tensors.len() as u32;
            headers.push(header);
            held.push(bytes);
        }
        let table = Arc::new(split::table(headers)?);
        for ((file, bytes), by_offset) in order.iter().zip(held).zip(by_offset) {
            self.files[*file].state = State::Data { order: by_offset, next: 0 };
            self.files[*file].place(&table, 0, &bytes, sink)?;
        }
        self.joined = Some(Joined { table, order });
        Ok(())
    }
}

impl Incoming {
    fn new((name, total): (String, u64)) -> Incoming {
        Incoming { name, total, position: 0, state: State::Header { held: Vec::new(), want: FIRST_TRY.min(total) } }
    }

    fn missing(&self) -> u64 {
        self.total - self.position
    }

    /// Bytes that are held until all headers are there.
    fn held(&self) -> u64 {
        match &self.state {
            State::Header { held, .. } => held.len() as u64,
            State::Read { held, .. } => held.len() as u64,
            State::Data { .. } => 0,
        }
    }

    fn cut_short(&self) -> Error {
        let (missing, total) = (self.missing(), self.total);
        match self.state {
            State::Header { .. } if total == 0 => gguf::explain(Stop::Bad(super::magic::not_gguf(&[])), 0),
            _ => Error::format(format!(
                "the file is cut short: {missing} of its {total} bytes are missing, download it again"
            )),
        }
    }

    /// Those of the bytes from `offset` on that were not fed before.
    fn fresh<'a>(&self, offset: u64, bytes: &'a [u8]) -> Result<&'a [u8]> {
        let Some(seen) = self.position.checked_sub(offset) else {
            let wanted = self.position;
            return Err(Error::request(format!(
                "bytes from {offset} on were fed where those from {wanted} on are due"
            )));
        };
        let bytes = usize::try_from(seen).ok().and_then(|n| bytes.get(n..)).unwrap_or_default();
        if bytes.len() as u64 > self.missing() {
            return Err(Error::request(format!("more bytes were fed than the {} of the file", self.total)));
        }
        Ok(bytes)
    }

    /// Takes of the bytes what the header still needs.
    fn read_header(&mut self, bytes: &mut &[u8]) -> Result<()> {
        while let State::Header { held, want } = &mut self.state
            && !bytes.is_empty()
        {
            let n = bytes.len().min(usize::try_from(*want).unwrap_or(usize::MAX) - held.len());
            held.extend_from_slice(&bytes[..n]);
            *bytes = &bytes[n..];
            self.position += n as u64;
            if held.len() as u64 == *want {
                self.try_header()?;
            }
        }
        Ok(())
    }

    /// Reads the header from the bytes held; where they end inside it, says how many to wait for.
    fn try_header(&mut self) -> Result<()> {
        let State::Header { held, want } = &mut self.state else { return Ok(()) };
        let bytes = Bytes::from(std::mem::take(held));
        match Header::parse(&bytes, self.total) {
            Ok(header) => {
                self.state = State::Read { header, held: bytes };
                Ok(())
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

    /// As [`place`](Incoming::place), with the bytes that are due.
    fn place_next(&mut self, table: &Arc<Table>, bytes: &[u8], sink: &mut Sink<'_>) -> Result<()> {
        self.place(table, self.position, bytes, sink)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Hands on what of the file's `bytes` from `offset` on is tensor data.
    fn place(&mut self, table: &Arc<Table>, offset: u64, bytes: &[u8], sink: &mut Sink<'_>) -> Result<()> {
        let State::Data { order, next } = &mut self.state else { return Err(failed()) };
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
}

fn failed() -> Error {
    Error::request("the file could not be read, and its reader takes no more")
}
