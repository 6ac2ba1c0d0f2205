//! Pages and states of a runner as bytes, to be kept beyond its cache. A divided model's are those of its parts, in the order of
//! the layers.

use super::Runner;
use crate::plan::CachePlace;

impl Runner {
    /// Whether the device gives and takes pages and states as bytes.
    pub fn gives_pages(&self) -> bool {
        !cfg!(target_arch = "wasm32") || matches!(self, Runner::Cpu(_))
    }

    /// What these pages and slots of states hold, each on its own; `None` on a device that does not give them, or has failed.
    pub fn read_kept(&mut self, all: &[CachePlace]) -> Option<Vec<Vec<u8>>> {
        match self {
            Runner::Cpu(runner) => Some(all.iter().map(|kept| runner.read_kept(*kept)).collect()),
            #[cfg(all(feature = "gpu", not(target_arch = "wasm32")))]
            Runner::Gpu(runner) => runner.read_kept(all).ok(),
            #[cfg(not(target_arch = "wasm32"))]
            Runner::Split(runner) => {
                let mut whole = vec![Vec::new(); all.len()];
                for part in runner.runners_mut() {
                    for (whole, mut own) in whole.iter_mut().zip(part.read_kept(all)?) {
                        whole.append(&mut own);
                    }
                }
                Some(whole)
            }
            #[cfg(all(feature = "gpu", target_arch = "wasm32"))]
            Runner::Gpu(_) => None,
        }
    }

    /// Fills a page or a slot of states with what [`Runner::read_kept`] gave for the same plan. Says whether it is of that length;
    /// if not, it may have changed in part.
    pub fn write_kept(&mut self, kept: CachePlace, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        self.take_kept(kept, &mut rest) && rest.is_empty()
    }

    fn take_kept(&mut self, kept: CachePlace, bytes: &mut &[u8]) -> bool {
        match self {
            Runner::Cpu(runner) => runner.write_kept(kept, bytes),
            #[cfg(all(feature = "gpu", not(target_arch = "wasm32")))]
            Runner::Gpu(runner) => runner.write_kept(kept, bytes),
            #[cfg(not(target_arch = "wasm32"))]
            Runner::Split(runner) => runner.runners_mut().all(|part| part.take_kept(kept, bytes)),
            #[cfg(all(feature = "gpu", target_arch = "wasm32"))]
            Runner::Gpu(_) => false,
        }
    }
}
