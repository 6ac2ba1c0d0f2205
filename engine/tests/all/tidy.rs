//! House rules that a compiler does not check: layers, sizes, headers, and the places an op lives in.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ir_engine::dtype::DType;
use ir_engine::plan::OpKind;

/// The modules of the engine, lowest first. A module uses only lower ones, never its own level's others.
const LAYERS: &[&[&str]] = &[
    &["error", "dtype", "quant", "bytes", "meta"],
    &["file", "text", "builtin"],
    &["plan", "folder"],
    &["adapter"],
    &["model", "cpu", "gpu"],
    &["device", "convert"],
    &["run", "check"],
    &["load"],
    &["lib"],
];

/// At the bottom, who uses whom is spelled out instead.
const BOTTOM: &[(&str, &str)] = &[("bytes", "error"), ("dtype", "quant"), ("meta", "error"), ("meta", "bytes")];

/// Lines a source file may have, about; a file that is a list of like items says so with [`LIST`] in its header.
const MAX_LINES: usize = 420;
const LIST: &str = "//! A list:";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All files below `dir` with one of these endings, build products and data left out.
fn files(dir: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(dir) else { return found };
    for path in entries.map(|e| e.unwrap().path()) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["target", "node_modules", "data", "dist", "pkg"].contains(&name.as_str()) && !name.starts_with('.') {
                found.extend(files(&path, endings));
            }
        } else if endings.iter().any(|e| name.ends_with(e)) {
            found.push(path);
        }
    }
    found
}

fn sources() -> Vec<(PathBuf, String)> {
    let all = files(&root(), &[".rs", ".wgsl"]);
    assert!(all.len() > 40, "the sources were not found");
    all.into_iter().map(|p| (p.clone(), std::fs::read_to_string(p).unwrap())).collect()
}

fn short(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

fn report(kind: &str, faults: Vec<String>) {
    assert!(faults.is_empty(), "{kind}:\n  {}", faults.join("\n  "));
}

/// Crate paths named in a line: `crate::x` gives `x`.
fn used_modules(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(""))
}

#[test]
fn lower_layers_never_use_upper_ones() {
    let level = |module: &str| LAYERS.iter().position(|l| l.contains(&module));
    let src = root().join("engine/src");
    let mut faults = Vec::new();
    for path in files(&src, &[".rs"]) {
        let inside = path.strip_prefix(&src).unwrap();
        let module = inside.components().next().unwrap().as_os_str().to_string_lossy().replace(".rs", "");
        let Some(mine) = level(&module) else {
            faults.push(format!("{}: module {module} has no layer", short(&path)));
            continue;
        };
        let text = std::fs::read_to_string(&path).unwrap();
        for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//")) {
            for used in used_modules(line).filter(|u| *u != module) {
                let allowed = match level(used) {
                    Some(0) if mine == 0 => BOTTOM.contains(&(module.as_str(), used)),
                    Some(theirs) => theirs < mine,
                    None => module == "lib",
                };
                if !allowed {
                    faults.push(format!("{}:{}: {module} uses {used}", short(&path), i + 1));
                }
            }
        }
    }
    report("layer direction", faults);
}

#[test]
fn crates_use_only_what_the_design_gives_them() {
    let forbidden: &[(&str, &[&str])] = &[
        ("shaders", &["wgpu", "ir-engine"]),
        ("simd", &["ir-engine", "wgpu"]),
        ("engine", &["axum", "clap", "tokio", "web-sys"]),
        ("server", &["clap", "wgpu"]),
        ("server/store", &["axum", "clap", "wgpu", "ir-server"]),
        ("native-cli", &["wgpu"]),
        ("web", &["ir-server", "memmap2"]),
    ];
    let mut faults = Vec::new();
    for (name, never) in forbidden {
        let manifest = std::fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        for word in *never {
            if manifest.lines().any(|l| l.starts_with(word) && !l[word.len()..].starts_with(['-', '_'])) {
                faults.push(format!("{name} depends on {word}"));
            }
        }
    }
    report("dependencies", faults);
}

#[test]
fn files_are_small_and_say_what_they_hold() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        if lines > MAX_LINES && !text.lines().take(12).any(|l| l.starts_with(LIST)) {
            faults.push(format!("{}: {lines} lines, more than {MAX_LINES}", short(&path)));
        }
        let header = if path.extension().is_some_and(|e| e == "wgsl") { "//" } else { "//!" };
        if !text.starts_with(header) {
            faults.push(format!("{}: no header that says what it holds", short(&path)));
        }
    }
    report("file rules", faults);
}

/// Lines of code in `engine/src/model`, all families in it: comments and empty lines are not counted.
const MODEL_LINES: usize = 4500;

#[test]
fn families_are_values_and_little_code() {
    let count = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(str::trim_start).filter(|l| !l.is_empty() && !l.starts_with("//")).count()
    };
    let lines: usize = files(&root().join("engine/src/model"), &[".rs"]).iter().map(count).sum();
    assert!(
        (1000..MODEL_LINES).contains(&lines),
        "{lines} lines of code in engine/src/model, of {MODEL_LINES} at most"
    );
}

#[test]
fn unsafe_code_stays_in_its_places() {
    let allowed = [
        "simd/src/",
        "engine/src/cpu/pool/",
        "engine/src/bytes/",
        "engine/src/gpu/experimental.rs",
        "engine/src/gpu/heaps.rs",
        "engine/src/gpu/kernels.rs",
        "engine/src/gpu/pipelines.rs",
        "web/src/alloc.rs",
    ];
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let path = short(&path);
        let test = path.contains("/tests/") || path.contains("/fuzz/");
        if !test && !allowed.iter().any(|a| path.starts_with(a)) && text.contains("allow(unsafe_code") {
            faults.push(path);
        }
    }
    report("unsafe code outside its places", faults);
}

/// Ops whose case in the exam is made through another op's builder are found by their variant's name.
#[test]
fn every_op_is_in_its_places() {
    let exam = files(&root().join("engine/tests/all/common"), &[".rs"]);
    let exam: String = exam.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let shaders = files(&root().join("shaders/kernels"), &[".wgsl"]);
    let shaders: Vec<String> = shaders.iter().map(|p| p.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    let mut faults = Vec::new();
    for op in OpKind::ALL {
        let kernel = root().join(format!("engine/src/cpu/kernels/{}.rs", op.name()));
        match std::fs::read_to_string(&kernel) {
            Err(_) => faults.push(format!("{}: no scalar kernel {}", op.name(), short(&kernel))),
            Ok(text) if !text.contains(&format!("pub fn {}(", op.name())) => {
                faults.push(format!("{}: no function of that name in {}", op.name(), short(&kernel)));
            }
            Ok(_) => {}
        }
        let of_op = |shader: &String| shader == op.name() || shader.starts_with(&format!("{}_", op.name()));
        if !shaders.iter().any(of_op) {
            faults.push(format!("{}: no shader of that name", op.name()));
        }
        if !exam.contains(&format!("OpKind::{op:?}")) {
            faults.push(format!("{}: no case in the exam", op.name()));
        }
    }
    let names: BTreeSet<_> = OpKind::ALL.iter().map(|op| op.name()).collect();
    for path in files(&root().join("engine/src/cpu/kernels"), &[".rs"]) {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        // What happens behind a product has a kernel of its own and is no op by itself.
        if !["mod", "heads"].contains(&name.as_str()) && !names.contains(name.as_str()) {
            faults.push(format!("{} is no op's kernel", short(&path)));
        }
    }
    report("an op and its places", faults);
}

/// Patterns of a plan's types in `text` that leave fields out with `..`: a device that matches so would pass over a field
/// that is new, and compute something else than the op says.
fn patterns_with_fields_left_out(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for name in ["Op::", "Epilogue::", "Norm ", "Heads ", "Gated ", "Prologue "] {
        for (at, _) in text.match_indices(name) {
            let before = text[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let rest = &text[at..];
            let head = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
            let Some(fields) = rest[head..].strip_prefix(" {") else { continue };
            let fields = &fields[..fields.find('}').unwrap_or(fields.len())];
            if fields.trim_end().trim_end_matches(',').ends_with("..") {
                found.push(format!("{} {{{fields}}}", &rest[..head]));
            }
        }
    }
    found
}

#[test]
fn devices_name_every_field_of_an_op() {
    assert_eq!(patterns_with_fields_left_out("match op { Op::Add { x, y, factor } => 1 }").len(), 0);
    assert_eq!(patterns_with_fields_left_out("match op { Op::Add { x, .. } => 1 }").len(), 1);
    assert_eq!(patterns_with_fields_left_out("let Gated { act,\n .. } = gated;").len(), 1);
    let mut faults = Vec::new();
    for path in ["engine/src/cpu", "engine/src/gpu"].iter().flat_map(|dir| files(&root().join(dir), &[".rs"])) {
        for pattern in patterns_with_fields_left_out(&std::fs::read_to_string(&path).unwrap()) {
            faults.push(format!("{}: {pattern}", short(&path)));
        }
    }
    report("fields of ops that a device leaves out", faults);
}

/// A block type is known by its row alone: no other code asks which one it is. The types' own files may spell it (decoders,
/// WGSL snippets, and the loops that are all in `formats.rs`, `eights.rs` and `grids.rs`), and so may tests, comments, and the help of the command.
#[test]
fn block_types_are_spelled_in_the_table_alone() {
    const OWN: &[&str] = &[
        "simd/src/quant/",
        "simd/src/formats.rs",
        "simd/src/eights.rs",
        "simd/src/grids.rs",
        "shaders/lib/dequant_",
        "server/store/src/quant.rs",
        "native-cli/src/args.rs",
        "native-cli/src/quantize.rs",
    ];
    let types: Vec<DType> = DType::ALL.iter().copied().filter(|dtype| !dtype.is_plain()).collect();
    assert!(types.len() >= 10, "only {} block types", types.len());
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let path = short(&path);
        let test = path.contains("/tests") || path.contains("/fuzz/") || path.ends_with("/exam.rs");
        if test || OWN.iter().any(|own| path.starts_with(own)) {
            continue;
        }
        let any_case = path.starts_with("engine/") || path.starts_with("simd/") || path.starts_with("shaders/");
        let code = text.split("#[cfg(test)]\nmod").next().unwrap_or_default();
        for (i, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap_or_default();
            for word in line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
                let is = |dtype: &&DType| word == dtype.name() || any_case && dtype.name().eq_ignore_ascii_case(word);
                // Files of models are named after their types.
                if let Some(dtype) = types.iter().find(is).filter(|_| !line.contains(&format!("{word}.gguf"))) {
                    faults.push(format!("{path}:{}: {dtype} is spelled outside the table", i + 1));
                }
            }
        }
    }
    for dtype in DType::ALL {
        let snippet = format!("shaders/lib/dequant_{}.wgsl", dtype.traits().feature);
        if !root().join(&snippet).exists() {
            faults.push(format!("{dtype} has no {snippet}"));
        }
    }
    report("block types", faults);
}

#[test]
fn exceptions_carry_reasons_and_nothing_is_left_open() {
    let mut faults = Vec::new();
    let open = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("todo", "!("), concat!("unimplemented", "!(")];
    for (path, text) in sources() {
        for (i, line) in text.lines().enumerate() {
            if open.iter().any(|word| line.contains(word)) {
                faults.push(format!("{}:{}: left open", short(&path), i + 1));
            }
        }
    }
    report("placeholders", faults);
}
