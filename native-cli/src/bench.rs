//! `ir bench`: the speed of prompts and of generation, measured as llama-bench does; `against` runs the two in turn.

mod against;
mod machine;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use ir_engine::device::Device;
use serde_json::{Value as Json, json};

use crate::args::BenchArgs;
use crate::compute::{self, Sequence};
use crate::failure::{Failure, Result};
use crate::info::{Summary, human_bytes, human_count};
use crate::models::{self, Opening, Recorded};
use crate::profile::{self, Profile, StepTimes};
use crate::synthetic;
use crate::term::{self, Out};

/// What a line of the table measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// A prompt of this many tokens.
    Prompt(u32),
    /// This many tokens generated one by one, by so many sequences together.
    Generate(u32, u32),
}

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Test {
    pub(crate) work: Work,
    /// Tokens of each sequence that are there before.
    pub(crate) depth: u32,
}

impl Test {
    /// As llama-bench names it.
    pub(crate) fn name(self) -> String {
        let name = match self.work {
            Work::Prompt(n) => format!("pp{n}"),
            Work::Generate(n, 1) => format!("tg{n}"),
            Work::Generate(n, parallel) => format!("tg{n}x{parallel}"),
        };
        if self.depth == 0 { name } else { format!("{name} @ d{}", self.depth) }
    }

    /// Tokens of each sequence.
    fn n_tokens(self) -> u32 {
        match self.work {
            Work::Prompt(n) | Work::Generate(n, _) => n,
        }
    }

    fn n_sequences(self) -> u32 {
        match self.work {
            Work::Prompt(_) => 1,
            Work::Generate(_, parallel) => parallel,
        }
    }
}

/// Tokens per second over the repetitions.
#[derive(Debug, Clone, Copy)]
struct Rate {
    mean: f64,
    deviation: f64,
}

impl Rate {
    /// Of seconds that `n_tokens` took.
    fn new(n_tokens: u32, seconds: &[f64]) -> Rate {
        let rates: Vec<f64> = seconds.iter().map(|s| f64::from(n_tokens) / s.max(1e-9)).collect();
        let n = rates.len().max(1) as f64;
        let mean = rates.iter().sum::<f64>() / n;
        let squares: f64 = rates.iter().map(|r| (r - mean).powi(2)).sum();
        Rate { mean, deviation: if rates.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 } }
    }
}

/// A measured line.
struct Measured {
    test: Test,
    device: String,
    threads: Option<u16>,
    batch: u32,
    rate: Rate,
    seconds: Vec<f64>,
    /// What a decode step takes on a GPU, or would take of the host.
    step: Option<StepTimes>,
    profile: Option<Profile>,
}

/// Measures every combination of the lists and prints a table.
pub(crate) fn bench(args: &BenchArgs) -> Result {
    if args.machine {
        return machine::machine(args);
    }
    if let (Some(name), Some(path)) = (&args.synthetic, &args.write) {
        return write(name, path);
    }
    let started = Instant::now();
    let (name, model) = match (&args.synthetic, &args.model) {
        (Some(name), _) => (format!("synthetic {name}"), synthetic::model(name)?),
        (None, Some(name)) => {
            let place = models::find(name, &args.file)?;
            (place.name(), place.record(&args.file, &args.lora)?)
        }
        (None, None) => return Err(Failure::usage("give a MODEL or --synthetic SHAPE-TYPE")),
    };
    if args.synthetic.is_some() {
        term::remark(&format!("{name}: random weights made in {:.1} s", started.elapsed().as_secs_f64()));
    }
    let tests = tests(args, &model)?;
    if let Some(peer) = &args.against {
        let place = models::find(args.model.as_deref().unwrap_or_default(), &args.file)?;
        return against::against(args, peer, &place, &tests);
    }
    let mut out = Out::new();
    let header = Header::new(&name, &model);
    if !args.json {
        out.line(header.table_head())?;
    }
    let (mut lines, mut remarks) = (Vec::new(), Vec::new());
    let threads: Vec<Option<u16>> =
        if args.threads.is_empty() { vec![None] } else { args.threads.iter().copied().map(Some).collect() };
    for threads in threads {
        let device = compute::device(&args.device, threads)?;
        for batch in &args.batch {
            for test in &tests {
                let measured = measure(args, &model, &device, threads, *batch, *test)?;
                if args.json {
                    lines.push(header.json(&measured));
                } else {
                    out.line(header.row(&measured))?;
                    remarks.extend(measured.remarks());
                }
            }
        }
    }
    remarks.iter().try_for_each(|remark| out.text(remark))?;
    if args.json {
        out.json(&lines)?;
    }
    Ok(())
}

/// Saves a synthetic model.
fn write(name: &str, path: &Path) -> Result {
    let bytes = synthetic::bytes(name)?;
    std::fs::write(path, &bytes).map_err(|e| Failure::run(format!("cannot write {}: {e}", path.display())))?;
    Out::new().line(format!("{}: synthetic {name}, {}", path.display(), human_bytes(bytes.len() as u64)))
}

fn tests(args: &BenchArgs, model: &Recorded) -> Result<Vec<Test>> {
    let prompts = args.n_prompt.iter().filter(|n| **n > 0).map(|n| Work::Prompt(*n));
    let generations = args.n_gen.iter().filter(|n| **n > 0);
    let generations = generations.flat_map(|n| args.parallel.iter().map(|parallel| Work::Generate(*n, *parallel)));
    let work: Vec<Work> = prompts.chain(generations).collect();
    let tests = args.depth.iter().flat_map(|depth| work.iter().map(|work| Test { work: *work, depth: *depth }));
    let tests: Vec<Test> = tests.collect();
    let limit = model.spec.n_context as u64;
    if let Some(test) = tests.iter().find(|t| u64::from(t.n_tokens()) + u64::from(t.depth) > limit) {
        return Err(Failure::usage(format!("{} is longer than the model's context of {limit} tokens", test.name())));
    }
    if tests.is_empty() {
        return Err(Failure::usage("nothing to measure: give -p or -n a number above 0"));
    }
    Ok(tests)
}

fn measure(
    args: &BenchArgs,
    model: &Recorded,
    device: &Device,
    threads: Option<u16>,
    batch: u32,
    test: Test,
) -> Result<Measured> {
    let kv = compute::kv_kind(args.device.kv_type);
    let (n_tokens, n_sequences) = (test.n_tokens() as usize, test.n_sequences() as usize);
    let room = n_tokens + test.depth as usize;
    let mut sequence = Sequence::several(device, &model.plan, kv, room, batch as usize, n_sequences)?;
    let n_vocab = model.plan.n_vocab() as u32;
    let some = |i: u32| i.wrapping_mul(2_654_435_761) % n_vocab;
    let before: Vec<u32> = (0..test.depth).map(|i| some(!i)).collect();
    let tokens: Vec<u32> = (0..test.n_tokens()).map(some).collect();
    let (mut seconds, mut submitting) = (Vec::new(), Vec::new());
    for i in 0..=args.repetitions {
        sequence.reset();
        sequence.skip_all(&before)?;
        let started = Instant::now();
        match test.work {
            Work::Prompt(_) => {
                let n_last = (tokens.len() - 1) % batch as usize + 1;
                let (before, last) = tokens.split_at(tokens.len() - n_last);
                sequence.skip(before)?;
                sequence.step(last, 1)?;
            }
            Work::Generate(..) => tokens.iter().try_for_each(|token| {
                sequence.step_all(*token, n_vocab)?;
                submitting.push(sequence.submitting().as_secs_f64());
                Result::Ok(())
            })?,
        }
        // The first run warms up caches, clocks and page tables.
        if i > 0 {
            seconds.push(started.elapsed().as_secs_f64());
        }
    }
    let rate = Rate::new(test.n_tokens() * test.n_sequences(), &seconds);
    let step = match test.work {
        Work::Generate(..) if args.profile || compute::only_gpu(device).is_some() => {
            Some(profile::step_times(&mut sequence, &mut submitting)?)
        }
        _ => None,
    };
    let profile = args.profile.then(|| profile::profile(device, &mut sequence, args.repetitions)).transpose()?;
    Ok(Measured { test, device: sequence.placement(), threads, batch, rate, seconds, step, profile })
}

impl Measured {
    /// What follows the table about this line.
    fn remarks(&self) -> Option<String> {
        let mut text = String::new();
        if let Some(step) = &self.step {
            let _ = write!(text, "\n{} on {}\n{}", self.test.name(), self.device, step.text());
        }
        if let Some(profile) = &self.profile {
            let _ = write!(text, "\n{} step by kind, {}\n{}", self.test.name(), self.device, profile.text());
        }
        (!text.is_empty()).then_some(text)
    }
}

/// What is the same on every line.
struct Header {
    name: String,
    summary: Summary,
}

impl Header {
    fn new(name: &str, model: &Recorded) -> Header {
        Header { name: name.to_owned(), summary: Summary::new(&model.file) }
    }

    fn name_width(&self) -> usize {
        self.name.chars().count().clamp(5, 40)
    }

    fn table_head(&self) -> String {
        let wide = self.name_width();
        let mut text = format!(
            "| {:wide$} | {:>9} | {:>7} | {:28} | {:>5} | {:>14} | {:>20} |\n",
            "model", "size", "params", "device", "batch", "test", "tokens/s"
        );
        let _ = write!(
            text,
            "|{:-<w$}|{:->11}|{:->9}|{:-<30}|{:->7}|{:->16}|{:->22}|",
            "",
            ":",
            ":",
            "",
            ":",
            ":",
            ":",
            w = wide + 2
        );
        text
    }

    fn row(&self, m: &Measured) -> String {
        let (wide, name) = (self.name_width(), term::cut(&term::one_line(&self.name), self.name_width()));
        let (size, count) = (human_bytes(self.summary.bytes), human_count(self.summary.parameters));
        let rate = format!("{:.2} ± {:.2}", m.rate.mean, m.rate.deviation);
        format!(
            "| {name:wide$} | {size:>9} | {count:>7} | {:28} | {:>5} | {:>14} | {rate:>20} |",
            m.device,
            m.batch,
            m.test.name()
        )
    }

    fn json(&self, m: &Measured) -> Json {
        let mut line = json!({
            "model": self.name,
            "architecture": self.summary.arch,
            "bytes": self.summary.bytes,
            "parameters": self.summary.parameters,
            "type": self.summary.type_name,
            "device": m.device,
            "threads": m.threads,
            "batch": m.batch,
            "test": m.test.name(),
            "depth": m.test.depth,
            "n_tokens": m.test.n_tokens(),
            "sequences": m.test.n_sequences(),
            "tokens_per_second": m.rate.mean,
            "deviation": m.rate.deviation,
            "seconds": m.seconds,
        });
        if let Some(step) = &m.step {
            line["decode_step"] = step.json();
        }
        if let Some(profile) = &m.profile {
            line["profile"] = profile.json();
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::Rate;

    #[test]
    fn mean_and_deviation_are_of_rates() {
        let rate = Rate::new(100, &[1.0, 0.5]);
        assert_eq!(rate.mean, 150.0);
        assert!((rate.deviation - 5000f64.sqrt()).abs() < 1e-9);
        assert_eq!(Rate::new(100, &[2.0]).deviation, 0.0);
    }
}
