//! What several tests need: the golden fixtures, error measures, a process of their own.
#![allow(unreachable_pub, reason = "the module of a program is read as one of a library")]

pub mod exam;
#[cfg(feature = "gpu")]
pub mod shape_1b;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use ir_engine::model::{Model, ModelOptions};

/// A golden folder: a tiny random model, a prompt and what PyTorch makes of it.
pub struct Golden {
    pub model: Model,
    pub ids: Vec<u32>,
    /// `[ids, vocabulary]`.
    pub logits: Vec<f32>,
    pub greedy: Vec<u32>,
    pub margins: Vec<f32>,
}

impl Golden {
    /// One that belongs to the project.
    pub fn load(name: &str) -> Golden {
        Golden::open(&data().join("golden").join(name))
    }

    pub fn open(dir: &Path) -> Golden {
        Golden::with(dir, Model::open(&dir.join("model-bf16.gguf"), &ModelOptions::default()).unwrap())
    }

    fn json(dir: &Path) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(dir.join("golden.json")).unwrap()).unwrap()
    }

    /// The prompt of a golden folder.
    pub fn prompt(dir: &Path) -> String {
        Golden::json(dir)["prompt"].as_str().unwrap().to_owned()
    }

    /// What PyTorch says in this folder, for another form of its model.
    pub fn with(dir: &Path, model: Model) -> Golden {
        let json = Golden::json(dir);
        let numbers = |key: &str| json[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>();
        Golden {
            model,
            ids: numbers("ids").into_iter().map(|x| x as u32).collect(),
            logits: npy(&dir.join("logits.npy")),
            greedy: numbers("greedy").into_iter().map(|x| x as u32).collect(),
            margins: numbers("greedy_margin").into_iter().map(|x| x as f32).collect(),
        }
    }
}

/// Whether this process runs this one test, `module_path!()` and its function's name; if not, runs it in a process that
/// does, which must pass. For tests that measure their process.
pub fn alone(module: &str, test: &str) -> bool {
    const SAID: &str = "IR_TEST_ALONE";
    if std::env::var_os(SAID).is_some() {
        return true;
    }
    let (_, module) = module.split_once("::").unwrap();
    let name = format!("{module}::{test}");
    let mut command = Command::new(std::env::current_exe().unwrap());
    // What is freed goes back to the system at once: what an allocator keeps of it differs from run to run.
    command.env("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=131072");
    let output = command.args([&name, "--exact", "--nocapture"]).env(SAID, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    println!("{said}\n{complaints}");
    for line in complaints.lines().filter(|line| line.starts_with("skipped: ")) {
        let _ = writeln!(std::io::stderr(), "{line}");
    }
    assert!(output.status.success() && said.contains("1 passed"), "{name} in a process of its own: {}", output.status);
    false
}

/// Whether the long sweeps run (`IR_FULL=1`).
pub fn full() -> bool {
    std::env::var_os("IR_FULL").is_some_and(|full| full == "1")
}

/// Whether bounds on time are asserted: in a full run, on a machine that does nothing else. Without it times are printed.
pub fn timed() -> bool {
    full()
}

/// Seconds that a thing takes on this thread, the best of some runs: of the processor if the system tells them (Linux), so
/// that what else runs on the machine changes little. Those come in steps of some milliseconds.
pub fn seconds(runs: usize, mut run: impl FnMut()) -> f64 {
    let on_processor = || {
        let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        Some(told.split(' ').next()?.parse::<f64>().ok()? * 1e-9)
    };
    let one = |_| {
        let (start, before) = (Instant::now(), on_processor());
        run();
        before.zip(on_processor()).map_or_else(|| start.elapsed().as_secs_f64(), |(before, after)| after - before)
    };
    (0..runs).map(one).fold(f64::INFINITY, f64::min)
}

/// The fixtures that belong to the project.
pub fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
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

/// The values of a float32 `.npy` file (NumPy's format, version 1).
pub fn npy(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let header = u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    assert!(String::from_utf8_lossy(&bytes[10..10 + header]).contains("'<f4'"));
    bytes[10 + header..].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// `|a - b| / |b|` in the L2 norm.
pub fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let distance: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    (distance / b.iter().map(|b| square(f64::from(*b))).sum::<f64>()).sqrt()
}

/// The index of the largest value, the first of equals.
pub fn argmax(row: &[f32]) -> u32 {
    let best =
        row.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (i, x)| if *x > best.1 { (i, *x) } else { best });
    best.0 as u32
}

/// A folder for a test's files, removed at the end.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("ir-test-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}
