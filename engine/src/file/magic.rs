//! Says what a file is that is no GGUF: the mistakes people make, each with the way out.

/// No more of a file is looked at.
pub(super) const LOOK: usize = 512;

/// One sentence on a file that starts with these bytes and not with `GGUF`.
pub(super) fn not_gguf(start: &[u8]) -> String {
    let start = &start[..start.len().min(LOOK)];
    let want = "give the path of a .gguf file";
    let known: &[(&[u8], &str)] = &[
        (
            b"version https://git-lfs",
            "a Git LFS pointer, not the model itself: run `git lfs pull` or download the file",
        ),
        (b"FUGG", "a byte-swapped GGUF, which is not read: download the little-endian file"),
        (b"tjgg", "a model in the GGJT format of early 2023: download a GGUF of this model"),
        (b"fmgg", "a model in the GGMF format of early 2023: download a GGUF of this model"),
        (b"lmgg", "a model in the GGML format of early 2023: download a GGUF of this model"),
        (b"algg", "an adapter in the GGLA format of 2023: convert it to GGUF"),
        (b"PK\x03\x04", "a zip archive, as PyTorch writes: convert the model to GGUF or download its GGUF"),
        (b"\x80\x02", "a Python pickle, as PyTorch writes: convert the model to GGUF or download its GGUF"),
        (b"\x80\x04", "a Python pickle, as PyTorch writes: convert the model to GGUF or download its GGUF"),
        (b"\x89HDF", "an HDF5 file, as Keras writes: convert the model to GGUF or download its GGUF"),
        (b"\x1f\x8b", "a gzip archive: unpack it first"),
        (b"\x28\xb5\x2f\xfd", "a zstd archive: unpack it first"),
        (b"\xfd7zXZ", "an xz archive: unpack it first"),
        (b"<!DOCTYPE", "a web page, not the model itself: download the file, not the page that shows it"),
        (b"<!doctype", "a web page, not the model itself: download the file, not the page that shows it"),
        (b"<html", "a web page, not the model itself: download the file, not the page that shows it"),
    ];
    if start.is_empty() {
        return "this file is empty: download it again".into();
    }
    if let Some((_, what)) = known.iter().find(|(magic, _)| start.starts_with(magic)) {
        return format!("this is {what}");
    }
    if is_safetensors(start) {
        return "this is a safetensors file: give the folder that holds it with its config.json and tokenizer".into();
    }
    if start.iter().all(|b| *b == 0) {
        return "this file holds zeros, so its download was not finished: download it again".into();
    }
    if is_text(start) {
        return format!("this is a text file, not a model: {want}");
    }
    format!("this is no GGUF model, for it does not start with the letters GGUF: {want}")
}

/// A `u64` header length, then JSON.
fn is_safetensors(start: &[u8]) -> bool {
    start.first_chunk().is_some_and(|n| u64::from_le_bytes(*n) < 1 << 32) && start.get(8) == Some(&b'{')
}

fn is_text(start: &[u8]) -> bool {
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        // The cut at `LOOK` may lie inside a character.
        Err(e) if e.error_len().is_none() => std::str::from_utf8(&start[..e.valid_up_to()]).unwrap_or_default(),
        Err(_) => return false,
    };
    text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t'))
}
