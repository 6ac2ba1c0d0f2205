//! `ir bench --machine`: what the processor can do at most, for shares of it: bytes read per second, and products per
//! second of operands that stay in registers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ir_engine::cpu::pool::Pool;
use ir_engine::cpu::{Cpu, CpuOptions, Roofline, simd};
use serde_json::{Value as Json, json};

use crate::args::BenchArgs;
use crate::failure::Result;
use crate::term::Out;

/// Bytes that a pass reads: far more than caches hold.
const READ_BYTES: usize = 512 << 20;

/// How long each figure is measured, after a first pass.
const WINDOW: Duration = Duration::from_millis(600);

/// Rounds of products in a pass: some milliseconds.
const TIMES: usize = 1_000_000;

/// Figures of one instruction set on so many threads, per second.
struct Row {
    simd: &'static str,
    threads: u16,
    /// Bytes, of the fastest pass.
    read: f64,
    /// Products and sums of floats.
    floats: f64,
    /// The same of bytes.
    bytes: f64,
}

/// Measures every instruction set of this machine, or the one that `--simd` names, on one thread and on all.
pub(super) fn machine(args: &BenchArgs) -> Result {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u16);
    let mut threads = if args.threads.is_empty() { vec![1, cores] } else { args.threads.clone() };
    threads.dedup();
    let roofline = Roofline::new(READ_BYTES)?;
    let one = simd::by_name(&args.device.simd).map_err(ir_engine::Error::from)?;
    // The scalar loops are the definition and nobody's choice.
    let mut sets: Vec<_> = simd::available().into_iter().skip(1).map(|t| t.name).collect();
    if args.device.simd != "auto" || sets.is_empty() {
        sets = vec![one.name];
    }
    let mut out = Out::new();
    if !args.json {
        out.line("| instruction set | threads | reads GB/s | f32 GFLOP/s | 8-bit Gop/s |")?;
        out.line("|-----------------|--------:|-----------:|------------:|------------:|")?;
    }
    let mut lines = Vec::new();
    for simd in sets {
        for threads in &threads {
            let row = measure(&roofline, simd, *threads)?;
            if args.json {
                lines.push(row.json());
            } else {
                out.line(row.text())?;
            }
        }
    }
    if args.json {
        out.json(&lines)?;
    }
    Ok(())
}

fn measure(roofline: &Roofline, simd: &'static str, threads: u16) -> Result<Row> {
    let options = CpuOptions { simd: Some(simd.to_owned()), ..CpuOptions::default() };
    let cpu = Cpu::with_pool(&options, Arc::new(Pool::new(threads.into())))?;
    Ok(Row {
        simd,
        threads,
        read: fastest(|| roofline.read(&cpu)),
        floats: fastest(|| roofline.floats(&cpu, TIMES)),
        bytes: fastest(|| roofline.bytes(&cpu, TIMES / 4)),
    })
}

/// Work per second of the fastest pass: others on the machine only slow it down.
fn fastest(pass: impl Fn() -> u64) -> f64 {
    let (mut best, mut first, begun) = (0.0_f64, true, Instant::now());
    while begun.elapsed() < WINDOW || best == 0.0 {
        let started = Instant::now();
        let work = pass();
        // The first pass warms up caches and clocks.
        if !std::mem::take(&mut first) {
            best = best.max(work as f64 / started.elapsed().as_secs_f64().max(1e-9));
        }
    }
    best
}

impl Row {
    fn text(&self) -> String {
        let giga = |v: f64| v / 1e9;
        format!(
            "| {:15} | {:>7} | {:>10.1} | {:>11.1} | {:>11.1} |",
            self.simd,
            self.threads,
            giga(self.read),
            giga(self.floats),
            giga(self.bytes)
        )
    }

    fn json(&self) -> Json {
        json!({
            "simd": self.simd,
            "threads": self.threads,
            "read_bytes_per_second": self.read,
            "f32_operations_per_second": self.floats,
            "byte_operations_per_second": self.bytes,
        })
    }
}
