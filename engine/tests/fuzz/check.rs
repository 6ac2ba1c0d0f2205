//! What must hold for any bytes given as a model file. Used by the fuzz test and by the cargo-fuzz target.

use ir_engine::bytes::Bytes;
use ir_engine::error::Result;
use ir_engine::file::{ModelFile, PushReader, Table};
use ir_engine::meta::{Kind, Value};

use super::random::Random;
use super::watch;

/// Reads all that the library can say about a file. What it returns only has to exist.
fn exercise(bytes: &Bytes) -> Result<ModelFile> {
    let file = ModelFile::from_bytes(bytes.clone())?;
    let mut sum = 0;
    for (key, value) in file.meta().iter() {
        sum += key.len() as u64 + read(value);
    }
    let meta = file.meta();
    for key in ["general.architecture", "general.alignment", "k.u16", "tokenizer.ggml.tokens", "none"] {
        sum += meta.u32(key).map_or(0, u64::from) + meta.str(key).map_or(0, |s| s.len() as u64);
        sum += meta.array(key).map_or(0, |a| a.len() as u64) + u64::from(meta.opt_bool(key).is_ok());
    }
    for tensor in file.tensors() {
        let data = file.bytes(tensor)?;
        assert_eq!(data.len() as u64, tensor.byte_len());
        assert_eq!(file.tensor(tensor.name()).map(|t| t.name()), Some(tensor.name()));
        sum += u64::from(data.first().copied().unwrap_or(0)) + u64::from(data.last().copied().unwrap_or(0));
        sum += tensor.n_elements() + tensor.dtype().map_or(0, |d| d as u64) + tensor.dims().len() as u64;
    }
    std::hint::black_box(sum);
    Ok(file)
}

/// Touches a value as every getter sees it.
fn read(value: Value<'_>) -> u64 {
    let plain = value.as_u64().is_some() as u64 + value.as_i64().is_some() as u64 + value.as_f64().is_some() as u64;
    let text = value.as_bytes().map_or(0, |b| b.len() as u64) + value.as_str().map_or(0, |s| s.len() as u64);
    let Some(array) = value.as_array() else { return plain + text + u64::from(value.as_bool() == Some(true)) };
    let n: u64 =
        array.iter().map(|v| if v.kind() == Kind::Array { read(v) } else { v.as_u64().unwrap_or(1) & 1 }).sum();
    assert_eq!(array.iter().count(), array.len(), "an array holds what it says");
    n
}

/// The file in pieces of random sizes; its tensors' bytes are compared with `whole`'s.
fn push(bytes: &Bytes, whole: Option<&ModelFile>, random: &mut Random) -> Result<std::sync::Arc<Table>> {
    let total = bytes.len() as u64;
    let mut reader = PushReader::new(total);
    let mut placed = 0;
    let mut at = 0;
    let scale = 1 + random.below(bytes.len());
    while at < bytes.len() {
        let end = bytes.len().min(at + 1 + random.below(scale));
        reader.feed(at as u64, &bytes[at..end], &mut |_, piece| {
            if let Some(file) = whole {
                let tensor = &file.tensors()[piece.tensor];
                let from = (tensor.offset() + piece.offset) as usize;
                assert_eq!(piece.bytes, &bytes[from..from + piece.bytes.len()]);
            }
            placed += piece.bytes.len() as u64;
            Ok(())
        })?;
        at = end;
    }
    let table = reader.finish()?;
    assert_eq!(placed, table.tensors().iter().map(|t| t.byte_len()).sum::<u64>(), "every byte of a tensor arrives");
    Ok(table)
}

/// The file opens or is refused, whole and in pieces alike, within the limit on allocations: returns whether it opened.
pub(crate) fn check(bytes: Vec<u8>, random: &mut Random) -> bool {
    let limit = 4 * bytes.len() + (64 << 10);
    let bytes = Bytes::from(bytes);
    watch::reset();
    let whole = exercise(&bytes);
    let pushed = push(&bytes, whole.as_ref().ok(), random);
    let largest = watch::largest();
    assert!(largest <= limit, "an allocation of {largest} bytes for a file of {}", bytes.len());
    match (whole, pushed) {
        (Ok(file), Ok(table)) => {
            assert_eq!(file.tensors(), table.tensors());
            assert_eq!(file.meta().len(), table.meta().len());
            true
        }
        (Err(whole), Err(pushed)) => {
            let whole = whole.to_string();
            assert!(whole.len() < 600 && !whole.contains('\n'), "{whole}");
            assert_eq!(whole, pushed.to_string());
            false
        }
        // A part of a split set does not open alone, but can be pushed.
        (Err(whole), Ok(_)) => {
            assert!(whole.to_string().contains("split"), "only whole: {whole}");
            false
        }
        (Ok(_), Err(pushed)) => panic!("only in pieces: {pushed}"),
    }
}
