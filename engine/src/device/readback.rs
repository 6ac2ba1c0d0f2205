//! What a step gives back, and its way back.

use crate::error::Result;
#[cfg(feature = "gpu")]
use crate::gpu::{GpuReadback, Results};
#[cfg(feature = "gpu")]
use crate::plan::{TOP, Want};

/// A step's results on their way back.
#[derive(Debug)]
pub enum Readback {
    /// They are there.
    Done(Output),
    /// They are being copied from a GPU.
    #[cfg(feature = "gpu")]
    Gpu {
        /// The results.
        results: GpuReadback,
        /// What was wanted of each output.
        wants: Vec<Want>,
        /// Columns of a row.
        n_vocab: usize,
    },
    /// Those of micro-batches, in their order, each with the number of its outputs.
    #[cfg(not(target_arch = "wasm32"))]
    Several(Vec<(Readback, usize)>),
}

impl Readback {
    /// The results where they are there already; the readback itself where not.
    ///
    /// # Errors
    /// Where the device failed in the meantime.
    pub fn ready(self) -> Result<Result<Output, Readback>> {
        match self {
            Readback::Done(output) => Ok(Ok(output)),
            #[cfg(feature = "gpu")]
            Readback::Gpu { results, wants, n_vocab } => Ok(match results.ready()? {
                Ok(results) => Ok(Output::of(results, &wants, n_vocab)),
                Err(results) => Err(Readback::Gpu { results, wants, n_vocab }),
            }),
            #[cfg(not(target_arch = "wasm32"))]
            Readback::Several(all) => {
                let (mut there, mut whole) = (Vec::new(), true);
                for (readback, outputs) in all {
                    let now = readback.ready()?;
                    whole &= now.is_ok();
                    there.push((now.map_or_else(|later| later, Readback::Done), outputs));
                }
                let several = Readback::Several(there);
                if whole { several.wait().map(Ok) } else { Ok(Err(several)) }
            }
        }
    }

    /// The results, waited for by blocking: not for a page.
    ///
    /// # Errors
    /// Where the device failed in the meantime.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait(self) -> Result<Output> {
        match self {
            Readback::Done(output) => Ok(output),
            #[cfg(feature = "gpu")]
            Readback::Gpu { results, wants, n_vocab } => Ok(Output::of(results.wait()?, &wants, n_vocab)),
            Readback::Several(all) => {
                let wait = |(readback, outputs): (Readback, usize)| Ok((readback.wait()?, outputs));
                Ok(Output::joined(all.into_iter().map(wait).collect::<Result<_>>()?))
            }
        }
    }

    /// The results, waited for. Natively the first poll waits for the device.
    ///
    /// # Errors
    /// Where the device failed in the meantime.
    pub async fn read(self) -> Result<Output> {
        match self {
            Readback::Done(output) => Ok(output),
            #[cfg(feature = "gpu")]
            Readback::Gpu { results, wants, n_vocab } => Ok(Output::of(results.await?, &wants, n_vocab)),
            // Natively the first poll waits.
            #[cfg(not(target_arch = "wasm32"))]
            several => several.wait(),
        }
    }
}

/// What a slot holds, on its way back.
#[cfg(not(target_arch = "wasm32"))]
pub(super) enum SlotReadback {
    /// It is there.
    Done(Vec<f32>),
    /// It is being copied from a GPU.
    #[cfg(feature = "gpu")]
    Gpu(GpuReadback),
}

#[cfg(not(target_arch = "wasm32"))]
impl SlotReadback {
    /// The values, waited for by blocking.
    ///
    /// # Errors
    /// Where the device failed in the meantime.
    pub(super) fn wait(self) -> Result<Vec<f32>> {
        match self {
            SlotReadback::Done(values) => Ok(values),
            #[cfg(feature = "gpu")]
            SlotReadback::Gpu(readback) => Ok(readback.wait()?.values),
        }
    }
}

/// What a device made of an output instead of giving its logits back.
#[derive(Debug, Clone, PartialEq)]
pub enum Picked {
    /// This token; `None` where the row's logits are damaged or all are minus infinity.
    Token(Option<u32>),
    /// The largest logits with their tokens, falling, minus infinities left out. Empty where the row is damaged.
    Top(Vec<(f32, u32)>),
}

/// What a step gives back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Output {
    /// `[outputs, n_vocab]`; empty where the device picked for every output.
    pub logits: Vec<f32>,
    /// Columns of a row.
    pub n_vocab: usize,
    /// Per output what the device picked, `None` where its logits are to be used; empty where it picks none.
    pub picked: Vec<Option<Picked>>,
    /// The same of each step of a chain that followed.
    pub later: Vec<Vec<Option<Picked>>>,
    /// `[pools, width]`: the means of rows that were wanted.
    pub pooled: Vec<f32>,
}

impl Output {
    #[cfg(feature = "gpu")]
    fn of(results: Results, wants: &[Want], n_vocab: usize) -> Output {
        let picked = wants.iter().enumerate().map(|(i, want)| match want {
            Want::Logits => None,
            Want::Pick { .. } => Some(Picked::Token(results.picked.get(i).copied().filter(|t| *t != u32::MAX))),
            Want::Top => {
                let sound = results.stats.get(i).is_some_and(|(top, sum)| top.is_finite() && sum.is_finite());
                let row = results.top.chunks(TOP).nth(i).filter(|_| sound).unwrap_or_default();
                Some(Picked::Top(row.iter().copied().filter(|c| c.0 > f32::NEG_INFINITY).collect()))
            }
        });
        let token = |token: &u32| Some(Picked::Token(Some(*token).filter(|t| *t != u32::MAX)));
        let later = results.picked.chunks(wants.len().max(1)).skip(1).map(|row| row.iter().map(token).collect());
        let (picked, later) = (picked.collect(), later.collect());
        Output { picked, later, logits: results.values, n_vocab, pooled: results.pooled }
    }

    /// The outputs of micro-batches, each with its number of rows, as those of one step.
    #[cfg(not(target_arch = "wasm32"))]
    fn joined(all: Vec<(Output, usize)>) -> Output {
        let mut whole = Output::default();
        let has_logits = all.iter().any(|(output, _)| !output.logits.is_empty());
        for (mut output, rows) in all {
            // Where a micro-batch has picks alone, rows that nobody reads stand for its logits.
            if has_logits {
                output.logits.resize(rows * output.n_vocab, 0.0);
            }
            whole.n_vocab = output.n_vocab;
            whole.logits.append(&mut output.logits);
            whole.picked.append(&mut output.picked);
            whole.pooled.append(&mut output.pooled);
        }
        whole
    }

    /// The logits of the `i`-th wanted row.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.logits[i * self.n_vocab..(i + 1) * self.n_vocab]
    }
}
