//! How much memory an adapter has of its own. WebGPU does not say; Vulkan does.

/// Bytes of the largest heap beside the adapter's processor; `None` where the backend does not say. Of an integrated adapter
/// this is a part of the machine's memory.
#[cfg(not(any(target_arch = "wasm32", target_vendor = "apple")))]
pub(super) fn memory(adapter: &wgpu::Adapter) -> Option<u64> {
    /// `VK_MEMORY_HEAP_DEVICE_LOCAL_BIT`.
    const LOCAL: u32 = 1;
    #[allow(unsafe_code, reason = "wgpu marks every look at a backend's own handles so")]
    // SAFETY: the handles are used while the adapter lives, and nothing is created, changed or destroyed through them: the
    // one call copies constants of the physical device.
    let found = unsafe {
        let hal = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
        let instance = hal.shared_instance().raw_instance();
        instance.get_physical_device_memory_properties(hal.raw_physical_device())
    };
    let heaps = found.memory_heaps.iter().take(found.memory_heap_count as usize);
    heaps.filter(|heap| heap.flags.as_raw() & LOCAL != 0).map(|heap| heap.size).max()
}

/// As above, where it is not known.
#[cfg(any(target_arch = "wasm32", target_vendor = "apple"))]
pub(super) fn memory(_: &wgpu::Adapter) -> Option<u64> {
    None
}
