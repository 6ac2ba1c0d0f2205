//! `ir bench --against`: this program and llama-bench in turn, fresh processes on the same file, and the ratio pair by pair.

use std::path::{Path, PathBuf};
use std::process::Command;

use ir_store::Place;
use serde_json::{Value as Json, json};

use super::{Test, Work};
use crate::args::{ActivationsChoice, BenchArgs, DeviceChoice, KvChoice, LayersChoice};
use crate::failure::{Failure, Result};
use crate::profile::median;
use crate::term::{self, Out};

/// What a test is run with.
#[derive(Debug, Clone, Copy)]
struct Cell {
    test: Test,
    threads: u16,
    batch: u32,
}

/// llama-bench, and the settings of `--repack` (whether it lays out weights anew) that work; `None` if it has no such flag.
struct Peer {
    path: PathBuf,
    layouts: Vec<Option<bool>>,
    /// The last thing that went wrong.
    failed: Option<String>,
}

/// Runs every test with both, as often as asked for, and prints a line for each.
pub(super) fn against(args: &BenchArgs, peer: &Path, place: &Place, tests: &[Test]) -> Result {
    let file = match place.path() {
        Some(path) => path.to_owned(),
        None => return Err(Failure::usage("--against needs a model that is a file: ir-tiny is built in")),
    };
    if args.parallel.iter().any(|n| *n != 1) {
        return Err(Failure::usage("--against compares one sequence: llama-bench has no --parallel"));
    }
    let mut peer = Peer::new(peer);
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u16);
    let threads = if args.threads.is_empty() { vec![cores] } else { args.threads.clone() };
    let cells = threads.iter().flat_map(|threads| {
        let of = move |batch: &u32| {
            let batch = *batch;
            tests.iter().map(move |test| Cell { test: *test, threads: *threads, batch })
        };
        args.batch.iter().flat_map(of)
    });
    let mut out = Out::new();
    if !args.json {
        out.line("|           test | threads | batch |         ir |  llama-bench | ratio | pair by pair")?;
        out.line("|---------------:|--------:|------:|-----------:|-------------:|------:|-------------")?;
    }
    let mut lines = Vec::new();
    for cell in cells {
        let pairs = pairs(args, &mut peer, &file, cell)?;
        if args.json {
            lines.push(as_json(cell, &pairs, &peer));
        } else {
            out.line(row(cell, &pairs))?;
        }
    }
    if args.json {
        out.json(&lines)?;
    }
    Ok(())
}

/// Tokens per second of both, in turn; the peer's are missing once it could not be run.
fn pairs(args: &BenchArgs, peer: &mut Peer, file: &Path, cell: Cell) -> Result<Vec<(f64, Option<f64>)>> {
    // Which of the peer's layouts is the best one differs by type and test.
    let mut best = (f64::MIN, peer.layouts.first().copied().flatten());
    if peer.layouts.len() > 1 {
        for layout in peer.layouts.clone() {
            best = peer
                .rate(args, file, cell, layout)
                .map_or(best, |rate| if rate > best.0 { (rate, layout) } else { best });
        }
    }
    let mut pairs = Vec::new();
    for _ in 0..args.repetitions {
        let ours = ours(args, file, cell)?;
        pairs.push((ours, peer.rate(args, file, cell, best.1)));
    }
    Ok(pairs)
}

/// This program's rate, in a process of its own.
fn ours(args: &BenchArgs, file: &Path, cell: Cell) -> Result<f64> {
    let program = std::env::current_exe().map_err(|e| Failure::run(format!("this program's own file: {e}")))?;
    let mut command = Command::new(program);
    let (n_prompt, n_gen) = counts(cell.test);
    command.arg("bench").arg(file).args(["-r", "1", "--json", "-p", &n_prompt, "-n", &n_gen]);
    command.args(["-d", &cell.test.depth.to_string(), "-b", &cell.batch.to_string()]);
    command.args(["-t", &cell.threads.to_string(), "--simd", &args.device.simd]);
    command.args(["--device", &args.device.device.to_string()]);
    command.args(["--gpu-layers", &args.device.gpu_layers.to_string()]);
    command.args(["--experts", &args.device.experts.to_string()]);
    command.args(args.device.gpu_memory.iter().flat_map(|gib| ["--gpu-memory".to_owned(), gib.to_string()]));
    let split: Vec<String> = args.device.split.iter().map(f32::to_string).collect();
    command.args((!split.is_empty()).then(|| format!("--split={}", split.join(","))));
    command.args(args.device.gpu_forms.iter().flat_map(|forms| ["--gpu-forms", forms]));
    let activations = match args.device.activations {
        ActivationsChoice::F32 => "f32",
        ActivationsChoice::Quantised => "quantised",
        ActivationsChoice::Bf16 => "bf16",
    };
    command.args(["--activations", activations]);
    command.args(["--kv-type", kv_type(args.device.kv_type)]);
    command.args(args.file.place.no_mmap.then_some("--no-mmap"));
    rate_of(command, "tokens_per_second").map_err(|e| Failure::run(format!("ir bench itself: {e}")))
}

fn counts(test: Test) -> (String, String) {
    match test.work {
        Work::Prompt(n) => (n.to_string(), "0".to_owned()),
        Work::Generate(n, _) => ("0".to_owned(), n.to_string()),
    }
}

/// The name that both programs know.
fn kv_type(kind: KvChoice) -> &'static str {
    match kind {
        KvChoice::F16 => "f16",
        KvChoice::F32 => "f32",
        KvChoice::Blocks8 => "q8_0",
    }
}

/// Runs a program that prints a list with one object, and gives its field.
fn rate_of(mut command: Command, field: &str) -> std::result::Result<f64, String> {
    let output = command.output().map_err(|e| e.to_string())?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let last = errors.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        return Err(format!("{} ({})", output.status, term::cut(&term::one_line(last), 160)));
    }
    let lines: Json = serde_json::from_slice(&output.stdout).map_err(|e| format!("its output is no JSON: {e}"))?;
    lines[0][field].as_f64().ok_or_else(|| format!("its output has no {field}"))
}

impl Peer {
    /// Looks whether it is there and what it offers.
    fn new(path: &Path) -> Peer {
        let (layouts, failed) = match Command::new(path).arg("--help").output() {
            Err(e) => (Vec::new(), Some(format!("{} cannot be run: {e}", path.display()))),
            Ok(output) => {
                let text = [output.stdout, output.stderr].concat();
                let text = String::from_utf8_lossy(&text).into_owned();
                if !text.contains("--n-prompt") || !text.contains("--output") {
                    (Vec::new(), Some(format!("{} is no llama-bench: its --help has no --n-prompt", path.display())))
                } else if text.contains("--repack") {
                    (vec![Some(true), Some(false)], None)
                } else {
                    (vec![None], None)
                }
            }
        };
        if let Some(failed) = &failed {
            term::remark(&format!("{failed}; only ir is measured"));
        }
        Peer { path: path.to_owned(), layouts, failed }
    }

    /// Its rate with a layout; `None` if that failed, which is said once: a layout that fails is not tried again.
    fn rate(&mut self, args: &BenchArgs, file: &Path, cell: Cell, layout: Option<bool>) -> Option<f64> {
        if !self.layouts.contains(&layout) {
            return None;
        }
        let mut command = Command::new(&self.path);
        let (n_prompt, n_gen) = counts(cell.test);
        let (threads, batch) = (cell.threads.to_string(), cell.batch.to_string());
        command.arg("-m").arg(file).args(["-r", "1", "-o", "json", "-p", &n_prompt, "-n", &n_gen, "-t", &threads]);
        command.args(["-b", &batch, "-ub", &batch, "-d", &cell.test.depth.to_string()]);
        let kind = kv_type(args.device.kv_type);
        command.args(["-ctk", kind, "-ctv", kind]);
        let layers = match (&args.device.device, args.device.gpu_layers) {
            (DeviceChoice::Cpu, _) => 0,
            (_, LayersChoice::Count(n)) if n < 999 => n,
            _ => 999,
        };
        command.args(["-ngl", &layers.to_string()]);
        let flags = layout.map(|on| ["--repack", if on { "1" } else { "0" }]);
        command.args(flags.iter().flatten());
        match rate_of(command, "avg_ts") {
            Ok(rate) => Some(rate),
            Err(e) => {
                self.layouts.retain(|other| *other != layout);
                let flags = flags.map_or(String::new(), |flags| format!(" with {}", flags.join(" ")));
                let failed = format!("{} failed on {}{flags}: {e}", self.path.display(), cell.test.name());
                let then = if self.layouts.is_empty() { "; from here on only ir is measured" } else { "" };
                term::remark(&format!("{failed}{then}"));
                self.failed = Some(failed);
                None
            }
        }
    }
}

/// Medians of ours, of theirs, and of the ratios pair by pair.
fn medians(pairs: &[(f64, Option<f64>)]) -> (Option<f64>, Option<f64>, Option<f64>) {
    let of = |f: fn(&(f64, Option<f64>)) -> Option<f64>| {
        let mut values: Vec<f64> = pairs.iter().filter_map(f).collect();
        (!values.is_empty()).then(|| median(&mut values))
    };
    (of(|p| Some(p.0)), of(|p| p.1), of(|p| p.1.map(|theirs| p.0 / theirs)))
}

fn row(cell: Cell, pairs: &[(f64, Option<f64>)]) -> String {
    let (ours, theirs, ratio) = medians(pairs);
    let shown = |v: Option<f64>| v.map_or("-".to_owned(), |v| format!("{v:.2}"));
    let each: Vec<String> = pairs.iter().filter_map(|p| p.1.map(|theirs| format!("{:.2}", p.0 / theirs))).collect();
    format!(
        "| {:>14} | {:>7} | {:>5} | {:>10} | {:>12} | {:>5} | {}",
        cell.test.name(),
        cell.threads,
        cell.batch,
        shown(ours),
        shown(theirs),
        shown(ratio),
        each.join(" ")
    )
}

fn as_json(cell: Cell, pairs: &[(f64, Option<f64>)], peer: &Peer) -> Json {
    let (ours, theirs, ratio) = medians(pairs);
    json!({
        "test": cell.test.name(),
        "threads": cell.threads,
        "batch": cell.batch,
        "tokens_per_second": ours,
        "peer": { "program": peer.path.display().to_string(), "tokens_per_second": theirs, "failed": peer.failed },
        "ratio": ratio,
        "pairs": pairs.iter().map(|(ours, theirs)| json!([ours, theirs])).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_pairs() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0]), 2.5);
        let pairs = [(10.0, Some(5.0)), (30.0, Some(10.0)), (20.0, None)];
        assert_eq!(medians(&pairs), (Some(20.0), Some(7.5), Some(2.5)));
        assert_eq!(medians(&[]), (None, None, None));
    }
}
