//! Pages and states of a runner as bytes: what its layers hold, one after the other.

use super::CpuRunner;
use crate::plan::CachePlace;

impl CpuRunner {
    /// What is kept of a page or a slot of states.
    pub fn read_kept(&self, kept: CachePlace) -> Vec<u8> {
        match kept {
            CachePlace::Page { group, page } => {
                let layers = self.kv.iter().filter(|layer| layer.group() == group && !layer.is_empty());
                layers.flat_map(|layer| layer.page(page)).collect::<Vec<_>>().concat()
            }
            CachePlace::State(slot) => {
                let states = self.states.iter().flat_map(|state| bytemuck::cast_slice::<f32, u8>(state.slot(slot)));
                states.copied().collect()
            }
        }
    }

    /// Takes from the front of `bytes` what a page or a slot of states holds. Says whether there were as many; if not, a part of
    /// it may have changed.
    pub fn write_kept(&mut self, kept: CachePlace, bytes: &mut &[u8]) -> bool {
        match kept {
            CachePlace::Page { group, page } => {
                let layers = self.kv.iter_mut().filter(|layer| layer.group() == group && !layer.is_empty());
                fill(layers.flat_map(|layer| layer.page_mut(page)), bytes)
            }
            CachePlace::State(slot) => {
                fill(self.states.iter_mut().map(|state| bytemuck::cast_slice_mut(state.slot_mut(slot))), bytes)
            }
        }
    }
}

fn fill<'a>(parts: impl Iterator<Item = &'a mut [u8]>, bytes: &mut &[u8]) -> bool {
    for part in parts {
        let Some((own, more)) = bytes.split_at_checked(part.len()) else { return false };
        part.copy_from_slice(own);
        *bytes = more;
    }
    true
}
