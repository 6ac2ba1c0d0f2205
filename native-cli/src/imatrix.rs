//! `ir imatrix`: what the columns of a model's matrices are multiplied with, over a text: for `ir quantize --imatrix`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ir_engine::convert::Observer;
use ir_engine::cpu::{Cpu, CpuOptions};

use crate::args::{ImatrixArgs, LoraArgs};
use crate::failure::{Failure, Result};
use crate::models::{self, Opening};
use crate::perplexity::{remark, windows};
use crate::quantize::stop_flag;
use crate::term::{self, Out};

/// Runs the text's windows one by one and writes what was seen.
pub(crate) fn imatrix(args: &ImatrixArgs) -> Result {
    let model = models::find(&args.model, &args.file)?.open(&args.file, &LoraArgs::default())?;
    if model.spec().encoder.is_some() {
        return Err(Failure::run("an importance matrix of a model with an encoder is not collected yet"));
    }
    let windows = windows(&model, &args.text_file, args.ctx as usize, args.chunks)?;
    let options = CpuOptions { threads: args.threads.threads.map(usize::from), ..CpuOptions::default() };
    let cpu = Arc::new(Cpu::new(&options)?);
    let mut observer = Observer::new(cpu, model.plan(), args.ctx as usize)?;
    let (stopped, started) = (stop_flag(), Instant::now());
    for (i, window) in windows.iter().enumerate() {
        observer.add(window)?;
        if stopped.load(Ordering::Relaxed) {
            return Err(Failure::Interrupted);
        }
        if i == 0 {
            remark(windows.len(), args.ctx as usize, started);
        }
    }
    observer.write(&args.output, &args.text_file.display().to_string())?;
    Out::new().line(format!(
        "{}: {} from {} of {} tokens",
        args.output.display(),
        term::counted(observer.len(), "tensor"),
        term::counted(windows.len(), "window"),
        args.ctx
    ))
}
