//! [`Zeroed`]: memory that begins as zeros and is taken from the system when it is first written.

use std::ops::{Deref, DerefMut};

use bytemuck::Pod;

use crate::error::{Error, Result};

/// From this size on a buffer is a mapping of its own. An allocator that has freed a large buffer before may serve the
/// next one from its heap, where zeros are written at once.
#[cfg(not(target_arch = "wasm32"))]
const MAPPED: usize = 128 << 10;

/// A buffer of fixed length.
#[derive(Debug)]
pub(super) struct Zeroed<T>(Memory<T>);

#[derive(Debug)]
enum Memory<T> {
    Heap(Vec<T>),
    #[cfg(not(target_arch = "wasm32"))]
    Map(memmap2::MmapMut),
}

impl<T: Pod> Zeroed<T> {
    /// `n` zeros.
    ///
    /// # Errors
    /// [`Error::Limit`] if the system would not give that much.
    pub(super) fn new(n: usize) -> Result<Zeroed<T>> {
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(bytes) = n.checked_mul(size_of::<T>()).filter(|bytes| *bytes >= MAPPED) {
            let map = memmap2::MmapMut::map_anon(bytes).map_err(|_| refused::<T>(n))?;
            return Ok(Zeroed(Memory::Map(map)));
        }
        // `vec!` aborts if memory does not suffice; asking for it first does not.
        Vec::<T>::new().try_reserve_exact(n).map_err(|_| refused::<T>(n))?;
        Ok(Zeroed(Memory::Heap(vec![T::zeroed(); n])))
    }
}

fn refused<T>(n: usize) -> Error {
    let mib = n.saturating_mul(size_of::<T>()) >> 20;
    Error::limit(format!("there is no memory for a buffer of {mib} MiB: ask for a shorter context"))
}

impl<T> Default for Zeroed<T> {
    fn default() -> Self {
        Zeroed(Memory::Heap(Vec::new()))
    }
}

impl<T: Pod> Deref for Zeroed<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Memory::Heap(v) => v,
            #[cfg(not(target_arch = "wasm32"))]
            Memory::Map(map) => bytemuck::cast_slice(map),
        }
    }
}

impl<T: Pod> DerefMut for Zeroed<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.0 {
            Memory::Heap(v) => v,
            #[cfg(not(target_arch = "wasm32"))]
            Memory::Map(map) => bytemuck::cast_slice_mut(map),
        }
    }
}
