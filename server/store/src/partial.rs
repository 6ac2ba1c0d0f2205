//! [`Partial`]: a file that is still arriving, in ranges, and the journal that says which have. A killed process loses at
//! most what came since its last note.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use fs4::FileExt;

use crate::disk;
use crate::error::{Error, Result};

/// A journal may have so many bytes.
const MAX_JOURNAL: u64 = 64 << 20;

/// Ranges of a file, in order and apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<Range<u64>>);

impl Ranges {
    /// Adds a range, joined with those it touches.
    pub(crate) fn add(&mut self, new: Range<u64>) {
        if new.is_empty() {
            return;
        }
        let first = self.0.partition_point(|r| r.end < new.start);
        let last = self.0.partition_point(|r| r.start <= new.end);
        let start = self.0[first..last].first().map_or(new.start, |r| r.start.min(new.start));
        let end = self.0[first..last].last().map_or(new.end, |r| r.end.max(new.end));
        self.0.splice(first..last, std::iter::once(start..end));
    }

    /// What is missing of a file of this length.
    pub(crate) fn missing(&self, size: u64) -> Vec<Range<u64>> {
        let mut at = 0;
        let mut all = Vec::new();
        for range in &self.0 {
            if range.start.min(size) > at {
                all.push(at..range.start.min(size));
            }
            at = at.max(range.end);
        }
        if at < size {
            all.push(at..size);
        }
        all
    }

    /// Bytes that are there from the beginning on.
    pub(crate) fn prefix(&self) -> u64 {
        self.0.first().filter(|r| r.start == 0).map_or(0, |r| r.end)
    }

    /// Bytes of all.
    pub(crate) fn sum(&self) -> u64 {
        self.0.iter().map(|r| r.end - r.start).sum()
    }
}

/// A file that is still arriving.
#[derive(Debug)]
pub(crate) struct Partial {
    pub(crate) path: PathBuf,
    file: File,
    journal: File,
    /// What the first line of the journal says: what file this is.
    header: String,
    pub(crate) done: Ranges,
}

impl Partial {
    /// Opens or begins one. What an earlier process left is used if it is of the same file, as the header says.
    /// The caller has its lock.
    pub(crate) fn open(path: &Path, identity: &str, size: Option<u64>) -> Result<Partial> {
        let journal_path = path.with_extension("journal");
        disk::regular(path)?;
        disk::regular(&journal_path)?;
        let open = |path: &Path, append: bool| {
            let mut options = OpenOptions::new();
            options.read(true).create(true).truncate(false);
            let options = if append { options.append(true) } else { options.write(true) };
            options.open(path).map_err(|e| Error::disk("open", path, &e))
        };
        let file = open(path, false)?;
        let noted = disk::read_small(&journal_path, MAX_JOURNAL).unwrap_or_default();
        let journal = open(&journal_path, true)?;
        let header = format!("ir1 {} {identity}\n", size.map_or_else(|| "-".into(), |s| s.to_string()));
        let length = file.metadata().map_err(|e| Error::disk("read", path, &e))?.len();
        let mut partial = Partial { path: path.to_owned(), file, journal, header, done: Ranges::default() };
        match noted.strip_prefix(partial.header.as_bytes()) {
            Some(lines) => partial.done = read(lines, length.min(size.unwrap_or(u64::MAX))),
            None => partial.reset()?,
        }
        if let Some(size) = size.filter(|size| *size != length) {
            // Where the file system cannot reserve room, the file is only made long.
            if partial.file.allocate(size).is_err() || partial.file.metadata().is_ok_and(|m| m.len() != size) {
                partial.file.set_len(size).map_err(|e| Error::disk("make room for", path, &e))?;
            }
        }
        partial.compact()?;
        Ok(partial)
    }

    /// Forgets all that has come.
    pub(crate) fn reset(&mut self) -> Result {
        self.done = Ranges::default();
        self.compact()
    }

    /// Writes the journal anew, as short as it can be.
    fn compact(&mut self) -> Result {
        let mut text = self.header.clone();
        for range in &self.done.0 {
            text += &format!("{} {}\n", range.start, range.end);
        }
        let path = self.path.with_extension("journal");
        disk::write_atomically(&path, text.as_bytes())?;
        self.journal = OpenOptions::new().append(true).open(&path).map_err(|e| Error::disk("open", &path, &e))?;
        Ok(())
    }

    /// Writes bytes at their place.
    pub(crate) fn write(&mut self, at: u64, bytes: &[u8]) -> Result {
        let write = |file: &mut File| {
            file.seek(SeekFrom::Start(at))?;
            file.write_all(bytes)
        };
        write(&mut self.file).map_err(|e| Error::disk("write", &self.path, &e))
    }

    /// Notes that a range is there.
    pub(crate) fn note(&mut self, range: Range<u64>) -> Result {
        if range.is_empty() {
            return Ok(());
        }
        let line = format!("{} {}\n", range.start, range.end);
        self.done.add(range);
        self.journal.write_all(line.as_bytes()).map_err(|e| Error::disk("write the journal of", &self.path, &e))
    }

    /// Brings everything to the disk, with exactly this length.
    pub(crate) fn finish(&mut self, size: u64) -> Result {
        let finish = || {
            self.file.set_len(size)?;
            self.file.sync_data()
        };
        finish().map_err(|e| Error::disk("write", &self.path, &e))
    }

    /// Removes file and journal.
    pub(crate) fn discard(path: &Path) -> Result {
        disk::remove(path)?;
        disk::remove(&path.with_extension("journal"))?;
        Ok(())
    }
}

/// The ranges of a journal's lines. A line that was not written whole, and all behind it, do not count.
fn read(lines: &[u8], size: u64) -> Ranges {
    let mut all = Ranges::default();
    for line in lines.split_inclusive(|b| *b == b'\n') {
        let range = || {
            let line = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
            let (start, end) = line.split_once(' ')?;
            let range = start.parse::<u64>().ok()?..end.parse::<u64>().ok()?;
            (range.start <= range.end && range.end <= size).then_some(range)
        };
        let Some(range) = range() else { break };
        all.add(range);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_in_any_order() {
        let mut ranges = Ranges::default();
        for (start, end) in [(10, 20), (30, 40), (0, 5), (20, 30), (5, 5), (4, 11), (50, 60), (45, 70)] {
            ranges.add(start..end);
        }
        assert_eq!(ranges.0, [0..40, 45..70]);
        assert_eq!(ranges.missing(80), [40..45, 70..80]);
        assert_eq!(ranges.missing(42).first(), Some(&(40..42)));
        assert_eq!((ranges.prefix(), ranges.sum()), (40, 65));
    }

    #[test]
    fn a_torn_or_hostile_journal_counts_up_to_the_tear() {
        let cases: [(&[u8], u64); 5] = [
            (b"0 10\n10 20\n", 20),
            (b"0 10\n10 2", 10),
            (b"0 10\n10 999\n20 30\n", 10),
            (b"9 3\n0 10\n", 0),
            (b"\xff\xff\n0 10\n", 0),
        ];
        for (lines, want) in cases {
            assert_eq!(read(lines, 100).sum(), want, "{lines:?}");
        }
    }
}
