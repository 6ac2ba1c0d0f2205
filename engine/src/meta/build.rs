//! [`MetaBuilder`]: writes metadata in GGUF's encoding.

use super::{Kind, Meta, Value};
use crate::bytes::Bytes;

/// Metadata to be written, for the file writer and for tests.
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

    /// Adds an array of `u32`.
    pub fn u32s(mut self, key: &str, values: &[u32]) -> Self {
        self.array(key, Kind::U32, values.len());
        self.bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        self
    }

    /// Adds an array of bytes.
    pub fn u8s(mut self, key: &str, values: &[u8]) -> Self {
        self.array(key, Kind::U8, values.len());
        self.bytes.extend(values);
        self
    }

    /// Adds an array of truth values.
    pub fn bools(mut self, key: &str, values: &[bool]) -> Self {
        self.array(key, Kind::Bool, values.len());
        self.bytes.extend(values.iter().map(|v| u8::from(*v)));
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
