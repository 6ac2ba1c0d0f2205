//! The files of a [`super::DiskCache`]: their names, their header, and folders and files for their owner alone.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use crate::run::lasting::StoreKey;

const MARK: &[u8; 8] = b"ir-page1";
pub(super) const HEADER: usize = 8 + 16 + 8 + 8;

pub(super) fn name(key: StoreKey) -> String {
    match key.group {
        Some(group) => format!("{:032x}.{group}", key.prefix),
        None => format!("{:032x}.state", key.prefix),
    }
}

pub(super) fn parse(name: &str) -> Option<StoreKey> {
    let (prefix, group) = name.split_once('.')?;
    let group = if group == "state" { None } else { Some(group.parse().ok()?) };
    let key = StoreKey { prefix: u128::from_str_radix(prefix, 16).ok()?, group };
    (self::name(key) == name).then_some(key)
}

/// A file of this form that nobody finishes: an hour old.
pub(super) fn is_old_partial(name: &str, meta: &fs::Metadata) -> bool {
    let ours = name.split_once('.').is_some_and(|(prefix, rest)| prefix.len() == 32 && rest.starts_with("tmp"));
    let age = meta.modified().ok().and_then(|time| time.elapsed().ok());
    ours && age.is_some_and(|age| age.as_secs() > 3600)
}

pub(super) fn header(key: StoreKey, bytes: &[u8]) -> [u8; HEADER] {
    let mut all = [0; HEADER];
    let parts: [&[u8]; 4] =
        [MARK, &key.prefix.to_le_bytes(), &(bytes.len() as u64).to_le_bytes(), &sum(bytes).to_le_bytes()];
    let mut at = 0;
    for part in parts {
        all[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    all
}

/// Reads a file and checks that it is what it should be.
pub(super) fn read(path: &Path, key: StoreKey) -> io::Result<Vec<u8>> {
    let damaged = || io::Error::from(io::ErrorKind::InvalidData);
    let mut file = fs::File::open(path)?;
    let len = file.metadata()?.len().checked_sub(HEADER as u64).ok_or_else(damaged)?;
    let mut head = [0; HEADER];
    file.read_exact(&mut head)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(len).map_err(|_| damaged())?).map_err(|_| damaged())?;
    file.take(len).read_to_end(&mut bytes)?;
    if head == header(key, &bytes) { Ok(bytes) } else { Err(damaged()) }
}

/// A sum that changes with any byte: against damage, not against an adversary, who has no way into the folder.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut lanes = [1u64, 2, 3, 4];
    let mut chunks = bytes.chunks_exact(32);
    for chunk in &mut chunks {
        for (lane, word) in lanes.iter_mut().zip(chunk.chunks_exact(8)) {
            let word = u64::from_le_bytes(std::array::from_fn(|i| word[i]));
            *lane = (*lane ^ word).wrapping_mul(FACTOR).rotate_left(29);
        }
    }
    let rest = chunks.remainder().iter().chain(&[1]).map(|b| u64::from(*b));
    let words = lanes.into_iter().chain(rest).chain([bytes.len() as u64]);
    words.fold(0, |all: u64, word| (all ^ word).wrapping_mul(FACTOR).rotate_left(31))
}

#[cfg(unix)]
pub(super) fn make_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}

#[cfg(not(unix))]
pub(super) fn make_private(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

pub(super) fn private(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
