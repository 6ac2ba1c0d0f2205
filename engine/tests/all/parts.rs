//! The parts of a split model, pushed in pieces: the same engine as from one file, with parts given in any order and pieces of
//! any size; what is missing, doubled, mixed up or of another model is refused by a sentence that names the file.

use ir_engine::Loader;
use ir_engine::builtin;
use ir_engine::bytes::Bytes;
use ir_engine::device::Device;
use ir_engine::error::Result;
use ir_engine::file::{GgufWriter, ModelFile};
use ir_engine::run::Engine;

use crate::loading::{cpu, golden, options, rewritten, tokens, whole};

/// A file with its name.
type Part = (String, Vec<u8>);

/// The model in parts of so many tensors.
fn parts(bytes: &Bytes, stem: &str, shares: &[usize]) -> Vec<Part> {
    let (writer, data) = rewritten(&ModelFile::from_bytes(bytes.clone()).unwrap(), 0);
    let written = |writer: &GgufWriter| {
        let mut out = Vec::new();
        writer.write(&mut out, &mut |i| data[i].clone()).unwrap();
        out
    };
    let n = shares.len();
    let all = writer.into_parts(shares);
    all.iter().enumerate().map(|(i, part)| (format!("{stem}-{:05}-of-{n:05}.gguf", i + 1), written(part))).collect()
}

fn loader(parts: &[Part], device: &Device) -> Loader {
    Loader::of_parts(parts.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect(), device, &options())
}

/// Feeds what is due in pieces of these sizes, over and over.
fn fed(parts: &[Part], device: &Device, sizes: &[usize]) -> Result<Engine> {
    let mut loader = loader(parts, device);
    let mut sizes = sizes.iter().cycle();
    while let (Some((file, offset)), Some(size)) = (loader.due(), sizes.next()) {
        let rest = &parts[file].1[offset as usize..];
        if rest.is_empty() {
            break;
        }
        loader.feed_part(file, offset, &rest[..rest.len().min(*size)])?;
    }
    loader.finish()
}

/// Shares for a model: the tensors are as many as `parts` needs them to be.
fn shares(bytes: &Bytes) -> [Vec<usize>; 2] {
    let n = ModelFile::from_bytes(bytes.clone()).unwrap().tensors().len();
    // The first part may have the metadata alone.
    [vec![n / 2, 1, n - n / 2 - 1], vec![0, n - 3, 3]]
}

fn same_engine(device: &Device, golden_sizes: &[&[usize]]) {
    for (bytes, sizes) in [(golden("llama3"), golden_sizes), (builtin::bytes(), &[&[100_003][..]])] {
        let want = tokens(&mut whole(&bytes, device));
        for shares in shares(&bytes) {
            let mut parts = parts(&bytes, "fox", &shares);
            for (i, sizes) in sizes.iter().enumerate() {
                parts.rotate_left(i % 3);
                assert_eq!(tokens(&mut fed(&parts, device, sizes).unwrap()), want, "{shares:?} in pieces of {sizes:?}");
            }
        }
    }
}

#[test]
fn parts_in_pieces_make_the_same_engine_on_the_cpu() {
    same_engine(&cpu(), &[&[1, 2, 3, 5, 8, 4096], &[64], &[1 << 30]]);
}

#[test]
#[cfg(feature = "gpu")]
fn parts_in_pieces_make_the_same_engine_on_a_gpu() {
    if let Some(device) = crate::loading::gpu(None) {
        same_engine(&device, &[&[4096, 77], &[1 << 30]]);
    }
}

#[test]
fn headers_come_first_and_the_model_stands_before_any_data() {
    let bytes = golden("llama3");
    let [shares, _] = shares(&bytes);
    let mut parts = parts(&bytes, "fox", &shares);
    parts.swap(0, 2);
    let mut loader = loader(&parts, &cpu());
    let total: usize = parts.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut seen = Vec::new();
    while loader.model().is_none() {
        let (file, offset) = loader.due().unwrap();
        seen.push(file);
        // All of a part is offered, and what is behind its header is left; of the last, which would be gone on with, a little.
        let rest = &parts[file].1[offset as usize..];
        loader.feed_part(file, offset, &rest[..if file == 2 { 4096.min(rest.len()) } else { rest.len() }]).unwrap();
    }
    seen.dedup();
    assert_eq!(seen, [0, 1, 2], "the headers, as the files were given");
    assert!(loader.missing() > total as u64 / 2, "{} of {total} bytes are missing", loader.missing());
    assert_eq!(loader.context(), Some(128));
    let (file, offset) = loader.due().unwrap();
    assert!(file == 2 && offset > 0, "the data of the first part comes first: {file}");
    let error = loader.feed_part(0, 0, &parts[0].1).unwrap_err().to_string();
    assert!(error.contains("bytes of fox-00003-of-00003.gguf") && error.contains("fox-00001-of-00003.gguf"), "{error}");
    assert!(loader.due().is_none_or(|(file, at)| loader.feed_part(file, at, &[0]).is_err()), "it takes no more");
}

/// What loading these files says.
fn refusal(parts: &[&Part]) -> String {
    let parts: Vec<Part> = parts.iter().map(|part| (*part).clone()).collect();
    fed(&parts, &cpu(), &[4096]).unwrap_err().to_string()
}

#[test]
fn what_is_no_set_is_refused_by_the_name_of_a_file() {
    let bytes = golden("llama3");
    let [shares, others] = shares(&bytes);
    let fox = parts(&bytes, "fox", &shares);
    let owl = parts(&bytes, "owl", &others);
    let two = parts(&bytes, "fox", &[1, others[1] + 2]);
    let named = |(_, bytes): &Part, name: &str| (name.to_owned(), bytes.clone());
    let copy = named(&fox[1], "copy of 2.gguf");
    let wrong = named(&fox[1], "fox-00003-of-00003.gguf");
    let plain = ("plain.gguf".to_owned(), bytes.to_vec());
    let text = ("text.gguf".to_owned(), b"a text and no model, and more of it than a header takes".to_vec());
    let cut = named(&fox[2], "fox-00003-of-00003.gguf");
    let cut = (cut.0, cut.1[..cut.1.len() / 2].to_vec());
    let empty = (fox[2].0.clone(), Vec::new());
    let cases: &[(&[&Part], &[&str])] = &[
        (&[&fox[0], &fox[1]], &["part 3 of 3 is missing: give fox-00003-of-00003.gguf too"]),
        (&[&fox[2], &fox[1]], &["part 1 of 3 is missing: give fox-00001-of-00003.gguf too"]),
        (&[&copy, &fox[2]], &["part 1 of 3 is missing: give all parts together"]),
        (&[&fox[1]], &["part 2 of 3", "give all of them together"]),
        (&[&fox[0], &fox[1], &copy, &fox[2]], &["fox-00002-of-00003.gguf and copy of 2.gguf are both part 2 of 3"]),
        (&[&fox[0], &wrong, &fox[2]], &["fox-00003-of-00003.gguf holds part 2 of 3", "mixed up"]),
        (
            &[&fox[0], &owl[1], &fox[2]],
            &["owl-00002-of-00003.gguf is a part of another model than fox-00001-of-00003.gguf"],
        ),
        (&[&fox[0], &two[1]], &["fox-00002-of-00002.gguf is a part of another model than fox-00001-of-00003.gguf"]),
        (&[&fox[0], &plain, &fox[2]], &["plain.gguf is a whole model"]),
        (&[&fox[0], &text, &fox[2]], &["text.gguf: ", "text file"]),
        (&[&fox[0], &fox[1], &cut], &["fox-00003-of-00003.gguf: the file is cut short"]),
        (&[&fox[0], &fox[1], &empty], &["fox-00003-of-00003.gguf: ", "empty"]),
        (&[], &["at least one file"]),
    ];
    for (parts, words) in cases {
        let error = refusal(parts);
        assert!(words.iter().all(|word| error.contains(word)), "{words:?} are not in {error:?}");
        assert!(!error.contains('\n') && error.len() < 300, "{error}");
    }
    // Parts of the same names whose tensors are not those that the first one counts, or that are there twice.
    let renamed = named(&owl[1], "fox-00002-of-00003.gguf");
    let error = refusal(&[&fox[0], &renamed, &fox[2]]);
    assert!(error.contains("download them again") || error.contains("two tensors are named"), "{error}");
    // A part that ends early after its header came.
    let mut loader = loader(&fox, &cpu());
    while let Some((file, at)) = loader.due().filter(|(file, at)| (*file, *at as usize) != (2, fox[2].1.len() - 40)) {
        let end = if file == 2 { fox[2].1.len() - 40 } else { fox[file].1.len() };
        loader.feed_part(file, at, &fox[file].1[at as usize..end]).unwrap();
    }
    let error = loader.finish().unwrap_err().to_string();
    assert!(error.starts_with("fox-00003-of-00003.gguf: the file is cut short: 40 of its"), "{error}");
}
