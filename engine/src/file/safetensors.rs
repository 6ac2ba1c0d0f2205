//! The safetensors header: `u64` length, JSON of names to types, shapes and ranges, then the data. Read without copies of
//! the data, and without more memory than the header itself takes some times over.
//! Format: <https://huggingface.co/docs/safetensors>.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::bytes::Bytes;
use crate::error::{Error, Result};
use crate::meta::shown;

/// The format's own limit.
const MAX_HEADER: u64 = 100_000_000;
const MAX_NAME: usize = 512;
const MAX_TENSORS: usize = 1 << 20;
/// Dimensions that are read; more have no meaning here.
pub const MAX_DIMS: usize = 6;

/// An element type of safetensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the types")]
#[allow(non_camel_case_types, reason = "as the format writes them")]
pub enum Element {
    F64,
    F32,
    F16,
    BF16,
    F8_E4M3,
    F8_E5M2,
    F8_E8M0,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    BOOL,
}

impl Element {
    const ALL: [(&'static str, Element, u64); 16] = [
        ("F64", Element::F64, 8),
        ("F32", Element::F32, 4),
        ("F16", Element::F16, 2),
        ("BF16", Element::BF16, 2),
        ("F8_E4M3", Element::F8_E4M3, 1),
        ("F8_E5M2", Element::F8_E5M2, 1),
        ("F8_E8M0", Element::F8_E8M0, 1),
        ("I64", Element::I64, 8),
        ("I32", Element::I32, 4),
        ("I16", Element::I16, 2),
        ("I8", Element::I8, 1),
        ("U64", Element::U64, 8),
        ("U32", Element::U32, 4),
        ("U16", Element::U16, 2),
        ("U8", Element::U8, 1),
        ("BOOL", Element::BOOL, 1),
    ];

    fn of(name: &str) -> Option<Element> {
        Element::ALL.iter().find(|(n, ..)| *n == name).map(|(_, element, _)| *element)
    }

    /// The name as files have it.
    pub fn name(self) -> &'static str {
        Element::ALL.iter().find(|(_, e, _)| *e == self).map_or("", |(name, ..)| name)
    }

    /// Bytes of one.
    pub fn size(self) -> u64 {
        Element::ALL.iter().find(|(_, e, _)| *e == self).map_or(1, |(.., size)| *size)
    }
}

/// A tensor of a safetensors file: its range lies inside the file and is as long as shape and type say.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The name.
    pub name: String,
    /// The element type.
    pub element: Element,
    dims: [u64; MAX_DIMS],
    n_dims: u8,
    /// The bytes, shared with the file.
    pub bytes: Bytes,
}

impl Stored {
    /// A tensor that was made and lies in no file.
    ///
    /// # Errors
    /// [`Error::Shape`] where the bytes are not as many as shape and type take, or there are too many dimensions.
    pub fn made(name: &str, element: Element, shape: &[u64], bytes: Bytes) -> Result<Stored> {
        let mut dims = [1; MAX_DIMS];
        let n = shape.iter().try_fold(element.size(), |n, d| n.checked_mul(*d));
        match dims.get_mut(..shape.len()).filter(|_| n == Some(bytes.len() as u64)) {
            Some(place) => place.copy_from_slice(shape),
            None => return Err(Error::shape(format!("tensor {} does not take its bytes", shown(name.as_bytes())))),
        }
        Ok(Stored { name: name.to_owned(), element, dims, n_dims: shape.len() as u8, bytes })
    }

    /// The shape in PyTorch's order: the last dimension is contiguous. Empty for a scalar.
    pub fn shape(&self) -> &[u64] {
        &self.dims[..self.n_dims.into()]
    }

    /// Number of elements.
    pub fn n_elements(&self) -> u64 {
        self.shape().iter().product()
    }
}

/// Reads the tensor table of a file.
///
/// # Errors
/// [`Error::Format`] where the bytes are no whole safetensors file.
pub fn read(file: &Bytes) -> Result<Vec<Stored>> {
    let cut = |need: u64| {
        Error::format(format!("the file has {} bytes, but {need} are needed: download it again", file.len()))
    };
    let length = file.first_chunk().map(|n| u64::from_le_bytes(*n)).ok_or_else(|| cut(8))?;
    if length > MAX_HEADER {
        return Err(Error::format(format!(
            "this is no safetensors file: its header would take {length} bytes, more than the format allows"
        )));
    }
    let start = 8 + length as usize;
    let header = file.get(8..start).ok_or_else(|| cut(8 + length))?;
    let data = file.slice(start..file.len()).ok_or_else(|| cut(8 + length))?;
    let mut json = serde_json::Deserializer::from_slice(header);
    let table = json.deserialize_map(TableVisitor { data: &data });
    let mut tensors = table.map_err(|e| Error::format(format!("the safetensors header cannot be read: {e}")))?;
    json.end().map_err(|e| Error::format(format!("the safetensors header cannot be read: {e}")))?;
    tensors.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    match tensors.windows(2).find(|w| w[0].name == w[1].name) {
        Some(twice) => Err(Error::format(format!("two tensors are named {}", shown(twice[0].name.as_bytes())))),
        None => Ok(tensors),
    }
}

/// What the header says of one tensor.
#[derive(Deserialize)]
struct Info<'a> {
    #[serde(borrow)]
    dtype: Cow<'a, str>,
    shape: Shape,
    data_offsets: (u64, u64),
}

struct Shape([u64; MAX_DIMS], u8);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Shape, D::Error> {
        struct Dims;
        impl<'de> Visitor<'de> for Dims {
            type Value = Shape;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "up to {MAX_DIMS} dimensions")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                let (mut dims, mut n) = ([1; MAX_DIMS], 0);
                while let Some(dim) = seq.next_element::<u64>()? {
                    let place = dims.get_mut(n).ok_or_else(|| de::Error::invalid_length(n + 1, &self))?;
                    *place = dim;
                    n += 1;
                }
                Ok(Shape(dims, n as u8))
            }
        }
        deserializer.deserialize_seq(Dims)
    }
}

struct TableVisitor<'a> {
    data: &'a Bytes,
}

impl<'de> Visitor<'de> for TableVisitor<'_> {
    type Value = Vec<Stored>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Stored>, A::Error> {
        let mut tensors: Vec<Stored> = Vec::new();
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if name.len() > MAX_NAME || tensors.len() >= MAX_TENSORS {
                return Err(de::Error::custom("it has too many tensors, or one with too long a name"));
            }
            let info: Info<'de> = map.next_value()?;
            tensors.push(self.tensor(&name, &info).map_err(de::Error::custom)?);
        }
        Ok(tensors)
    }
}

impl TableVisitor<'_> {
    fn tensor(&self, name: &str, info: &Info<'_>) -> Result<Stored, String> {
        let of = || shown(name.as_bytes());
        let element = Element::of(&info.dtype)
            .ok_or_else(|| format!("tensor {} has the unknown type {}", of(), shown(info.dtype.as_bytes())))?;
        let Shape(dims, n_dims) = info.shape;
        let n = dims.iter().try_fold(1u64, |n, dim| n.checked_mul(*dim));
        let len = n.filter(|n| *n > 0).and_then(|n| n.checked_mul(element.size()));
        let len = len.ok_or_else(|| format!("tensor {} has an impossible shape", of()))?;
        let (from, to) = info.data_offsets;
        if to.checked_sub(from) != Some(len) {
            return Err(format!("tensor {} should take {len} bytes, but lies from {from} to {to}", of()));
        }
        let range = usize::try_from(from).ok().zip(usize::try_from(to).ok());
        let bytes = range.and_then(|(from, to)| self.data.slice(from..to)).ok_or_else(|| {
            format!(
                "tensor {} ends at byte {to} of the data, which has {}: download the file again",
                of(),
                self.data.len()
            )
        })?;
        Ok(Stored { name: name.to_owned(), element, dims, n_dims, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Bytes {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 7);
        Bytes::from(bytes)
    }

    #[test]
    fn a_table_is_read() {
        let header = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F16","shape":[2,3],"data_offsets":[4,16]},
            "a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}} "#;
        let read = read(&file(header, 16)).unwrap();
        let shapes: Vec<_> = read.iter().map(|t| (t.name.as_str(), t.shape().to_vec(), t.bytes.len())).collect();
        assert_eq!(shapes, [("a", vec![], 4), ("b", vec![2, 3], 12)]);
    }

    #[test]
    fn faults_have_sentences() {
        let one = |info: &str| format!("{{\"a\":{info}}}");
        let cases = [
            (one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,4]}"#), "should take 8 bytes"),
            (one(r#"{"dtype":"F32","shape":[4],"data_offsets":[0,16]}"#), "download"),
            (one(r#"{"dtype":"F4","shape":[1],"data_offsets":[0,4]}"#), "unknown type"),
            (one(r#"{"dtype":"F32","shape":[9,9,9,9,9,9,9],"data_offsets":[0,4]}"#), "up to 6"),
            (one(r#"{"dtype":"F32","shape":[4294967296,4294967296,2],"data_offsets":[0,4]}"#), "impossible shape"),
            (one(r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#), "impossible shape"),
            (one(r#"{"dtype":"F32"}"#), "shape"),
            ("[]".into(), "cannot be read"),
            ("{} {}".into(), "cannot be read"),
            (r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#.into(), "two tensors"),
        ];
        for (header, want) in cases {
            let said = read(&file(&header, 8)).unwrap_err().to_string();
            assert!(said.contains(want), "{header}: {said}");
        }
        assert!(read(&Bytes::from(vec![1, 2])).unwrap_err().to_string().contains("download"));
        assert!(read(&Bytes::from(vec![255; 16])).unwrap_err().to_string().contains("no safetensors"));
        assert!(read(&Bytes::from(vec![9, 0, 0, 0, 0, 0, 0, 0, b'{'])).unwrap_err().to_string().contains("download"));
    }
}
