//! Pages and states of a runner as bytes, to be kept beyond its cache.

use super::Runner;

impl Runner {
    /// Whether the device gives and takes pages and states as bytes.
    pub fn gives_pages(&self) -> bool {
        matches!(self, Runner::Cpu(_))
    }

    /// What a page of a group of caches holds, on a device that gives it.
    pub fn page(&self, group: usize, page: u32) -> Option<Vec<u8>> {
        match self {
            Runner::Cpu(runner) => Some(runner.page(group, page)),
            _ => None,
        }
    }

    /// Fills a page with what [`Runner::page`] gave for the same plan. Says whether it is of that length.
    pub fn set_page(&mut self, group: usize, page: u32, bytes: &[u8]) -> bool {
        match self {
            Runner::Cpu(runner) => runner.set_page(group, page, bytes),
            _ => false,
        }
    }

    /// What a slot of states holds, on a device that gives it.
    pub fn state(&self, slot: u32) -> Option<Vec<u8>> {
        match self {
            Runner::Cpu(runner) => Some(runner.state(slot)),
            _ => None,
        }
    }

    /// Fills a slot with what [`Runner::state`] gave for the same plan. Says whether it is of that length.
    pub fn set_state(&mut self, slot: u32, bytes: &[u8]) -> bool {
        match self {
            Runner::Cpu(runner) => runner.set_state(slot, bytes),
            _ => false,
        }
    }
}
