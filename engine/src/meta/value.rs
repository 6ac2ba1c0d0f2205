//! [`Value`] and [`Array`]: one metadata value, borrowed from the file's bytes, and how long its encoding is.

use crate::error::Result;

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
    pub(super) kind: Kind,
    /// The encoded value, without its type tag: number, `u64 length + text`, or `u32 kind + u64 count + elements`.
    pub(super) bytes: &'a [u8],
}

pub(super) fn le<const N: usize>(bytes: &[u8]) -> [u8; N] {
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

    /// The value as it lies in the file, behind its kind.
    pub(crate) fn encoded(&self) -> &'a [u8] {
        self.bytes
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
pub(super) fn value_len(kind: Kind, bytes: &[u8], depth: usize) -> Result<usize, Stop> {
    // In u64: a length beyond this machine's `usize` is as truncated here as it is elsewhere.
    let within = |n: Option<u64>| match n {
        Some(n) if n <= bytes.len() as u64 => Ok(n as usize),
        Some(n) => Err(Stop::More(n)),
        None => Err(Stop::Bad("a length in the metadata overflows: the file is damaged, download it again".into())),
    };
    let count_at = |at: usize| -> Result<u64, Stop> {
        let field = bytes.get(at..).and_then(|b| b.first_chunk()).ok_or(Stop::More(at as u64 + 8))?;
        Ok(u64::from_le_bytes(*field))
    };
    if let Some(size) = kind.size() {
        return within(Some(size as u64));
    }
    if kind == Kind::Str {
        return within(count_at(0)?.checked_add(8));
    }
    let id = u32::from_le_bytes(*bytes.first_chunk().ok_or(Stop::More(4))?);
    let element = Kind::from_id(id).ok_or_else(|| Stop::Bad(format!("array element type {id} is unknown")))?;
    let count = count_at(4)?;
    if let Some(size) = element.size() {
        return within(count.checked_mul(size as u64).and_then(|n| n.checked_add(12)));
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
