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

/// Refuses a header that is not that of a whole model.
pub(super) fn whole(table: &Table) -> Result<()> {
    match Place::of(table.meta())? {
        Some(Place { no, count }) if usize::from(count) != table.n_files() => Err(Error::format(format!(
            "this is part {} of {count} of a split model, and its other parts are not given: give all of them together",
            no + 1
        ))),
        _ => Ok(()),
    }
}

/// The order of files that are to be the parts of one set, given in any order with their names.
///
/// # Errors
/// [`Error::Format`] names the file that is no part, is there twice, has another place than its name says or is of another
/// model, or the part that is missing.
pub(super) fn order(files: &[(&str, &Header)]) -> Result<Vec<usize>> {
    let mut at_place: Vec<Option<usize>> = Vec::new();
    let mut places = Vec::with_capacity(files.len());
    for (i, (name, header)) in files.iter().enumerate() {
        let place = Place::of(&header.meta).map_err(|e| named(name, e))?.ok_or_else(|| {
            Error::format(format!("{name} is a whole model and no part of a split one: open it alone"))
        })?;
        expect_name(name, place)?;
        places.push(place);
        alike((files[0].0, &files[0].1.meta, places[0]), (name, &header.meta, place))?;
        at_place.resize(place.count.into(), None);
        if let Some(other) = at_place[usize::from(place.no)].replace(i) {
            let (no, count, other) = (place.no + 1, place.count, files[other].0);
            return Err(Error::format(format!(
                "{other} and {name} are both part {no} of {count}: give each part once"
            )));
        }
    }
    let missing = at_place.iter().position(Option::is_none);
    match (missing, places.first()) {
        (Some(no), Some(place)) => {
            let (no, count) = (no as u16, place.count);
            let wanted = match parted(files[0].0) {
                Some((stem, _)) => format!("{stem}{} too", ending(no, count)),
                None => "all parts together".into(),
            };
            Err(Error::format(format!("part {} of {count} is missing: give {wanted}", no + 1)))
        }
        _ => Ok(at_place.into_iter().flatten().collect()),
    }
}

/// A name says the place that the header says, where it says one.
fn expect_name(name: &str, place: Place) -> Result<()> {
    match parted(name) {
        Some((_, said)) if said != place => Err(Error::format(format!(
            "{name} holds part {} of {}: the files of the split model were mixed up",
            place.no + 1,
            place.count
        ))),
        _ => Ok(()),
    }
}

/// Two files may be parts of the same model.
fn alike(one: (&str, &Meta, Place), other: (&str, &Meta, Place)) -> Result<()> {
    let n_tensors = |meta: &Meta| meta.opt_u32("split.tensors.count");
    let stem = |name| parted(name).map(|(stem, _)| stem);
    let differ = |a: Option<&str>, b: Option<&str>| a.is_some() && b.is_some() && a != b;
    if one.2.count != other.2.count || n_tensors(one.1)? != n_tensors(other.1)? || differ(stem(one.0), stem(other.0)) {
        return Err(Error::format(format!(
            "{} is a part of another model than {}: give the parts of one model together",
            other.0, one.0
        )));
    }
    Ok(())
}

/// A file's name, taken apart: what all parts have, and the place that it says. `None` for a name that says none.
fn parted(name: &str) -> Option<(&str, Place)> {
    let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, no) = rest.rsplit_once('-')?;
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| text.len() == 5);
    let (no, count) = (number(no)?.checked_sub(1)?, number(count)?);
    (no < count).then_some((stem, Place { no, count }))
}

/// A part's place in its set.
#[derive(Clone, Copy, PartialEq, Eq)]
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
    named(&path.display().to_string(), error)
}

/// As [`in_file`], by a file's name.
pub(super) fn named(name: &str, error: Error) -> Error {
    match error {
        Error::Format(why) => Error::Format(format!("{name}: {why}")),
        Error::Unsupported(why) => Error::Unsupported(format!("{name}: {why}")),
        other => other,
    }
}

fn assemble(parts: Vec<(Header, Bytes)>) -> Result<ModelFile> {
    let n_parts = parts.len();
    for (i, (header, _)) in parts.iter().enumerate() {
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
    let (headers, bytes) = parts.into_iter().unzip();
    Ok(ModelFile { table: Arc::new(table(headers)?), data: Data::Parts(bytes) })
}

/// What the headers of all parts say together, in order. One is that of a plain file.
pub(super) fn table(headers: Vec<Header>) -> Result<Table> {
    let n_parts = headers.len();
    let mut headers = headers.into_iter();
    let Some(Header { version, meta, mut tensors }) = headers.next() else {
        return Err(Error::request("a model needs at least one file"));
    };
    for (part, header) in (1..=u16::MAX).zip(headers) {
        tensors.extend(header.tensors.into_iter().map(|t| Tensor { part, ..t }));
    }
    let n_tensors = tensors.len();
    let expected = if n_parts > 1 { meta.opt_u32("split.tensors.count")? } else { None };
    if let Some(expected) = expected.filter(|n| *n as usize != n_tensors) {
        return Err(Error::format(format!(
            "the split model should hold {expected} tensors, but its parts hold {n_tensors}: download them again"
        )));
    }
    Table::of_files(version, meta, tensors, n_parts)
}
