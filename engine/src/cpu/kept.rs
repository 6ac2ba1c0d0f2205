//! Pages and states of a runner as bytes: what its layers hold, one after the other.

use super::CpuRunner;

impl CpuRunner {
    /// Keys and values of every layer of a group in a page.
    pub fn page(&self, group: usize, page: u32) -> Vec<u8> {
        let layers = self.kv.iter().filter(|layer| layer.group() == group && !layer.is_empty());
        layers.flat_map(|layer| layer.page(page)).collect::<Vec<_>>().concat()
    }

    /// Fills a page with such bytes. Says whether they are as many.
    pub fn set_page(&mut self, group: usize, page: u32, bytes: &[u8]) -> bool {
        let layers = self.kv.iter_mut().filter(|layer| layer.group() == group && !layer.is_empty());
        fill(layers.flat_map(|layer| layer.page_mut(page)), bytes)
    }

    /// Every state of a slot.
    pub fn state(&self, slot: u32) -> Vec<u8> {
        self.states.iter().flat_map(|state| bytemuck::cast_slice::<f32, u8>(state.slot(slot)).iter().copied()).collect()
    }

    /// Fills a slot with such bytes. Says whether they are as many.
    pub fn set_state(&mut self, slot: u32, bytes: &[u8]) -> bool {
        fill(self.states.iter_mut().map(|state| bytemuck::cast_slice_mut(state.slot_mut(slot))), bytes)
    }
}

/// Shares bytes out. Says whether they fit; if not, some parts may have changed.
fn fill<'a>(parts: impl Iterator<Item = &'a mut [u8]>, bytes: &[u8]) -> bool {
    let mut rest = bytes;
    for part in parts {
        let Some((own, more)) = rest.split_at_checked(part.len()) else { return false };
        part.copy_from_slice(own);
        rest = more;
    }
    rest.is_empty()
}
