//! Split sets: `NAME-00001-of-0000N.gguf`, each a GGUF of its own whose `split.*` keys say its place.
//! The first part's metadata is the model's. Format: llama.cpp's `gguf-split`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::gguf::{self, Header};
use super::table::Table;
use super::tensor::Tensor;
use super::{Data, ModelFile};
use crate::bytes::Bytes;
use crate::error::{Error, Result};
use crate::meta::Meta;

/// Opens the file, and where it is a part of a split set, the set.
pub(super) fn open(path: &Path, load: fn(&Path) -> Result<Bytes>) -> Result<ModelFile> {
    let bytes = load(path)?;
    let header = parse(&bytes).map_err(|e| in_file(path, e))?;
    let Some(place) = Place::of(&header.meta).map_err(|e| in_file(path, e))? else {
        return assemble(vec![(header, bytes)]).map_err(|e| in_file(path, e));
    };
    let (given, count) = (place.no, place.count);
    let stem = stem(path, place).ok_or_else(|| {
        let end = ending(given, count);
        Error::format(format!(
            "{} is part {} of {count} of a split model, but its name does not end with {end}: \
             give the parts their names back",
            path.display(),
            given + 1,
        ))
    })?;
    let mut opened = Some((header, bytes));
    let mut parts = Vec::new();
    for no in 0..count {
        let part = part_path(path, &stem, no, count);
        let read = |part: &Path| {
            let bytes = load(part)?;
            Ok((parse(&bytes)?, bytes))
        };
        parts.push(match opened.take_if(|_| no == given) {
            Some(given) => given,
            None => read(&part).map_err(|e| missing_part(e, &part, no, count))?,
        });
    }
    assemble(parts).map_err(|e| in_file(path, e))
}

/// A model of parts whose bytes are at hand, in order.
pub(super) fn join(parts: Vec<Bytes>) -> Result<ModelFile> {
    let parts: Result<Vec<_>> = parts.into_iter().map(|bytes| Ok((parse(&bytes)?, bytes))).collect();
    assemble(parts?)
}

fn parse(bytes: &Bytes) -> Result<Header> {
    let total = bytes.len() as u64;
    Header::parse(bytes, total).map_err(|stop| gguf::explain(stop, total))
}

/// Refuses a part of a set where only whole files can be used.
pub(super) fn whole(meta: &Meta) -> Result<()> {
    let Some(Place { no, count }) = Place::of(meta)? else { return Ok(()) };
    Err(Error::unsupported(format!(
        "this is part {} of {count} of a split model, which cannot be loaded in pieces: join the parts with `ir merge` and \
         load the whole file",
        no + 1
    )))
}

/// A part's place in its set.
#[derive(Clone, Copy)]
struct Place {
    no: u16,
    count: u16,
}

impl Place {
    /// `None` for a file that is whole.
    fn of(meta: &Meta) -> Result<Option<Place>> {
        let count = meta.opt_u32("split.count")?.unwrap_or(0);
        if count <= 1 {
            return Ok(None);
        }
        let no = meta.u32("split.no")?;
        match (u16::try_from(no), u16::try_from(count)) {
            (Ok(no), Ok(count)) if no < count => Ok(Some(Place { no, count })),
            _ => Err(Error::format(format!("split.no {no} of split.count {count} is impossible: the file is damaged"))),
        }
    }
}

fn ending(no: u16, count: u16) -> String {
    format!("-{:05}-of-{count:05}.gguf", no + 1)
}

/// The file name without its `-00001-of-0000N.gguf`.
fn stem(path: &Path, place: Place) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    Some(name.strip_suffix(&ending(place.no, place.count))?.to_owned())
}

/// The path of a part of a split set, from the path of all without the ending. `no` is counted from 0.
pub fn part_name(prefix: &Path, no: u16, count: u16) -> PathBuf {
    let mut name = prefix.file_name().unwrap_or_default().to_os_string();
    name.push(ending(no, count));
    prefix.with_file_name(name)
}

fn part_path(path: &Path, stem: &str, no: u16, count: u16) -> PathBuf {
    path.with_file_name(format!("{stem}{}", ending(no, count)))
}

fn missing_part(error: Error, part: &Path, no: u16, count: u16) -> Error {
    match error {
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Error::format(format!("part {} of {count} is missing: download it to {}", no + 1, part.display()))
        }
        other => in_file(part, other),
    }
}

/// Says which file a sentence is about.
fn in_file(path: &Path, error: Error) -> Error {
    match error {
        Error::Format(why) => Error::Format(format!("{}: {why}", path.display())),
        Error::Unsupported(why) => Error::Unsupported(format!("{}: {why}", path.display())),
        other => other,
    }
}

fn assemble(parts: Vec<(Header, Bytes)>) -> Result<ModelFile> {
    let n_parts = parts.len();
    let mut n_tensors = 0;
    for (i, (header, _)) in parts.iter().enumerate() {
        n_tensors += header.tensors.len();
        match Place::of(&header.meta)? {
            None if n_parts == 1 => {}
            Some(place) if usize::from(place.count) != n_parts => {
                return Err(Error::format(format!(
                    "this is part {} of {} of a split model, but {n_parts} part(s) were given: give all of them",
                    place.no + 1,
                    place.count
                )));
            }
            Some(place) if usize::from(place.no) == i => {}
            _ => {
                return Err(Error::format(format!(
                    "part {} of {n_parts} says it is another: the files of the split model were mixed up",
                    i + 1
                )));
            }
        }
    }
    let mut parts = parts.into_iter();
    let Some((first, first_bytes)) = parts.next() else {
        return Err(Error::request("a model needs at least one file"));
    };
    let Header { version, meta, mut tensors } = first;
    let mut all_bytes = vec![first_bytes];
    for (header, bytes) in parts {
        let part = all_bytes.len() as u16;
        tensors.extend(header.tensors.into_iter().map(|t| Tensor { part, ..t }));
        all_bytes.push(bytes);
    }
    if let Some(expected) = meta.opt_u32("split.tensors.count")?.filter(|n| n_parts > 1 && *n as usize != n_tensors) {
        return Err(Error::format(format!(
            "the split model should hold {expected} tensors, but its parts hold {n_tensors}: download them again"
        )));
    }
    Ok(ModelFile { table: Arc::new(Table::new(version, meta, tensors)?), data: Data::Parts(all_bytes) })
}
