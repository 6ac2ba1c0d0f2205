//! [`Meta`]: a model file's key-value metadata, kept in the file's own bytes, with typed getters.
//! GGUF's encoding is the only representation; a builder writes the same bytes. Reading a header is in `file`.

mod build;
mod value;

pub use build::MetaBuilder;
pub(crate) use value::Stop;
pub use value::{Array, Kind, Value};
use value::{le, value_len};

use crate::bytes::Bytes;
use crate::error::{Error, Result};

/// A name from a file as an error message shows it: quoted, control characters escaped, at most 64 characters.
pub(crate) fn shown(name: &[u8]) -> String {
    let start = String::from_utf8_lossy(&name[..name.len().min(256)]);
    let mut text: String = start.chars().take(64).collect();
    if text.len() < start.len() || name.len() > 256 {
        text.push('…');
    }
    format!("{text:?}")
}

/// Where one key and its value lie: `u64 length + key + u32 kind + value`. Kept at 24 bytes, below twice the 13 that the
/// shortest pair takes in a file, so that a hostile file cannot make the list grow beyond four times its own size.
#[derive(Debug, Clone)]
struct Entry {
    /// Where the key's length field lies.
    start: usize,
    key_len: u16,
    kind: Kind,
    value_len: usize,
}

impl Entry {
    fn key<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.start + 8..][..self.key_len.into()]
    }

    fn value<'a>(&self, bytes: &'a [u8]) -> Value<'a> {
        let start = self.start + 8 + usize::from(self.key_len) + 4;
        Value { kind: self.kind, bytes: &bytes[start..][..self.value_len] }
    }
}

/// A file's metadata. Where a file repeats a key, the first counts.
#[derive(Debug, Clone, Default)]
pub struct Meta {
    bytes: Bytes,
    entries: Vec<Entry>,
    /// Indices of the entries by key, the first of equals first.
    order: Vec<u32>,
}

impl Meta {
    /// Reads `count` key-value pairs that start at byte `start`; also returns where they end.
    pub(crate) fn parse(bytes: &Bytes, start: usize, count: u64) -> Result<(Meta, usize), Stop> {
        // A pair takes at least 13 bytes (8 + 4 + 1), so a count that cannot fit allocates no more than the file could.
        let fits = (bytes.len().saturating_sub(start) / 13) as u64;
        let mut entries = Vec::with_capacity(count.min(fits).min(4096) as usize);
        let data: &[u8] = bytes;
        let mut at = start;
        for _ in 0..count {
            let rest = data.get(at..).unwrap_or_default();
            let after = |stop, at: usize| match stop {
                Stop::More(n) => Stop::More(n.saturating_add(at as u64)),
                bad => bad,
            };
            let key_len = match rest.first_chunk() {
                Some(field) => u16::try_from(u64::from_le_bytes(*field)),
                None => return Err(Stop::More(at as u64 + 8)),
            };
            let key_len =
                key_len.map_err(|_| Stop::Bad(format!("the metadata key at byte {at} is longer than 65,535 bytes")))?;
            let value_at = 8 + usize::from(key_len) + 4;
            let Some(head) = rest.get(..value_at) else { return Err(Stop::More((at + value_at) as u64)) };
            let (key, id) = head[8..].split_at(key_len.into());
            let id = u32::from_le_bytes(le(id));
            let kind = Kind::from_id(id)
                .ok_or_else(|| Stop::Bad(format!("metadata key {} has the unknown type {id}", shown(key))))?;
            let value_len = value_len(kind, &rest[value_at..], 0).map_err(|s| after(s, at + value_at))?;
            entries.push(Entry { start: at, key_len, kind, value_len });
            at += value_at + value_len;
        }
        let mut order: Vec<u32> = (0..entries.len() as u32).collect();
        let key = |i: u32| entries[i as usize].key(bytes);
        order.sort_unstable_by(|a, b| key(*a).cmp(key(*b)).then(a.cmp(b)));
        Ok((Meta { bytes: bytes.clone(), entries, order }, at))
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keys and values in the file's order. Keys that are not UTF-8 appear with replacement characters.
    pub fn iter(&self) -> impl Iterator<Item = (std::borrow::Cow<'_, str>, Value<'_>)> {
        self.entries.iter().map(|e| (String::from_utf8_lossy(e.key(&self.bytes)), e.value(&self.bytes)))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        let entry = |i: u32| &self.entries[i as usize];
        let place = self.order.partition_point(|i| entry(*i).key(&self.bytes) < key.as_bytes());
        let found = entry(*self.order.get(place)?);
        (found.key(&self.bytes) == key.as_bytes()).then(|| found.value(&self.bytes))
    }

    /// The architecture's name (`general.architecture`), which prefixes its keys.
    ///
    /// # Errors
    /// Where the key is missing or no string.
    pub fn arch(&self) -> Result<&str> {
        self.str("general.architecture")
    }

    fn typed<'a, T>(&'a self, key: &str, what: &str, read: impl Fn(Value<'a>) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong = || Error::format(format!("metadata key {key:?} should be {what}, but is {:?}", value.kind()));
        read(value).map(Some).ok_or_else(wrong)
    }

    /// A `u32`, where the key is present. (`opt_*` getters fail only on a value of the wrong type or range.)
    pub fn opt_u32(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "a whole number below 2^32", |v| v.as_u64().and_then(|n| u32::try_from(n).ok()))
    }

    /// An `f32`, where the key is present.
    pub fn opt_f32(&self, key: &str) -> Result<Option<f32>> {
        self.typed(key, "a number", |v| v.as_f64().map(|x| x as f32))
    }

    /// A truth value, where the key is present.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", |v| v.as_bool())
    }

    /// A string, where the key is present.
    pub fn opt_str(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "UTF-8 text", |v| v.as_str())
    }

    /// An array, where the key is present.
    pub fn opt_array(&self, key: &str) -> Result<Option<Array<'_>>> {
        self.typed(key, "an array", |v| v.as_array())
    }

    /// A `u32` that must be present.
    pub fn u32(&self, key: &str) -> Result<u32> {
        self.opt_u32(key)?.ok_or_else(|| missing(key))
    }

    /// An `f32` that must be present.
    pub fn f32(&self, key: &str) -> Result<f32> {
        self.opt_f32(key)?.ok_or_else(|| missing(key))
    }

    /// A string that must be present.
    pub fn str(&self, key: &str) -> Result<&str> {
        self.opt_str(key)?.ok_or_else(|| missing(key))
    }

    /// An array that must be present.
    pub fn array(&self, key: &str) -> Result<Array<'_>> {
        self.opt_array(key)?.ok_or_else(|| missing(key))
    }

    /// The encoded elements of an array that must be present, as a shared range of the file's bytes: for owners that
    /// outlive the borrow.
    pub(crate) fn array_bytes(&self, key: &str) -> Result<Bytes> {
        let entry = self.entries.iter().find(|e| e.key(&self.bytes) == key.as_bytes());
        let entry = entry.filter(|e| e.kind == Kind::Array).ok_or_else(|| missing(key))?;
        let start = entry.start + 8 + usize::from(entry.key_len) + 4;
        self.bytes.slice(start + 12..start + entry.value_len).ok_or_else(|| missing(key))
    }
}

fn missing(key: &str) -> Error {
    Error::format(format!("metadata key {key:?} is missing: the file is no complete model of this kind"))
}
