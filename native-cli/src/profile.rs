//! Where a step's time goes: host and device time of a decode step, and the time of each kind of op with the bytes that
//! it reads. For `ir bench`; rates of tokens are not measured here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use ir_engine::bytes::Bytes;
use ir_engine::device::{Device, Runner};
use ir_engine::gpu::{CopyTest, Forms, Gpu, GpuRunner};
use ir_engine::plan::{Inputs, Op, Plan};
use serde_json::{Value as Json, json};

use crate::compute::{Sequence, only_gpu};
use crate::failure::Result;

/// Steps that are timed where a median is wanted.
const STEPS: usize = 21;

/// Weights of a plan up to here are laid out for the backend that does nothing: it takes their room in host memory.
const MOST_NOOP_BYTES: u64 = 2 << 30;

/// Bytes of the buffers that are copied to learn a device's bandwidth: far more than any cache.
const COPY_BYTES: u64 = 1 << 30;

/// What a decode step takes on a GPU.
pub(crate) struct StepTimes {
    /// `None` where the step runs on no GPU.
    gpu: Option<GpuTimes>,
    /// Seconds of the host on wgpu's backend that does nothing, and the dispatches there; `None` where the weights are too
    /// large for it.
    noop: Option<(f64, usize)>,
}

struct GpuTimes {
    /// Seconds of the host until everything is submitted, median.
    host: f64,
    dispatches: usize,
    /// Seconds on the device, median; `None` where it has no timestamps.
    device: Option<f64>,
}

/// The decode step that a sequence took last. `submitting` are the host's seconds of every step so far.
pub(crate) fn step_times(sequence: &mut Sequence, submitting: &mut [f64]) -> Result<StepTimes> {
    let (runner, inputs) = sequence.last_step();
    let noop = noop(runner, inputs)?;
    let Runner::Gpu(runner) = runner else { return Ok(StepTimes { gpu: None, noop }) };
    let device = if runner.has_timestamps() { Some(device_time(runner, inputs)?) } else { None };
    let gpu = GpuTimes { host: median(submitting), dispatches: runner.n_dispatches(inputs), device };
    Ok(StepTimes { gpu: Some(gpu), noop })
}

/// Seconds of a whole step on the device.
fn device_time(runner: &mut GpuRunner, inputs: &Inputs) -> Result<f64> {
    let mut seconds = Vec::new();
    for _ in 0..STEPS {
        seconds.push(runner.profile(inputs, false)?.iter().map(|pass| pass.seconds).sum());
    }
    Ok(median(&mut seconds))
}

/// Seconds that the host takes for a step of this plan where the device takes none, and the step's dispatches.
fn noop(runner: &Runner, inputs: &Inputs) -> Result<Option<(f64, usize)>> {
    let plan = runner.plan();
    if plan.weight_bytes() > MOST_NOOP_BYTES {
        return Ok(None);
    }
    let forms = match runner {
        // The device that does nothing has no cooperative matrices.
        Runner::Gpu(runner) => Forms { coopmat: None, ..runner.gpu().forms() },
        Runner::Cpu(_) | Runner::Split(_) => Forms::BASE,
    };
    let mut runner = Arc::new(Gpu::noop(forms)?).prepare(Arc::new(without_weights(plan)), runner.options())?;
    let mut seconds = Vec::new();
    for _ in 0..10 * STEPS {
        let started = Instant::now();
        let readback = runner.submit(inputs)?;
        seconds.push(started.elapsed().as_secs_f64());
        readback.wait()?;
    }
    Ok(Some((median(&mut seconds), runner.n_dispatches(inputs))))
}

/// The same plan over weights that no file holds.
fn without_weights(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    for segment in plan.weights.iter_mut().flat_map(|weight| &mut weight.segments) {
        segment.bytes = Bytes::default();
    }
    plan
}

/// The middle one, or the mean of the two in the middle; 0 of none.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    if n == 0 { 0.0 } else { (values[(n - 1) / 2] + values[n / 2]) / 2.0 }
}

impl StepTimes {
    /// Lines for people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        if let Some(GpuTimes { host, dispatches, device }) = &self.gpu {
            let device = device.map_or("time not known (no timestamp queries)".into(), micros);
            let host = micros(*host);
            let _ = writeln!(text, "step: host {host} until submitted, {dispatches} dispatches, device {device}");
        }
        let _ = match self.noop {
            Some((seconds, n)) => writeln!(text, "host: {} per decode step of {n} dispatches", micros(seconds)),
            None => writeln!(text, "host: not measured, the weights are too large for a second copy"),
        };
        text
    }

    pub(crate) fn json(&self) -> Json {
        let mut all = json!({
            "noop_host_seconds": self.noop.map(|n| n.0),
            "noop_dispatches": self.noop.map(|n| n.1),
        });
        if let Some(GpuTimes { host, dispatches, device }) = self.gpu {
            all["host_seconds"] = json!(host);
            all["dispatches"] = json!(dispatches);
            all["device_seconds"] = json!(device);
        }
        all
    }
}

fn micros(seconds: f64) -> String {
    format!("{:.0} us", seconds * 1e6)
}

/// One kind's share of a step.
#[derive(Debug, Clone, Copy, Default)]
struct Kind {
    seconds: f64,
    calls: usize,
    bytes: u64,
}

/// The kinds of a step by name, and the device's own bandwidth.
pub(crate) struct Profile {
    kinds: BTreeMap<String, Kind>,
    /// Bytes per second, reading and writing together.
    copy: Option<f64>,
    /// Rows of the step.
    rows: usize,
    /// Why there are no times by kind.
    missing: Option<String>,
}

/// Times the step that a sequence took last, `n` times after a first.
pub(crate) fn profile(device: &Device, sequence: &mut Sequence, n: u32) -> Result<Profile> {
    let (runner, inputs) = sequence.last_step();
    let mut profile = Profile { kinds: BTreeMap::new(), copy: None, rows: inputs.n_rows(), missing: None };
    if let Some(gpu) = only_gpu(device) {
        profile.copy = Some(copy_rate(gpu)?);
    }
    for i in 0..=n {
        let mut add = |name: String, seconds: f64, bytes: u64| {
            let kind = profile.kinds.entry(name).or_default();
            // The first round warms up.
            let counted = usize::from(i > 0);
            kind.seconds += seconds * counted as f64 / f64::from(n);
            kind.calls += counted;
            kind.bytes += bytes * counted as u64;
        };
        match runner {
            Runner::Gpu(runner) if runner.has_timestamps() => {
                let passes = runner.profile(inputs, true)?;
                passes.into_iter().for_each(|pass| add(pass.kernel, pass.seconds, pass.weight_bytes));
            }
            Runner::Gpu(_) => {
                profile.missing = Some("no times by kind: the device has no timestamp queries".into());
                return Ok(profile);
            }
            Runner::Split(_) => {
                profile.missing = Some("no times by kind: the model is divided over devices".into());
                return Ok(profile);
            }
            Runner::Cpu(_) => on_cpu(runner, inputs, &mut add)?,
        }
    }
    for kind in profile.kinds.values_mut() {
        kind.calls /= n as usize;
        kind.bytes /= u64::from(n);
    }
    Ok(profile)
}

/// Op by op, by this process's clock.
fn on_cpu(runner: &mut Runner, inputs: &Inputs, add: &mut dyn FnMut(String, f64, u64)) -> Result {
    let plan = Arc::clone(runner.plan());
    let needed = plan.ops.iter().enumerate().filter(|(_, e)| inputs.count(e.when) > 0);
    for (i, entry) in needed {
        let started = Instant::now();
        runner.run_ops(i..i + 1, inputs)?;
        let seconds = started.elapsed().as_secs_f64();
        let name = entry.op.kind().name();
        let (name, bytes) = match entry.op {
            Op::Linear { weight, then, .. } => {
                let segments = &plan.weight(weight).segments;
                let mut types: Vec<String> = segments.iter().map(|s| s.dtype.to_string()).collect();
                types.dedup();
                let head = if then.result() == plan.logits { " head" } else { "" };
                let bytes = segments.iter().map(|s| s.n_bytes()).sum();
                (format!("{name} {}{head}", types.join("+")), bytes)
            }
            _ => (name.to_owned(), 0),
        };
        add(name, seconds, bytes);
    }
    Ok(())
}

/// Bytes per second of a large copy, reading and writing together, best of a few.
fn copy_rate(gpu: &Arc<Gpu>) -> Result<f64> {
    let test = CopyTest::new(gpu, COPY_BYTES)?;
    test.run(1)?;
    // Long enough that a submission's own cost does not count, short on software too.
    let started = Instant::now();
    test.run(1)?;
    let times = (0.1 / started.elapsed().as_secs_f64()).clamp(1.0, 500.0) as usize;
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let started = Instant::now();
        test.run(times)?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok((2 * test.bytes()) as f64 * times as f64 / best)
}

impl Profile {
    fn sorted(&self) -> Vec<(&String, &Kind)> {
        let mut all: Vec<_> = self.kinds.iter().collect();
        all.sort_by(|a, b| b.1.seconds.total_cmp(&a.1.seconds));
        all
    }

    /// A table for people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        if let Some(missing) = &self.missing {
            let _ = writeln!(text, "  {missing}");
        } else {
            let (rows, head) = (self.rows, ["time", "share", "calls", "weights"]);
            let of_copy = if self.copy.is_some() { "  of copy" } else { "" };
            let [time, share, calls, weights] = head;
            let kind = format!("kind ({rows} {})", if rows == 1 { "row" } else { "rows" });
            let _ =
                writeln!(text, "  {kind:28} {time:>12}  {share:>6}  {calls:>5}  {weights:>9}  {:>12}{of_copy}", "rate");
        }
        let whole: f64 = self.kinds.values().map(|k| k.seconds).sum();
        for (name, kind) in self.sorted() {
            let _ = writeln!(text, "  {name:28} {}", self.columns(kind, whole));
        }
        if self.kinds.len() > 1 {
            let add = |sum: Kind, k: &Kind| Kind {
                seconds: sum.seconds + k.seconds,
                calls: sum.calls + k.calls,
                bytes: sum.bytes + k.bytes,
            };
            let all = self.kinds.values().fold(Kind::default(), add);
            let _ = writeln!(text, "  {:28} {}", "all", self.columns(&all, whole));
        }
        if let Some(copy) = self.copy {
            let _ = writeln!(text, "  copying memory: {:.1} GB/s, read and written together", copy / 1e9);
        }
        text
    }

    fn columns(&self, kind: &Kind, whole: f64) -> String {
        let (time, share) = (micros(kind.seconds), 100.0 * kind.seconds / whole.max(1e-12));
        let mut text = format!("{time:>12}  {share:>5.1}%  {:>5}", kind.calls);
        if kind.bytes > 0 {
            let rate = kind.bytes as f64 / kind.seconds.max(1e-12);
            let size = crate::info::human_bytes(kind.bytes);
            let _ = write!(text, "  {size:>9}  {:>7.2} GB/s", rate / 1e9);
            if let Some(copy) = self.copy {
                let _ = write!(text, "  {:>6.1}%", 100.0 * rate / copy.max(1.0));
            }
        }
        text
    }

    pub(crate) fn json(&self) -> Json {
        let kind = |(name, k): (&String, &Kind)| json!({ "kind": name, "seconds": k.seconds, "calls": k.calls, "weight_bytes": k.bytes });
        json!({
            "rows": self.rows,
            "kinds": self.sorted().into_iter().map(kind).collect::<Vec<_>>(),
            "copy_bytes_per_second": self.copy,
            "missing": self.missing,
        })
    }
}
