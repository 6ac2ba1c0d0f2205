//! Bodies that come packed (`Content-Encoding`: gzip, deflate, zstd). What they unpack to is held to the same limit.

use std::io::Read;

use axum::body::Bytes;
use axum::http::{HeaderMap, header};

use super::body::MAX_BODY;
use crate::engine::error::{ApiError, Kind, cut, panicked};

/// Packings of one body at most.
const MAX_LAYERS: usize = 3;

/// How a body is packed, the last packing first; empty: not at all.
pub(super) fn encodings(headers: &HeaderMap) -> Vec<String> {
    let all = headers.get_all(header::CONTENT_ENCODING).iter().filter_map(|v| v.to_str().ok());
    let names = all.flat_map(|v| v.split(',')).map(|name| name.trim().to_ascii_lowercase());
    let mut names: Vec<String> = names.filter(|name| !name.is_empty() && name != "identity").collect();
    names.reverse();
    names
}

/// A body without its packings.
///
/// # Errors
/// A packing that is not known or damaged, more than [`MAX_BODY`] bytes.
pub(super) async fn unpacked(bytes: Bytes, encodings: Vec<String>) -> Result<Bytes, ApiError> {
    if encodings.len() > MAX_LAYERS {
        return Err(ApiError::invalid(format!("the body is packed {} times: pack it once", encodings.len())));
    }
    // Unpacking takes a processor's time.
    let work = move || encodings.iter().try_fold(bytes, |bytes, name| unpack(&bytes, name));
    tokio::task::spawn_blocking(work).await.map_err(|_| panicked())?
}

pub(super) fn too_large(what: &str) -> ApiError {
    ApiError::new(Kind::TooLarge, format!("{what} than {} MiB: send less", MAX_BODY >> 20))
}

fn unpack(bytes: &[u8], name: &str) -> Result<Bytes, ApiError> {
    match name {
        "gzip" | "x-gzip" => all(name, flate2::read::MultiGzDecoder::new(bytes)),
        // Meant is zlib's form; some send the bare one.
        "deflate" if is_zlib(bytes) => all(name, flate2::read::ZlibDecoder::new(bytes)),
        "deflate" => all(name, flate2::read::DeflateDecoder::new(bytes)),
        "zstd" => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(bytes).map_err(|e| damaged(name, &e))?;
            all(name, decoder)
        }
        other => Err(ApiError::invalid(format!(
            "Content-Encoding {:?} is not known: send the body as it is, or packed by gzip, deflate or zstd",
            cut(other, 40)
        ))),
    }
}

/// Whether bytes begin as zlib's do.
fn is_zlib(bytes: &[u8]) -> bool {
    matches!(bytes, [first, second, ..] if first & 15 == 8 && u16::from_be_bytes([*first, *second]) % 31 == 0)
}

fn all(name: &str, reader: impl Read) -> Result<Bytes, ApiError> {
    let mut out = Vec::new();
    reader.take(MAX_BODY as u64 + 1).read_to_end(&mut out).map_err(|e| damaged(name, &e))?;
    if out.len() > MAX_BODY {
        return Err(too_large("the body unpacks to more"));
    }
    Ok(out.into())
}

fn damaged(name: &str, error: &dyn std::fmt::Display) -> ApiError {
    ApiError::invalid(format!("the body is no {name}, as its Content-Encoding says: {error}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use std::io::Write;

    fn packed(name: &str, data: &[u8]) -> Vec<u8> {
        let level = flate2::Compression::fast();
        match name {
            "gzip" => {
                let mut writer = flate2::write::GzEncoder::new(Vec::new(), level);
                writer.write_all(data).unwrap();
                writer.finish().unwrap()
            }
            "zlib" => {
                let mut writer = flate2::write::ZlibEncoder::new(Vec::new(), level);
                writer.write_all(data).unwrap();
                writer.finish().unwrap()
            }
            "bare" => {
                let mut writer = flate2::write::DeflateEncoder::new(Vec::new(), level);
                writer.write_all(data).unwrap();
                writer.finish().unwrap()
            }
            _ => ruzstd::encoding::compress_to_vec(data, ruzstd::encoding::CompressionLevel::Fastest),
        }
    }

    fn read(bytes: Vec<u8>, encoding: &str) -> Result<Bytes, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, encoding.parse().unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(unpacked(bytes.into(), encodings(&headers)))
    }

    #[test]
    fn every_packing_is_read() {
        let data = br#"{"model": "m", "text": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}"#;
        for (form, encoding) in [("gzip", "gzip"), ("zlib", "deflate"), ("bare", "Deflate"), ("zstd", "zstd")] {
            assert_eq!(read(packed(form, data), encoding).unwrap(), &data[..], "{form}");
        }
        assert_eq!(read(packed("zstd", &packed("gzip", data)), "gzip, zstd").unwrap(), &data[..]);
    }

    #[test]
    fn the_limit_holds_behind_unpacking_and_damage_is_named() {
        let zeros = vec![b' '; MAX_BODY + 1];
        for (form, encoding) in [("gzip", "gzip"), ("zlib", "deflate"), ("zstd", "zstd")] {
            let small = packed(form, &zeros);
            assert!(small.len() < MAX_BODY / 50, "{}", small.len());
            assert_eq!(read(small, encoding).unwrap_err().kind, Kind::TooLarge, "{form}");
            let error = read(b"{\"model\": \"m\"}".to_vec(), encoding).unwrap_err();
            assert!(error.kind == Kind::Invalid && error.message.contains(encoding), "{error}");
        }
        assert!(read(Vec::new(), "br").unwrap_err().message.contains("not known"));
        assert!(read(Vec::new(), "gzip, gzip, gzip, gzip").unwrap_err().message.contains("4 times"));
    }
}
