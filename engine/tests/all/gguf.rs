//! The GGUF reader against the writer: what is written is read, whole, split or in pieces, and what is wrong is refused.

use std::path::PathBuf;
use std::sync::Arc;

use ir_engine::bytes::Bytes;
use ir_engine::dtype::DType;
use ir_engine::error::Result;
use ir_engine::file::{GgufWriter, ModelFile, Placement, PushReader, Table};
use ir_engine::meta::MetaBuilder;

fn meta() -> MetaBuilder {
    MetaBuilder::new()
        .str("general.architecture", "llama")
        .u32("llama.block_count", 2)
        .f32("llama.rope.freq_base", 10_000.0)
        .strs("tokenizer.ggml.tokens", &["<s>", "a", "▁b"])
        .i32s("tokenizer.ggml.token_type", &[3, 1, 1])
}

const SHAPES: &[(&str, &[u64], DType)] = &[
    ("token_embd.weight", &[256, 3], DType::Q8_0),
    ("blk.0.attn_norm.weight", &[256], DType::F32),
    ("blk.0.attn_q.weight", &[256, 4, 1, 2], DType::Q4_K),
    ("scalar", &[], DType::F32),
    ("output.weight", &[7, 3], DType::BF16),
];

fn writer(meta: MetaBuilder) -> GgufWriter {
    let mut writer = GgufWriter::new(meta).unwrap();
    for (name, dims, dtype) in SHAPES {
        writer.tensor(name, dims, *dtype).unwrap();
    }
    writer
}

/// Bytes that tell tensors and places apart.
fn data(index: usize) -> Vec<u8> {
    let (_, dims, dtype) = SHAPES[index];
    let len = dtype.bytes_for(dims.iter().product::<u64>() as usize).unwrap();
    (0..len).map(|i| (i * 7 + index * 31) as u8).collect()
}

fn to_vec(writer: &GgufWriter) -> Vec<u8> {
    let mut out = Vec::new();
    writer.write(&mut out, &mut data).unwrap();
    assert_eq!(out.len() as u64, writer.byte_len());
    out
}

fn check_contents(file: &ModelFile) {
    assert_eq!(file.meta().arch().unwrap(), "llama");
    assert_eq!(file.meta().array("tokenizer.ggml.tokens").unwrap().len(), 3);
    assert_eq!(file.tensors().len(), SHAPES.len());
    for (i, (name, dims, dtype)) in SHAPES.iter().enumerate() {
        let tensor = file.tensor(name).unwrap();
        assert_eq!((tensor.dims(), tensor.dtype().unwrap()), (*dims, *dtype));
        assert_eq!(tensor.n_elements(), dims.iter().product::<u64>());
        assert_eq!(file.bytes(tensor).unwrap()[..], data(i)[..], "{name}");
    }
    assert!(file.tensor("token_embd").is_none());
}

#[test]
fn what_is_written_is_read() {
    for version in [2, 3] {
        for alignment in [None, Some(1), Some(8), Some(4096)] {
            let meta = match alignment {
                Some(a) => meta().u32("general.alignment", a),
                None => meta(),
            };
            let file = ModelFile::from_bytes(to_vec(&writer(meta).version(version)).into()).unwrap();
            assert_eq!(file.table().version(), version);
            check_contents(&file);
        }
    }
}

#[test]
fn a_vocabulary_alone_opens() {
    let mut bytes = GgufWriter::new(meta()).unwrap().header();
    // The padding at the end belongs to tensor data, of which there is none.
    while bytes.last() == Some(&0) && ModelFile::from_bytes(bytes[..bytes.len() - 1].to_vec().into()).is_ok() {
        bytes.pop();
    }
    let file = ModelFile::from_bytes(bytes.into()).unwrap();
    assert!(file.tensors().is_empty());
    assert_eq!(file.meta().u32("llama.block_count").unwrap(), 2);
}

/// Feeds a file in chunks of these sizes, over and over, and puts its tensors together again.
fn push(bytes: &[u8], sizes: &[usize]) -> Result<(Vec<String>, Vec<Vec<u8>>)> {
    let mut reader = PushReader::new(bytes.len() as u64);
    let mut tensors: Vec<Vec<u8>> = Vec::new();
    let mut at = 0;
    for size in sizes.iter().cycle() {
        let end = bytes.len().min(at + size);
        reader.feed(at as u64, &bytes[at..end], &mut |_, piece| {
            tensors.resize(tensors.len().max(piece.tensor + 1), Vec::new());
            assert_eq!(tensors[piece.tensor].len() as u64, piece.offset, "pieces come in order");
            tensors[piece.tensor].extend(piece.bytes);
            Ok(())
        })?;
        at = end;
        assert_eq!(reader.missing(), (bytes.len() - at) as u64);
        if at == bytes.len() {
            break;
        }
    }
    let table = reader.finish()?;
    Ok((table.tensors().iter().map(|t| t.name().to_owned()).collect(), tensors))
}

#[test]
fn a_file_in_pieces_is_the_file() {
    let bytes = to_vec(&writer(meta()));
    for sizes in [&[1][..], &[2, 3, 5, 7, 11, 13], &[64], &[1000], &[usize::MAX / 2]] {
        let (names, tensors) = push(&bytes, sizes).unwrap();
        assert!(names.iter().eq(SHAPES.iter().map(|s| s.0)), "{names:?}");
        for (i, tensor) in tensors.iter().enumerate() {
            assert_eq!(*tensor, data(i), "chunks {sizes:?}, tensor {i}");
        }
        assert_eq!(tensors.len(), SHAPES.len());
    }
}

#[test]
fn a_feed_repeats_but_never_skips() {
    let bytes = to_vec(&writer(meta()));
    let mut reader = PushReader::new(bytes.len() as u64);
    let mut n = 0;
    let mut count = |_: &Arc<Table>, piece: Placement<'_>| {
        n += piece.bytes.len();
        Ok(())
    };
    let half = bytes.len() / 2;
    reader.feed(0, &bytes[..half], &mut count).unwrap();
    assert_eq!(reader.position(), half as u64);
    assert_eq!(reader.table().unwrap().tensors().len(), SHAPES.len());
    reader.feed(0, &bytes[..half], &mut |_, _| panic!("these bytes were handed on before")).unwrap();
    reader.feed(10, &bytes[10..half + 10], &mut count).unwrap();
    let error = reader.feed(half as u64 + 11, &bytes[half + 11..], &mut |_, _| Ok(())).unwrap_err();
    assert!(error.to_string().contains("are due"), "{error}");
    assert!(reader.feed(half as u64 + 10, &bytes[half + 10..], &mut |_, _| Ok(())).is_err());
    assert!(n > 0);
    let mut reader = PushReader::new(bytes.len() as u64 - 1);
    assert!(reader.feed(0, &bytes, &mut |_, _| Ok(())).unwrap_err().to_string().contains("more bytes"));
    let mut reader = PushReader::new(bytes.len() as u64);
    reader.feed(0, &bytes[..half], &mut |_, _| Ok(())).unwrap();
    let error = reader.finish().unwrap_err().to_string();
    assert!(error.contains(&format!("{} of its {} bytes are missing", bytes.len() - half, bytes.len())), "{error}");
    assert!(PushReader::new(0).finish().unwrap_err().to_string().contains("empty"));
}

/// More than 32 bits of file, none of which is held.
#[test]
fn a_file_above_4_gib_is_pushed_through() {
    const GIB: u64 = 1 << 30;
    let mut writer = GgufWriter::new(meta()).unwrap();
    for i in 0..3 {
        writer.tensor(&format!("blk.{i}.ffn_up.weight"), &[GIB / 64, 64], DType::F16).unwrap();
    }
    let header = writer.header();
    let mut reader = PushReader::new(writer.byte_len());
    let mut filled = [0u64; 3];
    reader.feed(0, &header, &mut |_, _| Ok(())).unwrap();
    let chunk = vec![0; 32 << 20];
    while reader.missing() > 0 {
        let n = reader.missing().min(chunk.len() as u64) as usize;
        reader
            .feed(reader.position(), &chunk[..n], &mut |_, piece| {
                assert_eq!(piece.offset, filled[piece.tensor]);
                filled[piece.tensor] += piece.bytes.len() as u64;
                Ok(())
            })
            .unwrap();
    }
    assert!(reader.position() > 6 * GIB);
    assert_eq!(filled, [2 * GIB; 3]);
    assert_eq!(reader.finish().unwrap().tensors()[2].byte_len(), 2 * GIB);
}

/// A fresh folder for a test's files.
fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn a_split_set_opens_by_any_part() {
    let folder = folder("split");
    let mut paths = Vec::new();
    for (i, part) in writer(meta()).split(3).iter().enumerate() {
        let path = folder.join(format!("m-{:05}-of-00003.gguf", i + 1));
        part.write(&mut std::fs::File::create(&path).unwrap(), &mut data).unwrap();
        paths.push(path);
    }
    for path in &paths {
        let file = ModelFile::open(path).unwrap();
        check_contents(&file);
        assert_eq!(file.parts().len(), 3);
        check_contents(&ModelFile::read(path).unwrap());
    }
    let parts: Vec<Bytes> = paths.iter().map(|p| Bytes::read(p).unwrap()).collect();
    check_contents(&ModelFile::from_parts(parts.clone()).unwrap());
    let refused = |parts: &[&Bytes], what: &str| {
        let parts = parts.iter().map(|b| (*b).clone()).collect();
        let error = ModelFile::from_parts(parts).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    };
    refused(&[&parts[0]], "part 1 of 3");
    refused(&[&parts[0], &parts[2], &parts[1]], "mixed up");
    refused(&[], "at least one");
    std::fs::rename(&paths[1], folder.join("other.gguf")).unwrap();
    let error = ModelFile::open(&paths[0]).unwrap_err().to_string();
    assert!(error.contains("part 2 of 3 is missing") && error.contains("m-00002-of-00003.gguf"), "{error}");
    let error = ModelFile::open(&folder.join("other.gguf")).unwrap_err().to_string();
    assert!(error.contains("-00002-of-00003.gguf"), "{error}");
}

/// A version 3 header of these counts, then these bytes.
fn raw(n_tensors: u64, n_pairs: u64, rest: &[&[u8]]) -> Vec<u8> {
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend(n_tensors.to_le_bytes());
    out.extend(n_pairs.to_le_bytes());
    out.extend(rest.concat());
    out
}

/// A table entry.
fn entry(name: &str, dims: &[u64], type_id: u32, offset: u64) -> Vec<u8> {
    let mut out = (name.len() as u64).to_le_bytes().to_vec();
    out.extend(name.as_bytes());
    out.extend((dims.len() as u32).to_le_bytes());
    out.extend(dims.iter().flat_map(|d| d.to_le_bytes()));
    out.extend(type_id.to_le_bytes());
    out.extend(offset.to_le_bytes());
    out
}

/// Each wrong thing is refused in one sentence that names it.
#[test]
fn what_is_wrong_is_refused() {
    let zeros = [0u8; 4096];
    let one = |e: Vec<u8>| raw(1, 0, &[&e, &zeros]);
    let two = |a: Vec<u8>, b: Vec<u8>| raw(2, 0, &[&a, &b, &zeros]);
    let whole = to_vec(&writer(meta()));
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "empty"),
        (b"GG".to_vec(), "needs at least 24 bytes, but the file has 2"),
        (b"GGUF\x03\0\0\0".to_vec(), "download it again"),
        (b"GGUF\x01\0\0\0".to_vec(), "version 1"),
        (b"GGUF\0\0\0\x03".to_vec(), "big-endian"),
        (b"GGUF\x04\0\0\0".to_vec(), "version 4"),
        (b"GGUF\0\0\0\0".to_vec(), "version 0"),
        (b"Once upon a time\n".to_vec(), "text file"),
        ("é".repeat(400).into_bytes(), "text file"),
        (b"<!DOCTYPE html><html>".to_vec(), "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "git lfs pull"),
        (b"PK\x03\x04rest".to_vec(), "zip"),
        (b"\x80\x02}q".to_vec(), "pickle"),
        (b"\x10\0\0\0\0\0\0\0{\"a\":1}".to_vec(), "safetensors"),
        (zeros.to_vec(), "zeros"),
        (b"\x7fELF\x02\x01".to_vec(), "does not start with the letters GGUF"),
        (raw(u64::MAX, 0, &[]), "18446744073709551615 tensors"),
        (raw(1 << 24, 0, &[]), "damaged or cut short"),
        (raw(0, u64::MAX, &[]), "damaged or cut short"),
        (raw(0, 1, &[&u64::MAX.to_le_bytes(), b"x"]), "key"),
        (raw(0, 1, &[&1u64.to_le_bytes(), b"k", &13u32.to_le_bytes()]), "unknown type 13"),
        (raw(0, 1, &[&1u64.to_le_bytes(), b"k", &8u32.to_le_bytes(), &(u64::MAX - 3).to_le_bytes()]), "overflow"),
        (raw(0, 1, &[&1u64.to_le_bytes(), b"k", &8u32.to_le_bytes(), &(1u64 << 40).to_le_bytes()]), "cut short"),
        (GgufWriter::new(MetaBuilder::new()).unwrap().header()[..24].to_vec(), ""),
        // The last 22 bytes of the file are padding.
        (whole[..whole.len() - 100].to_vec(), "78 bytes are missing"),
        (one(entry("w", &[4096, 2], 0, 0)), "bytes are missing"),
        (one(entry("w", &[8], 0, 31)), "no multiple of 32"),
        (one(entry("w", &[8], 0, u64::MAX - 31)), "overflow"),
        (one(entry("w", &[8, 0], 0, 0)), "dimension of 0"),
        (one(entry("w", &[1 << 32, 1 << 32], 0, 0)), "overflow"),
        (one(entry("w", &[1 << 62], 0, 0)), "overflow"),
        (one(entry("w", &[1, 1, 1, 1, 1], 0, 0)), "5 dimensions"),
        (one(entry("w", &[33], 8, 0)), "Q8_0 needs a multiple of 32"),
        (one(entry("w", &[128], 0x1_0000, 0)), "type id 65536, which no GGUF file can have"),
        (one(entry(&"n".repeat(1025), &[8], 0, 0)), "1025 bytes long"),
        (two(entry("w", &[8], 0, 0), entry("w", &[8], 0, 32)), "two tensors are named \"w\""),
        (two(entry("a", &[16], 0, 0), entry("b", &[8], 0, 32)), "overlap"),
        (two(entry("a", &[8], 0, 0), entry("b", &[8], 99, 0)), "overlap"),
    ];
    for (bytes, what) in &cases {
        let opened = ModelFile::from_bytes(bytes.clone().into());
        if what.is_empty() {
            opened.unwrap();
            continue;
        }
        let error = opened.unwrap_err().to_string();
        assert!(error.contains(what), "{what:?} is not in {error:?}");
        assert!(!error.contains('\n') && error.len() < 300, "{error}");
        let pushed = push(bytes, &[5]).unwrap_err().to_string();
        assert_eq!(pushed, error, "in pieces the answer is the same");
    }
    for alignment in [0u32, 3, 1 << 21] {
        assert!(GgufWriter::new(meta().u32("general.alignment", alignment)).is_err());
    }
}

/// A type that this version cannot read does not keep the file from opening: the error comes with the tensor.
#[test]
fn unsupported_types_are_named_when_used() {
    let entries =
        [entry("a", &[32], 8, 0), entry("b", &[256], 9, 64), entry("c", &[8], 4, 256), entry("d", &[8], 77, 320)];
    let header = raw(4, 0, &[&entries.concat()]);
    let data = header.len().next_multiple_of(32);
    let mut bytes = header;
    bytes.resize(data + 400, 0);
    let file = ModelFile::from_bytes(bytes.into()).unwrap();
    let tensor = |name| file.tensor(name).unwrap();
    assert_eq!(tensor("a").dtype().unwrap(), DType::Q8_0);
    for (name, what, len) in [("b", "Q8_1", 192), ("c", "removed", 64), ("d", "77", 80)] {
        let error = tensor(name).dtype().unwrap_err().to_string();
        assert!(error.contains(what) && error.contains(&format!("tensor \"{name}\"")), "{error}");
        assert_eq!(tensor(name).byte_len(), len);
        assert_eq!(file.bytes(tensor(name)).unwrap().len() as u64, len);
    }
}

#[test]
fn paths_that_are_no_files_are_refused() {
    let folder = folder("paths");
    for open in [ModelFile::open, ModelFile::read] {
        let error = open(&folder).unwrap_err().to_string();
        assert!(error.contains("is a directory") && error.contains(".gguf"), "{error}");
        let error = open(&folder.join("none.gguf")).unwrap_err().to_string();
        assert!(error.contains("none.gguf") && error.contains("cannot open"), "{error}");
        let text = folder.join("notes.gguf");
        std::fs::write(&text, "hello\n").unwrap();
        let error = open(&text).unwrap_err().to_string();
        assert!(error.contains("notes.gguf: this is a text file"), "{error}");
        std::fs::write(&text, "").unwrap();
        assert!(open(&text).unwrap_err().to_string().contains("empty"));
    }
}
