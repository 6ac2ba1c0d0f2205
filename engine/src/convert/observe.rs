//! [`Observer`]: collects an importance matrix. Texts run through a model on the processor, and of what each matrix is multiplied
//! with the squares are added up, column by column. Written as llama.cpp's `imatrix` writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::write::Unfinished;
use crate::cpu::{Cpu, CpuRunner};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::file::GgufWriter;
use crate::meta::MetaBuilder;
use crate::plan::{Inputs, KvKind, Op, PAGE, Plan, Prologue, RunnerOptions, Slot, Weight};

/// Sums of squares by the names of tensors.
#[derive(Debug)]
pub struct Observer {
    runner: CpuRunner,
    plan: Arc<Plan>,
    inputs: Inputs,
    n_pages: usize,
    window: usize,
    n_windows: u32,
    tensors: BTreeMap<String, Sums>,
}

/// Those of a tensor of one matrix or several.
#[derive(Debug, Clone)]
struct Sums {
    /// `[matrices, columns]`.
    squares: Vec<f64>,
    /// Rows that each matrix was multiplied with.
    counts: Vec<u64>,
}

impl Sums {
    fn new(n: usize, cols: usize) -> Sums {
        Sums { squares: vec![0.0; n * cols], counts: vec![0; n] }
    }

    fn add(&mut self, matrix: usize, row: &[f32]) {
        let cols = row.len();
        let squares = &mut self.squares[matrix * cols..(matrix + 1) * cols];
        squares.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x).powi(2));
        self.counts[matrix] += 1;
    }

    fn join(&mut self, other: &Sums) {
        self.squares.iter_mut().zip(&other.squares).for_each(|(a, b)| *a += b);
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
    }
}

impl Observer {
    /// For windows of so many tokens.
    ///
    /// # Errors
    /// What preparing the model says.
    pub fn new(cpu: Arc<Cpu>, plan: &Arc<Plan>, window: usize) -> Result<Observer> {
        let (plan, n_pages) = (plan.for_context(window), window.div_ceil(PAGE));
        let options = RunnerOptions {
            max_tokens: window,
            max_outputs: 1,
            kv: KvKind::F16,
            n_pages,
            n_states: 1,
            n_window_pages: 0,
        };
        let runner = CpuRunner::new(cpu, Arc::clone(&plan), options)?;
        let inputs = Inputs { tables: vec![(0..n_pages as u32).collect()], ..Inputs::default() };
        Ok(Observer { runner, plan, inputs, n_pages, window, n_windows: 0, tensors: BTreeMap::new() })
    }

    /// Runs a window, which nothing goes before.
    ///
    /// # Errors
    /// [`Error::Request`] for more tokens than the window has, or ids beyond the vocabulary.
    pub fn add(&mut self, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() || tokens.len() > self.window {
            return Err(Error::request(format!("a window has from 1 to {} tokens, not {}", self.window, tokens.len())));
        }
        self.inputs.tokens.clear();
        self.inputs.positions.clear();
        self.inputs.seqs.clear();
        tokens.iter().zip(0..).for_each(|(id, at)| _ = self.inputs.push(*id, at, 0));
        self.inputs.check(self.runner.n_token_ids(), self.n_pages).map_err(Error::Request)?;
        let plan = Arc::clone(&self.plan);
        let mut done = 0;
        for (i, entry) in plan.ops.iter().enumerate() {
            let needed = self.inputs.count(entry.when) > 0;
            let Some((mut rows, weight)) = Rows::of(&entry.op).filter(|_| needed) else { continue };
            // Columns are counted in their own order.
            if let Some(Op::TakeCols { x, out, .. }) = plan.ops[..i].last().map(|before| before.op)
                && out == rows.x
            {
                rows.x = x;
            }
            // A norm is part of the op that multiplies.
            let end = if rows.normed { i + 1 } else { i };
            self.run(done..end);
            done = end;
            self.observe(&rows, plan.weight(weight));
        }
        self.run(done..plan.ops.len());
        self.n_windows += 1;
        Ok(())
    }

    fn run(&mut self, ops: Range<usize>) {
        self.runner.run_ops(ops, &self.inputs);
    }

    fn observe(&mut self, rows: &Rows, weight: &Weight) {
        let names = weight.segments.iter().map(|s| s.name.as_str()).filter(|name| name.starts_with("blk."));
        let names: BTreeSet<&str> = names.collect();
        if names.is_empty() {
            return;
        }
        let (k, x) = (weight.cols, self.runner.slot(rows.x, &self.inputs));
        let mut sums = Sums::new(rows.n, k);
        match rows.kind {
            Kind::Plain => x.chunks_exact(k).for_each(|row| sums.add(0, row)),
            Kind::Heads { pass } => {
                x.chunks_exact(k + pass).enumerate().for_each(|(i, head)| sums.add(i % rows.n, &head[..k]));
            }
            Kind::Picked { picks, used, each } => {
                let picks = self.runner.slot(picks, &self.inputs).chunks_exact(2 * used);
                let picked = picks.flat_map(|row| &row[..used]).map(|id| id.to_bits() as usize);
                for (place, matrix) in picked.enumerate() {
                    let from = if each { place } else { place / used };
                    sums.add(matrix.min(rows.n - 1), &x[from * k..(from + 1) * k]);
                }
            }
        }
        for name in names {
            match self.tensors.get_mut(name) {
                Some(known) => known.join(&sums),
                None => _ = self.tensors.insert(name.to_owned(), sums.clone()),
            }
        }
    }

    /// Matrices that were multiplied with anything.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Writes the sums; `text` is what the windows are of.
    ///
    /// # Errors
    /// [`Error::Request`] if nothing was added, [`Error::Format`] if the model computes what is no number, [`Error::Io`] if the
    /// file cannot be written.
    pub fn write(&self, path: &Path, text: &str) -> Result<()> {
        if self.is_empty() {
            return Err(Error::request("nothing was observed: an importance matrix takes one window at least"));
        }
        let meta = MetaBuilder::new()
            .str("general.type", "imatrix")
            .strs("imatrix.datasets", &[text])
            .u32("imatrix.chunk_count", self.n_windows)
            .u32("imatrix.chunk_size", self.window as u32);
        let (mut writer, mut data) = (GgufWriter::new(meta)?, Vec::new());
        let bytes = |values: &mut dyn Iterator<Item = f32>| values.flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
        for (name, sums) in &self.tensors {
            if sums.squares.iter().any(|sum| !(*sum as f32).is_finite()) {
                return Err(Error::format(format!("what {name} is multiplied with is no finite number somewhere")));
            }
            let (n, cols) = (sums.counts.len(), sums.squares.len() / sums.counts.len());
            writer.tensor(&format!("{name}.in_sum2"), &[cols as u64, n as u64], DType::F32)?;
            data.push(bytes(&mut sums.squares.iter().map(|sum| *sum as f32)));
            writer.tensor(&format!("{name}.counts"), &[1, n as u64], DType::F32)?;
            data.push(bytes(&mut sums.counts.iter().map(|n| *n as f32)));
        }
        let io = |source| Error::Io { action: "write", path: path.to_owned(), source };
        let (part, file) = Unfinished::create(path)?;
        let mut out = std::io::BufWriter::new(file);
        writer.write(&mut out, &mut |i| std::mem::take(&mut data[i])).map_err(io)?;
        out.flush().map_err(io)?;
        part.finish(path)
    }
}

/// The rows that an op multiplies matrices with.
struct Rows {
    x: Slot,
    /// `x` holds them behind the op, and not in front of it.
    normed: bool,
    /// Matrices.
    n: usize,
    kind: Kind,
}

enum Kind {
    Plain,
    /// Columns of every head, and so many behind them that are not multiplied.
    Heads {
        pass: usize,
    },
    /// Rows for the matrices that they picked; `each` pick may have a row of its own.
    Picked {
        picks: Slot,
        used: usize,
        each: bool,
    },
}

impl Rows {
    fn of(op: &Op) -> Option<(Rows, crate::plan::WeightId)> {
        match *op {
            Op::Linear { x, norm, weight, .. } => {
                let of_norm = norm.map(|Prologue { normed, .. }| normed);
                Some((Rows { x: of_norm.unwrap_or(x), normed: of_norm.is_some(), n: 1, kind: Kind::Plain }, weight))
            }
            Op::ExpertLinear { x, each, pick, weight, .. } => {
                let kind = Kind::Picked { picks: pick.picks, used: pick.used, each };
                Some((Rows { x, normed: false, n: pick.of, kind }, weight))
            }
            Op::HeadLinear { x, weight, n_heads, pass, .. } => {
                Some((Rows { x, normed: false, n: n_heads, kind: Kind::Heads { pass } }, weight))
            }
            _ => None,
        }
    }
}
