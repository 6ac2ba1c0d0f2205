//! What goes wrong on GPUs and must end in a sentence or a fallback: a device lost within a chain, memory that does not
//! suffice, a form that computes wrongly, a damaged file of pipelines.
#![cfg(feature = "gpu")]

use std::path::Path;
use std::sync::Arc;

use crate::common::{Golden, Scratch, alone, relative_error, skipped};
use ir_engine::device::{KvKind, RunnerOptions};
use ir_engine::error::{Error, Result};
use ir_engine::gpu::{Forms, Gpu, GpuOptions, GpuRunner};
use ir_engine::plan::{Inputs, PAGE, Want};
use sha2::{Digest, Sha256};

fn open(options: &GpuOptions) -> Option<Arc<Gpu>> {
    match Gpu::open_now(options) {
        Ok(gpu) => Some(Arc::new(gpu)),
        Err(error) => {
            skipped(error);
            None
        }
    }
}

fn prepare(gpu: &Arc<Gpu>, golden: &Golden, n_pages: usize) -> Result<GpuRunner> {
    let options =
        RunnerOptions { max_tokens: 64, max_outputs: 64, kv: KvKind::F16, n_pages, n_states: 1, n_window_pages: 0 };
    gpu.prepare(Arc::clone(golden.model.plan()), options)
}

/// Whether the device computes PyTorch's logits, row by row.
fn is_right(gpu: &Arc<Gpu>, golden: &Golden) -> bool {
    let mut runner = prepare(gpu, golden, golden.ids.len().div_ceil(PAGE)).unwrap();
    let tables = vec![(0..golden.ids.len().div_ceil(PAGE) as u32).collect()];
    let mut inputs = Inputs { tables, outputs: vec![0], ..Inputs::default() };
    let mut logits = Vec::new();
    for (position, id) in golden.ids.iter().enumerate() {
        (inputs.tokens, inputs.positions, inputs.seqs) = (vec![*id], vec![position as u32], vec![0]);
        logits.extend(runner.submit(&inputs).unwrap().wait().unwrap().values);
    }
    relative_error(&logits, &golden.logits) < 2e-3
}

#[test]
fn a_chain_under_way_ends_with_its_device() {
    let Some(gpu) = open(&GpuOptions::default()) else { return };
    let golden = Golden::load("llama3");
    let mut runner = prepare(&gpu, &golden, 4).unwrap();
    let pick = Want::Pick { draw: [1, 2], scale: 0.0, least: 0.0 };
    let mut inputs = Inputs { tables: vec![vec![0, 1]], outputs: vec![0], ..Inputs::default() };
    inputs.push(1, 0, 0);
    (inputs.wants, inputs.next) = (vec![pick], vec![vec![pick]; 7]);
    let under_way = runner.submit(&inputs).unwrap();
    gpu.lose();
    for error in [under_way.wait().unwrap_err(), runner.submit(&inputs).unwrap_err()] {
        assert!(matches!(error, Error::Lost(_)), "{error}");
    }
}

/// A device that says it has coherent memory and has none is opened without that form, and says so.
#[test]
fn a_form_that_computes_wrongly_is_left_out() {
    let golden = Golden::load("llama3");
    let Some(honest) = open(&GpuOptions::default()) else { return };
    if !honest.forms().coherent {
        return skipped("this adapter has no coherent memory");
    }
    assert_eq!(honest.notes(), [""; 0]);
    let asked = Forms { coherent: true, ..Forms::BASE };
    for forms in [None, Some(asked)] {
        let sabotage = Some(("probe_coherent", "before_s + 1u < n", "before_s > 0u"));
        let gpu = open(&GpuOptions { forms, sabotage, ..GpuOptions::default() }).unwrap();
        assert!(!gpu.forms().coherent, "{}", gpu.name());
        let notes = gpu.notes().concat();
        assert!(notes.contains("no coherent memory") && notes.contains("left out"), "{notes}");
        assert!(is_right(&gpu, &golden));
    }
}

/// The only file in a folder.
fn only_file(folder: &Path) -> Option<std::path::PathBuf> {
    let all: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(all.len() <= 1, "{all:?}");
    all.into_iter().next()
}

#[test]
fn pipelines_are_kept_and_what_is_damaged_is_made_anew() {
    let (golden, scratch) = (Golden::load("llama3"), Scratch::new("pipelines"));
    let folder = scratch.0.join("kept");
    std::fs::create_dir(&folder).unwrap();
    let options = GpuOptions { forms: Some(Forms::BASE), pipelines: Some(folder.clone()), ..GpuOptions::default() };
    let run = |what: &str, said: &str| {
        let gpu = Gpu::open_now(&options).map(Arc::new).ok()?;
        let notes = gpu.notes().concat();
        assert!(notes.contains(said) && notes.is_empty() == said.is_empty(), "{what}: {notes}");
        assert!(is_right(&gpu, &golden), "{what}");
        assert_eq!(gpu.notes(), [""; 0], "{what}");
        only_file(&folder).map(|path| (std::fs::read(&path).unwrap(), path))
    };
    let Some((good, path)) = run("without a file", "") else {
        return skipped("this adapter keeps no pipelines");
    };
    let (again, _) = run("with its own file", "").unwrap();
    println!("{} of {} bytes, then {}", path.display(), good.len(), again.len());
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x40;
        bytes
    };
    let damaged = [
        ("nothing", Vec::new()),
        ("half", good[..good.len() / 2].to_vec()),
        ("more", [&good[..], b"more"].concat()),
        ("another beginning", flipped(3)),
        ("another device", flipped(45)),
        ("other pipelines", flipped(good.len() - 1)),
        ("noise", (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()),
    ];
    for (what, bytes) in damaged {
        std::fs::write(&path, bytes).unwrap();
        let (made, _) = run(what, "is damaged: pipelines are compiled anew").unwrap();
        assert!(made.starts_with(&good[..8]) && made.len() > 72, "{what}");
    }
    // Whole, and of another driver: its description differs.
    let mut other = good[..8].to_vec();
    let mut rest = good[40..].to_vec();
    rest[0] ^= 1;
    other.extend(Sha256::digest(&rest));
    other.extend(&rest);
    std::fs::write(&path, other).unwrap();
    run("another driver", "is of another device or driver: pipelines are compiled anew").unwrap();
    // A folder that cannot be made costs a note and nothing else.
    let blocked = GpuOptions { pipelines: Some(path.join("below a file")), ..options.clone() };
    let gpu = Arc::new(Gpu::open_now(&blocked).unwrap());
    assert!(is_right(&gpu, &golden));
    let notes = [gpu.notes().concat(), gpu.notes().concat()];
    assert!(notes[0].contains("cannot be ") && notes[1].is_empty(), "{notes:?}");
}

/// A process of its own is given little more memory than it has, and asks for a large cache.
#[test]
fn memory_that_does_not_suffice_ends_in_a_sentence() {
    if !alone(module_path!(), "memory_that_does_not_suffice_ends_in_a_sentence") {
        return;
    }
    let options = GpuOptions { forms: Some(Forms::BASE), ..GpuOptions::default() };
    let (golden, Some(gpu)) = (Golden::load("llama3"), open(&options)) else { return };
    if gpu.description().kind != "software" {
        return skipped("this GPU's memory is not its process's");
    }
    assert!(is_right(&gpu, &golden));
    let limit = |bytes: &str| {
        let status = std::process::Command::new("prlimit")
            .args(["--pid", &std::process::id().to_string(), &format!("--as={bytes}:unlimited")])
            .status();
        status.is_ok_and(|status| status.success())
    };
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let Some(pages) = statm.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()) else {
        return skipped("this system does not tell a process's memory");
    };
    if !limit(&(pages * 4096 + (100 << 20)).to_string()) {
        return skipped("this system has no prlimit");
    }
    let error = prepare(&gpu, &golden, 131_000).map(|_| ()).unwrap_err();
    assert!(limit("unlimited"));
    println!("{error}");
    assert!(error.to_string().contains("not enough free memory"), "{error}");
    // Another start on the same device goes on, with a cache that fits.
    assert!(is_right(&Arc::new(gpu.reopen_now().unwrap()), &golden));
}
