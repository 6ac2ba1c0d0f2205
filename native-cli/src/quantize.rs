//! `ir quantize` and `ir convert`: a model file is made of another, or of a folder of safetensors.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ir_engine::convert::{ImportanceMatrix, Job, Pattern, Progress, Settings};
use ir_engine::dtype::DType;
use ir_engine::file::ModelFile;
use ir_engine::quant::mixes::{MIXES, Mix};

use crate::args::{ConvertArgs, PlaceArgs, QuantizeArgs};
use crate::failure::{Failure, Result};
use crate::info::human_bytes;
use crate::models::Opening as _;
use crate::term::{self, Out};
use crate::{interrupt, models};

/// `ir quantize`.
pub(crate) fn quantize(args: &QuantizeArgs) -> Result {
    let importance = match &args.imatrix {
        Some(path) => Some(
            ImportanceMatrix::read(&ModelFile::open(path)?)
                .map_err(|e| Failure::run(format!("{}: {e}", path.display())))?,
        ),
        None => None,
    };
    let overrides = args.tensor_type.iter().map(|text| tensor_type(text)).collect::<Result<_>>()?;
    let settings = Settings { mix: Some(mix(&args.mix)?), overrides, pure: args.pure, importance, merged: Vec::new() };
    make(&args.input, &args.output, &settings, args.dry_run, args.threads.threads, &args.place)
}

/// `ir convert`.
pub(crate) fn convert(args: &ConvertArgs) -> Result {
    let mix = args.mix.as_deref().map(mix).transpose()?;
    let merged = args.merge.iter().map(|text| models::adapter("--merge", text)).collect::<Result<_>>()?;
    let settings = Settings { mix, merged, ..Settings::default() };
    make(&args.folder, &args.output, &settings, args.dry_run, args.threads.threads, &args.place)
}

/// A flag that Ctrl-C sets from now on.
pub(crate) fn stop_flag() -> Arc<AtomicBool> {
    let stopped = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&stopped);
    interrupt::on(move || stop.store(true, Ordering::Relaxed));
    stopped
}

/// Does what Ctrl-C stops, and shows how far it is.
pub(crate) fn watched<T>(work: impl FnOnce(&mut dyn FnMut(Progress) -> bool) -> ir_engine::Result<T>) -> Result<T> {
    let (stopped, mut line, started) = (stop_flag(), Line::new(), Instant::now());
    let done = work(&mut |progress| {
        line.show(progress, started);
        !stopped.load(Ordering::Relaxed)
    });
    line.end();
    match done {
        Err(_) if stopped.load(Ordering::Relaxed) => Err(Failure::Interrupted),
        done => Ok(done?),
    }
}

/// The mix of this name.
fn mix(name: &str) -> Result<Mix> {
    Mix::of(name).ok_or_else(|| {
        let all: Vec<&str> = MIXES.iter().map(|m| m.name).collect();
        Failure::usage(format!("there is no type {:?} to write: {}", term::cut(name, 40), all.join(", ")))
    })
}

/// `PATTERN=TYPE`.
fn tensor_type(text: &str) -> Result<(Pattern, DType)> {
    let (pattern, name) = text
        .rsplit_once('=')
        .ok_or_else(|| Failure::usage(format!("--tensor-type {text:?} is not PATTERN=TYPE, as in ffn_down=Q6_K")))?;
    let dtype = DType::from_name(name).filter(|d| d.encoder().is_some());
    let dtype =
        dtype.ok_or_else(|| Failure::usage(format!("--tensor-type {text:?}: {name:?} is no type that is written")))?;
    let pattern =
        regex_lite::Regex::new(pattern).map_err(|e| Failure::usage(format!("--tensor-type {text:?}: {e}")))?;
    Ok((Box::new(move |name| pattern.is_match(name)), dtype))
}

fn make(from: &str, to: &Path, settings: &Settings, dry_run: bool, threads: Option<u16>, place: &PlaceArgs) -> Result {
    let found = models::find_in(from, place)?;
    let file = found.open_natural(place).map_err(|e| match e {
        Failure::Run(what) if !what.contains(from) => Failure::run(format!("{from}: {what}")),
        other => other,
    })?;
    let job = Job::new(&file, settings).map_err(|e| found.failure(&e))?;
    let before: u64 = job.planned().iter().map(|t| t.bytes_before).sum();
    if dry_run {
        return show(&job, before);
    }
    for t in job.planned().iter().filter(|t| t.fallback) {
        term::remark(&format!("{}: rows of {} are {} instead", t.name, t.dims[0], t.to));
    }
    let all = || std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = threads.map_or_else(all, usize::from);
    let started = Instant::now();
    watched(|told| job.write(to, threads, told))?;
    Out::new().line(format!(
        "{}: {} of weights are {} in {:.1} s",
        to.display(),
        human_bytes(before),
        human_bytes(job.byte_len()),
        started.elapsed().as_secs_f64()
    ))
}

/// What would be written.
fn show(job: &Job<'_>, before: u64) -> Result {
    let mut out = Out::new();
    let wide = job.planned().iter().map(|t| t.name.chars().count()).max().unwrap_or(0).clamp(8, 60);
    for t in job.planned() {
        let shape = t.dims.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ");
        let (from, to) = (t.from.name(), t.to.name());
        let note = if t.fallback { "  (its rows are no whole blocks)" } else { "" };
        out.line(format!(
            "{:wide$}  {shape:>22}  {from:>6} -> {to:6}  {:>9}{note}",
            t.name,
            human_bytes(t.bytes_after)
        ))?;
    }
    out.line(format!("{} of weights would be {}", human_bytes(before), human_bytes(job.byte_len())))
}

/// A line on a terminal that says how far it is.
struct Line {
    terminal: bool,
    shown: Option<Instant>,
}

impl Line {
    fn new() -> Line {
        Line { terminal: std::io::stderr().is_terminal(), shown: None }
    }

    fn show(&mut self, progress: Progress, started: Instant) {
        let often = self.shown.is_some_and(|at| at.elapsed() < Duration::from_millis(200));
        if !self.terminal || often {
            return;
        }
        self.shown = Some(Instant::now());
        let part = progress.done as f64 / progress.total.max(1) as f64;
        let elapsed = started.elapsed().as_secs_f64();
        let left = if part > 0.0 { elapsed / part - elapsed } else { 0.0 };
        let Progress { tensors, n_tensors, .. } = progress;
        // Where nobody reads it, nothing is lost.
        let _ = write!(
            std::io::stderr(),
            "\r{:3.0} %  tensor {tensors} of {n_tensors}, {left:.0} s left \x1b[K",
            part * 100.0
        );
    }

    fn end(&self) {
        if self.terminal && self.shown.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_and_types_are_read() {
        let (fits, dtype) = tensor_type(r"blk\.(0|1)\.ffn_down=q6_k").unwrap();
        assert!(fits("blk.1.ffn_down.weight") && !fits("blk.2.ffn_down.weight"));
        assert_eq!(dtype, DType::Q6_K);
        for wrong in ["ffn_down", "ffn_down=Q9", "(=Q8_0", "x=IQ1_S"] {
            assert!(matches!(tensor_type(wrong), Err(Failure::Usage(_))), "{wrong}");
        }
        assert!(matches!(mix("Q9_K"), Err(Failure::Usage(what)) if what.contains("Q4_K_M")));
    }
}
