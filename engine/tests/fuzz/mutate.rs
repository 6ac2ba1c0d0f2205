//! Seeds of the GGUF fuzz test and the ways they are mutated: bytes anywhere, and the fields that lead a reader astray
//! (counts, lengths, types, dimensions, offsets), found by walking the seed.

use std::ops::Range;

use ir_engine::dtype::DType;
use ir_engine::file::GgufWriter;
use ir_engine::meta::{MetaBuilder, Value};

use super::random::Random;

/// A well-formed file and the places of its telling fields.
pub(crate) struct Seed {
    pub(crate) bytes: Vec<u8>,
    fields: Vec<Range<usize>>,
    /// Where the tensor table ends.
    header_len: usize,
}

/// The files that mutations start from.
pub(crate) fn seeds() -> Vec<Seed> {
    let plain = |meta: MetaBuilder, version, shapes: &[(&str, &[u64], DType)]| {
        let mut writer = GgufWriter::new(meta).unwrap().version(version);
        for (name, dims, dtype) in shapes {
            writer.tensor(name, dims, *dtype).unwrap();
        }
        to_vec(&writer)
    };
    let llama = || MetaBuilder::new().str("general.architecture", "llama").u32("llama.block_count", 1);
    let tokens: Vec<String> = (0..40).map(|i| format!("▁token{i}")).collect();
    let vocabulary = llama()
        .strs("tokenizer.ggml.tokens", &tokens)
        .f32s("tokenizer.ggml.scores", &[-1.0; 40])
        .i32s("tokenizer.ggml.token_type", &[1; 40])
        .strs("tokenizer.ggml.merges", &["a b", "ab c"]);
    let shapes: &[(&str, &[u64], DType)] = &[
        ("token_embd.weight", &[32, 8], DType::Q8_0),
        ("blk.0.attn_norm.weight", &[32], DType::F32),
        ("blk.0.attn_q.weight", &[256, 2], DType::Q4_K),
        ("blk.0.ffn_gate_exps.weight", &[32, 2, 2, 2], DType::Q4_0),
        ("scalar", &[], DType::F16),
    ];
    let mut split = GgufWriter::new(llama()).unwrap();
    split.tensor("a", &[32], DType::F32).unwrap();
    split.tensor("b", &[32], DType::F32).unwrap();
    let golden = include_bytes!("../data/golden/llama3/model-bf16.gguf");
    let mut seeds = vec![
        seed(plain(every_kind(), 3, shapes)),
        seed(plain(every_kind().u32("general.alignment", 64), 2, shapes)),
        seed(plain(vocabulary, 3, &[])),
        seed(plain(llama(), 3, shapes)),
        seed(to_vec(&split.split(2)[0])),
    ];
    // The model's data is long and of no interest here: one short tensor takes its place.
    let real = ir_engine::file::ModelFile::from_bytes(golden.to_vec().into()).unwrap();
    let meta = real.meta().iter().fold(MetaBuilder::new(), |meta, (key, value)| meta.value(&key, value));
    seeds.push(seed(plain(meta, 3, &shapes[..1])));
    seeds
}

fn to_vec(writer: &GgufWriter) -> Vec<u8> {
    let header = writer.header();
    let total = writer.byte_len() as usize;
    let mut bytes = header;
    let data = bytes.len();
    bytes.extend((data..total).map(|i| i as u8));
    bytes
}

/// A value of every kind, arrays of each, and an array of arrays.
fn every_kind() -> MetaBuilder {
    let sizes = [1usize, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];
    let mut pairs = Vec::new();
    let mut add = |key: &str, kind: u32, value: &[u8]| {
        pairs.extend((key.len() as u64).to_le_bytes());
        pairs.extend(key.as_bytes());
        pairs.extend(kind.to_le_bytes());
        pairs.extend(value);
    };
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let array = |kind: u32, n: u64, rest: &[u8]| [&kind.to_le_bytes()[..], &n.to_le_bytes(), rest].concat();
    add("general.architecture", 8, &text("llama"));
    for (kind, size) in sizes.into_iter().enumerate().filter(|(_, size)| *size > 0) {
        add(&format!("k.{kind}"), kind as u32, &[1; 8][..size]);
        add(&format!("a.{kind}"), 9, &array(kind as u32, 3, &[1; 24][..3 * size]));
    }
    add("a.8", 9, &array(8, 2, &[text("x"), text("")].concat()));
    let inner = array(9, 2, &[array(0, 2, &[5, 6]), array(8, 1, &text("deep"))].concat());
    add("a.9", 9, &array(9, 1, &inner));
    let n_pairs = 1 + 2 * 11 + 2;
    let header = [b"GGUF\x03\0\0\0".as_slice(), &[0; 8], &(n_pairs as u64).to_le_bytes(), &pairs].concat();
    let file = ir_engine::file::ModelFile::from_bytes(header.into()).unwrap();
    let copy = |meta: MetaBuilder, (key, value): (std::borrow::Cow<'_, str>, Value<'_>)| meta.value(&key, value);
    file.meta().iter().fold(MetaBuilder::new(), copy)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Walks a well-formed file and notes its fields.
pub(crate) fn seed(bytes: Vec<u8>) -> Seed {
    let mut fields = vec![4..8, 8..16, 16..24];
    let mut at = 24;
    for _ in 0..u64_at(&bytes, 16) {
        fields.push(at..at + 8);
        at += 8 + u64_at(&bytes, at) as usize;
        fields.push(at..at + 4);
        let kind = u32_at(&bytes, at);
        at = value(&bytes, kind, at + 4, &mut fields);
    }
    for _ in 0..u64_at(&bytes, 8) {
        fields.push(at..at + 8);
        at += 8 + u64_at(&bytes, at) as usize;
        fields.push(at..at + 4);
        let n_dims = u32_at(&bytes, at) as usize;
        at += 4;
        fields.extend((0..n_dims).map(|i| at + 8 * i..at + 8 * i + 8));
        at += 8 * n_dims;
        fields.extend([at..at + 4, at + 4..at + 12]);
        at += 12;
    }
    Seed { bytes, fields, header_len: at }
}

/// Notes the fields of a value and returns its end.
fn value(bytes: &[u8], kind: u32, at: usize, fields: &mut Vec<Range<usize>>) -> usize {
    match kind {
        0 | 1 | 7 => at + 1,
        2 | 3 => at + 2,
        4..=6 => {
            fields.push(at..at + 4);
            at + 4
        }
        8 => {
            fields.push(at..at + 8);
            at + 8 + u64_at(bytes, at) as usize
        }
        9 => {
            fields.extend([at..at + 4, at + 4..at + 12]);
            let (kind, n) = (u32_at(bytes, at), u64_at(bytes, at + 4));
            (0..n).fold(at + 12, |at, _| value(bytes, kind, at, fields))
        }
        _ => at + 8,
    }
}

fn one_of<'a, T>(items: &'a [T], random: &mut Random) -> &'a T {
    &items[random.below(items.len())]
}

/// A seed with one to four things wrong.
pub(crate) fn mutate(seeds: &[Seed], random: &mut Random) -> Vec<u8> {
    let seed = one_of(seeds, random);
    let mut bytes = seed.bytes.clone();
    for _ in 0..1 + random.below(4) {
        match random.below(10) {
            0..=4 => set_field(&mut bytes, seed, random),
            5 | 6 => set_byte(&mut bytes, seed, random),
            7 => resize(&mut bytes, seed, random),
            8 => splice(&mut bytes, one_of(seeds, random), random),
            _ => move_within(&mut bytes, seed, random),
        }
    }
    bytes
}

/// A telling field gets a telling value.
fn set_field(bytes: &mut [u8], seed: &Seed, random: &mut Random) {
    let field = one_of(&seed.fields, random).clone();
    let Some(old) = bytes.get(field.clone()) else { return };
    let mut wide = [0; 8];
    wide[..old.len()].copy_from_slice(old);
    let old = u64::from_le_bytes(wide);
    let len = seed.bytes.len() as u64;
    let telling = [0, 1, 2, 3, 9, 13, 31, 32, 64, 255, 256, 4096, 65_536, 1 << 20, 1 << 24, 1 << 30, 1 << 31, 1 << 32];
    let value = match random.below(8) {
        0 => old.wrapping_add(1),
        1 => old.wrapping_sub(1),
        2 => old ^ 1 << random.below(64),
        3 => len.wrapping_sub(field.end as u64).wrapping_add(random.below(17) as u64).wrapping_sub(8),
        4 => u64::MAX >> random.below(64),
        5 => (1u64 << random.below(64)).wrapping_sub(random.below(3) as u64),
        6 => random.below(48) as u64,
        _ => *one_of(&telling, random),
    };
    let n = field.len();
    bytes[field].copy_from_slice(&value.to_le_bytes()[..n]);
}

fn set_byte(bytes: &mut [u8], seed: &Seed, random: &mut Random) {
    let at = random.below(seed.header_len.min(bytes.len()));
    if let Some(byte) = bytes.get_mut(at) {
        *byte = if random.below(2) == 0 { *byte ^ 1 << random.below(8) } else { random.next() as u8 };
    }
}

/// Cuts the file short, or makes it longer.
fn resize(bytes: &mut Vec<u8>, seed: &Seed, random: &mut Random) {
    match random.below(3) {
        0 => bytes.truncate(random.below(seed.header_len)),
        1 => bytes.truncate(random.below(bytes.len())),
        _ => bytes.resize(bytes.len() + random.below(300), random.next() as u8),
    }
}

/// A piece of another file takes a place in this one.
fn splice(bytes: &mut Vec<u8>, other: &Seed, random: &mut Random) {
    let from = random.below(other.header_len);
    let piece = &other.bytes[from..(from + random.below(200)).min(other.bytes.len())];
    let at = random.below(bytes.len());
    let end = if random.below(2) == 0 { at } else { (at + piece.len()).min(bytes.len()) };
    bytes.splice(at..end, piece.iter().copied());
}

/// A piece is repeated elsewhere, or removed.
fn move_within(bytes: &mut Vec<u8>, seed: &Seed, random: &mut Random) {
    let from = random.below(seed.header_len.min(bytes.len()));
    let end = (from + random.below(100)).min(bytes.len());
    if random.below(2) == 0 {
        bytes.drain(from..end);
    } else {
        let piece = bytes[from..end].to_vec();
        let at = random.below(bytes.len());
        bytes.splice(at..at, piece);
    }
}
