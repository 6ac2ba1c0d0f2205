//! What the command's tests share: running the built binary, fixtures, reference data.
#![allow(unreachable_pub, reason = "the module of a program is read as one of a library")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// How a run of the command ended.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ran {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    /// Standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|e| panic!("{e}: {} {}", self.text(), self.stderr))
    }

    /// The run, which must have ended well.
    pub fn ok(self) -> Ran {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }
}

/// A command with a home of its own, so that nothing of the user's is seen or changed.
pub fn command(args: &[&str]) -> Command {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("home");
    std::fs::create_dir_all(&home).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ir"));
    command.args(args).env_clear().env("HOME", &home).env("USERPROFILE", &home).current_dir(scratch());
    // Nobody is asked who is not on this machine; at this port nobody answers.
    command.env("HF_ENDPOINT", "http://127.0.0.1:9").env("IR_REGISTRY", "http://127.0.0.1:9");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the command with nothing on standard input.
pub fn ir(args: &[&str]) -> Ran {
    ir_with(args, "")
}

/// Runs the command with a text on standard input.
pub fn ir_with(args: &[&str], stdin: &str) -> Ran {
    let mut child = command(args).spawn().unwrap();
    // A command that never reads closes the pipe: not our business.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    finish(child)
}

/// Waits for a run.
pub fn finish(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A folder for files that tests write.
pub fn scratch() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scratch");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Writes a file that tests read.
pub fn write(name: &str, bytes: &[u8]) -> String {
    let path = scratch().join(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The engine's folder: its fixtures and the built-in model.
pub fn engine() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine")
}

/// The built-in model's file.
pub fn tiny() -> PathBuf {
    engine().join("models/ir-tiny/ir-tiny-q4_0.gguf")
}

/// The built-in model with another chat template and with tokens of other texts, as a file of this name. A token that
/// changes its text is no longer made by merging, but found by itself.
pub fn reworked(name: &str, template: &str, renamed: &[(&str, &str)]) -> String {
    use ir_engine::file::{GgufWriter, ModelFile};
    use ir_engine::meta::MetaBuilder;
    let file = ModelFile::open(&tiny()).unwrap();
    let texts = |key: &str| -> Vec<String> {
        file.meta().array(key).unwrap().iter().map(|t| t.as_str().unwrap().to_owned()).collect()
    };
    let mut tokens = texts("tokenizer.ggml.tokens");
    let kinds = file.meta().array("tokenizer.ggml.token_type").unwrap();
    let mut kinds: Vec<i32> = kinds.iter().map(|kind| kind.as_i64().unwrap() as i32).collect();
    for (token, kind) in tokens.iter_mut().zip(&mut kinds) {
        if let Some((_, new)) = renamed.iter().find(|(old, _)| old == token) {
            // A token of the user's.
            (*token, *kind) = ((*new).to_owned(), 4);
        }
    }
    let makes = |merge: &str, text: &str| merge.replace(' ', "") == text || merge.split(' ').any(|part| part == text);
    let mut merges = texts("tokenizer.ggml.merges");
    merges.retain(|merge| !renamed.iter().any(|(old, _)| makes(merge, old)));
    let [template_key, tokens_key, merges_key, kinds_key] =
        ["chat_template", "ggml.tokens", "ggml.merges", "ggml.token_type"].map(|key| format!("tokenizer.{key}"));
    let replaced = [&template_key, &tokens_key, &merges_key, &kinds_key];
    let mut meta = MetaBuilder::new();
    for (key, value) in file.meta().iter().filter(|(key, _)| !replaced.iter().any(|r| **r == **key)) {
        meta = meta.value(&key, value);
    }
    meta = meta.strs(&tokens_key, &tokens).strs(&merges_key, &merges).i32s(&kinds_key, &kinds);
    meta = meta.str(&template_key, template);
    let mut writer = GgufWriter::new(meta).unwrap();
    for tensor in file.tensors() {
        writer.tensor(tensor.name(), tensor.dims(), tensor.dtype().unwrap()).unwrap();
    }
    let mut bytes = Vec::new();
    writer.write(&mut bytes, &mut |i| file.bytes(&file.tensors()[i]).unwrap().to_vec()).unwrap();
    write(name, &bytes)
}

/// Says what a test did not show, and why: past the capture of a test's output, for everybody to see.
pub fn skipped(why: impl std::fmt::Display) {
    let thread = std::thread::current();
    // Where nobody reads it, nothing is lost.
    let _ = writeln!(std::io::stderr(), "skipped: {}: {why}", thread.name().unwrap_or("a test"));
}

/// Reference data (`IR_SHARED`, else beside the project), or `None` ([`skipped`]) where this machine has none.
pub fn shared(path: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let found = std::env::var_os("IR_SHARED").map_or(beside, PathBuf::from).join(path);
    if !found.exists() {
        skipped(format_args!("{} is not on this machine", found.display()));
        return None;
    }
    Some(found)
}

/// A JSON file.
pub fn read_json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Rows, columns and values of a float32 `.npy` file.
pub fn npy(path: &Path) -> (usize, usize, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8_lossy(&bytes[10..end]).into_owned();
    assert!(header.contains("'<f4'") && header.contains("'fortran_order': False"), "{header}");
    let shape = header.split('(').nth(1).unwrap().split(')').next().unwrap();
    let shape: Vec<usize> = shape.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    let values = bytes[end..].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    (shape[0], shape[1], values)
}
