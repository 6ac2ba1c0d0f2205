//! [`Meta`]: a model file's key-value metadata, kept in the file's own bytes, with typed getters.
//! GGUF's encoding is the only representation; a builder writes the same bytes. Reading a header is in `file`.

use crate::bytes::Bytes;
use crate::error::{Error, Result};

/// A value's type tag (GGUF's `gguf_metadata_value_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the types")]
#[repr(u32)]
pub enum Kind {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    Str = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl Kind {
    /// The type with this id, if there is one.
    pub fn from_id(id: u32) -> Option<Kind> {
        use Kind::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, Str, Array, U64, I64, F64].into_iter().find(|k| *k as u32 == id)
    }

    /// Bytes of one value, or `None` for strings and arrays.
    pub fn size(self) -> Option<usize> {
        Some(match self {
            Kind::U8 | Kind::I8 | Kind::Bool => 1,
            Kind::U16 | Kind::I16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::U64 | Kind::I64 | Kind::F64 => 8,
            Kind::Str | Kind::Array => return None,
        })
    }
}

/// One value, borrowed from the file's bytes.
#[derive(Debug, Clone, Copy)]
pub struct Value<'a> {
    kind: Kind,
    /// The encoded value, without its type tag: number, `u64 length + text`, or `u32 kind + u64 count + elements`.
    bytes: &'a [u8],
}

fn le<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    let n = N.min(bytes.len());
    out[..n].copy_from_slice(&bytes[..n]);
    out
}

impl<'a> Value<'a> {
    /// The type tag.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// A non-negative integer of any width.
    pub fn as_u64(&self) -> Option<u64> {
        match self.kind {
            Kind::U8 | Kind::U16 | Kind::U32 | Kind::U64 => Some(u64::from_le_bytes(le(self.bytes))),
            _ => u64::try_from(self.as_i64()?).ok(),
        }
    }

    /// An integer of any width that fits an `i64`.
    pub fn as_i64(&self) -> Option<i64> {
        let b = self.bytes;
        Some(match self.kind {
            Kind::I8 => i8::from_le_bytes(le(b)).into(),
            Kind::I16 => i16::from_le_bytes(le(b)).into(),
            Kind::I32 => i32::from_le_bytes(le(b)).into(),
            Kind::I64 => i64::from_le_bytes(le(b)),
            Kind::U8 | Kind::U16 | Kind::U32 | Kind::U64 => i64::try_from(self.as_u64()?).ok()?,
            _ => return None,
        })
    }

    /// Any number.
    pub fn as_f64(&self) -> Option<f64> {
        match self.kind {
            Kind::F32 => Some(f32::from_le_bytes(le(self.bytes)).into()),
            Kind::F64 => Some(f64::from_le_bytes(le(self.bytes))),
            Kind::U64 => self.as_u64().map(|v| v as f64),
            _ => self.as_i64().map(|v| v as f64),
        }
    }

    /// A truth value.
    pub fn as_bool(&self) -> Option<bool> {
        (self.kind == Kind::Bool).then(|| self.bytes.first().is_some_and(|b| *b != 0))
    }

    /// A string's bytes (files do not always hold UTF-8).
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        if self.kind == Kind::Str { self.bytes.get(8..) } else { None }
    }

    /// A string, where it is UTF-8.
    pub fn as_str(&self) -> Option<&'a str> {
        std::str::from_utf8(self.as_bytes()?).ok()
    }

    /// An array.
    pub fn as_array(&self) -> Option<Array<'a>> {
        if self.kind != Kind::Array || self.bytes.len() < 12 {
            return None;
        }
        let kind = Kind::from_id(u32::from_le_bytes(le(self.bytes)))?;
        let len = usize::try_from(u64::from_le_bytes(le(&self.bytes[4..]))).ok()?;
        Some(Array { kind, len, bytes: &self.bytes[12..] })
    }
}

/// An array, borrowed from the file's bytes.
#[derive(Debug, Clone, Copy)]
pub struct Array<'a> {
    kind: Kind,
    len: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// The elements' type.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (kind, mut rest) = (self.kind, self.bytes);
        (0..self.len).map_while(move |_| {
            let (value, n) = take_value(kind, rest)?;
            rest = &rest[n..];
            Some(value)
        })
    }
}

/// The value of this kind at the start of `bytes` and the bytes it takes; `None` where `bytes` ends inside it.
fn take_value(kind: Kind, bytes: &[u8]) -> Option<(Value<'_>, usize)> {
    let n = value_len(kind, bytes, 0).ok()?;
    Some((Value { kind, bytes: &bytes[..n] }, n))
}

/// A name from a file as an error message shows it: quoted, control characters escaped, at most 64 characters.
pub(crate) fn shown(name: &[u8]) -> String {
    let start = String::from_utf8_lossy(&name[..name.len().min(256)]);
    let mut text: String = start.chars().take(64).collect();
    if text.len() < start.len() || name.len() > 256 {
        text.push('…');
    }
    format!("{text:?}")
}

/// Why a header could not be read from the bytes at hand.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The bytes end inside a field; with more of the file it may be well-formed. The length needed at least.
    More(u64),
    /// The bytes contradict the format.
    Bad(String),
}

/// Arrays may nest this deep. No known file nests at all.
const MAX_NESTING: usize = 8;

/// The encoded length of a value of this kind at the start of `bytes`.
fn value_len(kind: Kind, bytes: &[u8], depth: usize) -> Result<usize, Stop> {
    let within = |n: Option<usize>| match n {
        Some(n) if n <= bytes.len() => Ok(n),
        Some(n) => Err(Stop::More(n as u64)),
        None => Err(Stop::Bad("a length overflows".into())),
    };
    let count_at = |at: usize| -> Result<u64, Stop> {
        let field = bytes.get(at..).and_then(|b| b.first_chunk()).ok_or(Stop::More(at as u64 + 8))?;
        Ok(u64::from_le_bytes(*field))
    };
    if let Some(size) = kind.size() {
        return within(Some(size));
    }
    if kind == Kind::Str {
        return within(usize::try_from(count_at(0)?).ok().and_then(|n| n.checked_add(8)));
    }
    let id = u32::from_le_bytes(*bytes.first_chunk().ok_or(Stop::More(4))?);
    let element = Kind::from_id(id).ok_or_else(|| Stop::Bad(format!("array element type {id} is unknown")))?;
    let count = usize::try_from(count_at(4)?).map_err(|_| Stop::Bad("an array's length overflows".into()))?;
    if let Some(size) = element.size() {
        return within(count.checked_mul(size).and_then(|n| n.checked_add(12)));
    }
    if depth >= MAX_NESTING {
        return Err(Stop::Bad(format!("arrays nest more than {MAX_NESTING} deep")));
    }
    let mut at = 12usize;
    for _ in 0..count {
        at += value_len(element, &bytes[at..], depth + 1).map_err(|stop| match stop {
            Stop::More(n) => Stop::More(n.saturating_add(at as u64)),
            bad => bad,
        })?;
    }
    Ok(at)
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
        Ok((Meta { bytes: bytes.clone(), entries }, at))
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
        let entry = self.entries.iter().find(|e| e.key(&self.bytes) == key.as_bytes())?;
        Some(entry.value(&self.bytes))
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

/// Writes metadata in GGUF's encoding, for the file writer and for tests.
#[derive(Debug, Clone, Default)]
pub struct MetaBuilder {
    bytes: Vec<u8>,
    count: u64,
}

impl MetaBuilder {
    /// An empty builder.
    pub fn new() -> MetaBuilder {
        MetaBuilder::default()
    }

    fn key(&mut self, key: &str, kind: Kind) {
        self.count += 1;
        put_str(&mut self.bytes, key.as_bytes());
        self.bytes.extend((kind as u32).to_le_bytes());
    }

    /// Adds a `u32`.
    pub fn u32(mut self, key: &str, value: u32) -> Self {
        self.key(key, Kind::U32);
        self.bytes.extend(value.to_le_bytes());
        self
    }

    /// Adds a `u16`.
    pub fn u16(mut self, key: &str, value: u16) -> Self {
        self.key(key, Kind::U16);
        self.bytes.extend(value.to_le_bytes());
        self
    }

    /// Adds an `i32`.
    pub fn i32(mut self, key: &str, value: i32) -> Self {
        self.key(key, Kind::I32);
        self.bytes.extend(value.to_le_bytes());
        self
    }

    /// Adds an `f32`.
    pub fn f32(mut self, key: &str, value: f32) -> Self {
        self.key(key, Kind::F32);
        self.bytes.extend(value.to_le_bytes());
        self
    }

    /// Adds a truth value.
    pub fn bool(mut self, key: &str, value: bool) -> Self {
        self.key(key, Kind::Bool);
        self.bytes.push(value.into());
        self
    }

    /// Adds a string.
    pub fn str(mut self, key: &str, value: &str) -> Self {
        self.key(key, Kind::Str);
        put_str(&mut self.bytes, value.as_bytes());
        self
    }

    /// Adds an array of strings.
    pub fn strs<T: AsRef<[u8]>>(mut self, key: &str, values: &[T]) -> Self {
        self.array(key, Kind::Str, values.len());
        for value in values {
            put_str(&mut self.bytes, value.as_ref());
        }
        self
    }

    /// Adds an array of `f32`.
    pub fn f32s(mut self, key: &str, values: &[f32]) -> Self {
        self.array(key, Kind::F32, values.len());
        self.bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        self
    }

    /// Adds an array of `i32`.
    pub fn i32s(mut self, key: &str, values: &[i32]) -> Self {
        self.array(key, Kind::I32, values.len());
        self.bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        self
    }

    /// Copies a value as it is from another file.
    pub fn value(mut self, key: &str, value: Value<'_>) -> Self {
        self.key(key, value.kind);
        self.bytes.extend(value.bytes);
        self
    }

    fn array(&mut self, key: &str, kind: Kind, len: usize) {
        self.key(key, Kind::Array);
        self.bytes.extend((kind as u32).to_le_bytes());
        self.bytes.extend((len as u64).to_le_bytes());
    }

    /// The number of keys and their encoded bytes.
    pub fn encoded(&self) -> (u64, &[u8]) {
        (self.count, &self.bytes)
    }

    /// The metadata as a reader would see it.
    pub fn build(self) -> Meta {
        match Meta::parse(&Bytes::from(self.bytes), 0, self.count) {
            Ok((meta, _)) => meta,
            Err(stop) => unreachable!("the builder wrote what the reader refuses: {stop:?}"),
        }
    }
}

fn put_str(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let meta = MetaBuilder::new()
            .u32("a.n", 7)
            .f32("a.x", 0.5)
            .bool("a.b", true)
            .str("general.architecture", "llama")
            .strs("a.tokens", &["x", "", "yz"])
            .i32s("a.types", &[-1, 3])
            .build();
        assert_eq!(meta.u32("a.n").unwrap(), 7);
        assert_eq!(meta.f32("a.x").unwrap(), 0.5);
        assert_eq!(meta.opt_bool("a.b").unwrap(), Some(true));
        assert_eq!(meta.arch().unwrap(), "llama");
        let tokens: Vec<_> = meta.array("a.tokens").unwrap().iter().filter_map(|v| v.as_str()).collect();
        assert_eq!(tokens, ["x", "", "yz"]);
        let types: Vec<_> = meta.array("a.types").unwrap().iter().filter_map(|v| v.as_i64()).collect();
        assert_eq!(types, [-1, 3]);
        assert!(meta.u32("a.x").unwrap_err().to_string().contains("a.x"));
        assert!(meta.str("nope").unwrap_err().to_string().contains("nope"));
        assert_eq!(meta.opt_u32("nope").unwrap(), None);
    }
}
