//! [`Loader`]: a model file that arrives in pieces, from a download, a cache or a loop over a file, becomes an [`Engine`], and
//! so do the parts of a split one. On a GPU each piece goes to the device at once and the file is held nowhere; on a processor
//! the weights are kept once.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::bytes::Bytes;
use crate::device::{Device, Runner};
use crate::error::{Error, Result};
use crate::file::{ModelFile, Placement, PushReader, Table};
use crate::model::{Model, ModelOptions, read_at_recording};
use crate::plan::{Plan, WeightId};
use crate::run::{Engine, EngineOptions, Limits};

/// How a model is to be opened and run.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The model's own.
    pub model: ModelOptions,
    /// The engine's.
    pub engine: EngineOptions,
}

/// Takes a file from its start to its end in pieces of any size, and makes an engine of it. The parts of a split model are
/// taken one after the other, their headers first: [`due`](Loader::due) says what comes next.
///
/// ```
/// use std::sync::Arc;
/// use ir_engine::{Device, LoadOptions, Loader, builtin, cpu::Cpu};
///
/// let file = builtin::bytes();
/// let device = Device::Cpu(Arc::new(Cpu::new(&Default::default())?));
/// let mut loader = Loader::new(file.len() as u64, &device, &LoadOptions::default());
/// for piece in file.chunks(1 << 20) {
///     loader.feed(loader.position(), piece)?; // in a page: loader.settled().await? now and then
/// }
/// let engine = loader.finish()?;
/// assert!(engine.context() > 0);
/// # Ok::<(), ir_engine::error::Error>(())
/// ```
#[derive(Debug)]
pub struct Loader {
    total: u64,
    reader: PushReader,
    device: Device,
    options: LoadOptions,
    begun: Option<Begun>,
    failed: bool,
}

/// What stands once the header is there.
#[derive(Debug)]
struct Begun {
    model: Model,
    limits: Limits,
    /// See [`crate::run::EngineOptions::chain`].
    chain: Option<usize>,
    /// On a device that takes weights: what takes them.
    runner: Option<Runner>,
    /// Per tensor, the segments that are fed with it.
    segments: Vec<Vec<(WeightId, usize, Range<u64>)>>,
    /// Tensors that are kept in memory, by their indices.
    kept: BTreeMap<usize, Vec<u8>>,
}

impl Loader {
    /// A loader of a file of `total` bytes for this device. Nothing is reserved before the header has arrived.
    pub fn new(total: u64, device: &Device, options: &LoadOptions) -> Loader {
        Loader::of_parts(vec![(String::new(), total)], device, options)
    }

    /// A loader of the parts of a split model: their names and lengths, in any order. A single one is a plain file. Nothing is
    /// reserved before all headers have arrived.
    pub fn of_parts(parts: Vec<(String, u64)>, device: &Device, options: &LoadOptions) -> Loader {
        let total = parts.iter().map(|(_, len)| *len).fold(0, u64::saturating_add);
        let (device, options, reader) = (device.clone(), options.clone(), PushReader::of_parts(parts));
        Loader { total, reader, device, options, begun: None, failed: false }
    }

    /// Takes the bytes of a single file: see [`feed_part`](Loader::feed_part).
    ///
    /// # Errors
    /// As there.
    pub fn feed(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.feed_part(0, offset, bytes)
    }

    /// Takes the bytes of the file that is [`due`](Loader::due), from `offset` on. Bytes that were fed before are passed over,
    /// so that a repeated request does no harm. With the last byte of the last header the model is recorded and everything it
    /// needs is reserved. Bytes behind a header are left as long as another is missing: they become due afterwards.
    ///
    /// # Errors
    /// [`Error::Request`] where bytes were left out, lie beyond the file's length or are of a file that is not due,
    /// [`Error::Format`] and [`Error::Unsupported`] where a file is damaged, no part of this model or not supported,
    /// [`Error::Limit`] where memory does not suffice (with what would), or what the device says. After an error the loader
    /// takes no more.
    pub fn feed_part(&mut self, file: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        if self.failed {
            return Err(Error::request("the model could not be loaded, and its loader takes no more: begin anew"));
        }
        let fed = self.take(file, offset, bytes);
        self.failed = fed.is_err();
        fed
    }

    fn take(&mut self, file: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        let Loader { total, reader, device, options, begun, .. } = self;
        reader.feed_part(file, offset, bytes, &mut |table, piece| {
            if begun.is_none() {
                *begun = Some(Begun::new(table, *total, device, options)?);
            }
            begun.as_mut().map_or(Ok(()), |begun| begun.place(table, piece))
        })?;
        if let (Some(table), true) = (reader.table(), begun.is_none()) {
            *begun = Some(Begun::new(table, *total, device, options)?);
        }
        Ok(())
    }

    /// What was fed so far is where it belongs, and the memory that carried it there is given back. Natively `feed` sees to
    /// that itself; in a page this is to be awaited every few tens of megabytes.
    ///
    /// # Errors
    /// Where the device failed.
    pub async fn settled(&self) -> Result<()> {
        match self.begun.as_ref().and_then(|begun| begun.runner.as_ref()) {
            Some(runner) => runner.settled().await,
            None => Ok(()),
        }
    }

    /// The file whose bytes are due, by its place among those that were named, and the offset of the next one: first the
    /// headers of all files as they were named, then their data part by part. `None` once all is there.
    pub fn due(&self) -> Option<(usize, u64)> {
        self.reader.due()
    }

    /// The offset of the next byte to feed, in the file that is due.
    pub fn position(&self) -> u64 {
        self.reader.position()
    }

    /// Bytes of a file, by its place among those that were named, that were taken.
    pub fn fed(&self, file: usize) -> u64 {
        self.reader.fed(file)
    }

    /// Bytes of all files that were not fed yet.
    pub fn missing(&self) -> u64 {
        self.reader.missing()
    }

    /// The file's header, once it has arrived; of a split model what all headers say together.
    pub fn table(&self) -> Option<&Table> {
        self.reader.table().map(|table| &**table)
    }

    /// The model, once its header has arrived. Its weights may be anywhere, or still on their way.
    pub fn model(&self) -> Option<&Model> {
        self.begun.as_ref().map(|begun| &begun.model)
    }

    /// Tokens that a sequence of the engine will hold at most, once the header has arrived.
    pub fn context(&self) -> Option<usize> {
        self.begun.as_ref().map(|begun| begun.limits.context)
    }

    /// Ends the file and gives the engine.
    ///
    /// # Errors
    /// [`Error::Format`] where bytes are missing, or what the device says.
    pub fn finish(self) -> Result<Engine> {
        if self.failed {
            return Err(Error::request("the model could not be loaded: begin anew"));
        }
        let table = self.reader.finish()?;
        let begun = match self.begun {
            Some(begun) => begun,
            None => Begun::new(&table, self.total, &self.device, &self.options)?,
        };
        let kept = begun.kept.into_iter().map(|(index, bytes)| (index, Bytes::from(bytes))).collect();
        let before = Arc::clone(begun.model.plan());
        let model = Arc::new(begun.model.with_file(ModelFile::from_pieces(table, self.total, kept)?)?);
        match begun.runner {
            Some(mut runner) => {
                feed_late(&mut runner, &before, model.plan())?;
                runner.fed(&model.plan().for_context(begun.limits.context))?;
                Ok(Engine::with_runner(model, &self.device, runner, begun.limits, begun.chain))
            }
            None => Engine::new(model, &self.device, &self.options.engine),
        }
    }
}

impl Begun {
    /// Records the model from its header and reserves what it needs.
    fn new(table: &Arc<Table>, total: u64, device: &Device, options: &LoadOptions) -> Result<Begun> {
        let header = ModelFile::from_pieces(Arc::clone(table), total, BTreeMap::new())?;
        let model = Model::from_file(header, &options.model)?;
        let (limits, room) = Engine::room(&model, device, &options.engine)?;
        let mut segments = vec![Vec::new(); table.tensors().len()];
        for (i, weight) in model.plan().weights.iter().enumerate() {
            for (j, segment) in weight.segments.iter().enumerate() {
                // Rows without a tensor are zeros, and are there.
                let Some(index) = table.index(&segment.name) else { continue };
                let range = segment.offset..segment.offset.saturating_add(segment.n_bytes());
                segments[index].push((WeightId(i as u32), j, range));
            }
        }
        let takes = device.takes_weights();
        let used = |index: usize| !takes && !segments[index].is_empty();
        let early = |index: usize| read_at_recording(table, table.tensors()[index].name());
        let kept = (0..segments.len()).filter(|i| used(*i) || early(*i)).map(|i| (i, Vec::new())).collect();
        fits_memory(table, &kept)?;
        let runner = match takes {
            true => Some(device.prepare(model.plan().for_context(limits.context), room)?),
            false => None,
        };
        Ok(Begun { model, limits, chain: options.engine.chain, runner, segments, kept })
    }

    /// Puts a piece of a tensor where it belongs.
    fn place(&mut self, table: &Table, piece: Placement<'_>) -> Result<()> {
        if let Some(kept) = self.kept.get_mut(&piece.tensor) {
            if kept.capacity() == 0 {
                let len = usize::try_from(table.tensors()[piece.tensor].byte_len()).unwrap_or(usize::MAX);
                kept.try_reserve_exact(len).map_err(|_| no_memory(len as u64))?;
            }
            kept.extend_from_slice(piece.bytes);
        }
        if let Some(runner) = &mut self.runner {
            let end = piece.offset.saturating_add(piece.bytes.len() as u64);
            for (weight, segment, range) in &self.segments[piece.tensor] {
                let (from, to) = (range.start.max(piece.offset), range.end.min(end));
                if from < to {
                    let bytes = &piece.bytes[(from - piece.offset) as usize..(to - piece.offset) as usize];
                    runner.feed(*weight, *segment, from - range.start, bytes)?;
                }
            }
        }
        Ok(())
    }
}

/// Feeds the rows that are in no tensor as they are, and that recording could not know before the whole file was there:
/// factors of products.
fn feed_late(runner: &mut Runner, before: &Plan, plan: &Plan) -> Result<()> {
    for (i, (old, new)) in before.weights.iter().zip(&plan.weights).enumerate() {
        for (j, (old, new)) in old.segments.iter().zip(&new.segments).enumerate() {
            if new.name.is_empty() && old.bytes.is_empty() {
                runner.feed(WeightId(i as u32), j, 0, &new.bytes)?;
            }
        }
    }
    Ok(())
}

fn no_memory(bytes: u64) -> Error {
    Error::limit(format!(
        "there is no memory for {} MiB of the model: choose a smaller one, or a GPU",
        bytes.div_ceil(1 << 20)
    ))
}

/// Refuses tensors that together are beyond what a program can address, before the first is taken.
fn fits_memory(table: &Table, kept: &BTreeMap<usize, Vec<u8>>) -> Result<()> {
    let bytes = kept.keys().map(|i| table.tensors()[*i].byte_len()).fold(0, u64::saturating_add);
    if bytes > usize::MAX as u64 { Err(no_memory(bytes)) } else { Ok(()) }
}
