//! How much memory an adapter has of its own, and how much of it is free. WebGPU says neither; Vulkan and Metal do.

/// Bytes of an adapter's memory. Of an integrated adapter they are a part of the machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AdapterMemory {
    /// All of it.
    pub total: u64,
    /// What this process may still take without driving others out; `None` where the driver does not say.
    pub free: Option<u64>,
}

/// The largest heap beside the adapter's processor, with the driver's budget for it (`VK_EXT_memory_budget`); `None` where the
/// backend does not say.
#[cfg(not(any(target_arch = "wasm32", target_vendor = "apple")))]
pub(super) fn memory(adapter: &wgpu::Adapter) -> Option<AdapterMemory> {
    use ash::vk;
    let mut budgets = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    #[allow(unsafe_code, reason = "wgpu marks every look at a backend's own handles so")]
    // SAFETY: the handles are used while the adapter lives, and nothing is created, changed or destroyed through them: the
    // calls copy numbers of the physical device. The second one exists from Vulkan 1.1 on, and a driver without the extension
    // passes over the budgets.
    let found = unsafe {
        let hal = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
        let (shared, device) = (hal.shared_instance(), hal.raw_physical_device());
        if shared.instance_api_version() >= vk::API_VERSION_1_1 {
            let mut found = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budgets);
            shared.raw_instance().get_physical_device_memory_properties2(device, &mut found);
            found.memory_properties
        } else {
            shared.raw_instance().get_physical_device_memory_properties(device)
        }
    };
    let heaps = found.memory_heaps.iter().take(found.memory_heap_count as usize).enumerate();
    let own = heaps.filter(|(_, heap)| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL));
    let (at, heap) = own.max_by_key(|(_, heap)| heap.size)?;
    let said = Some(budgets.heap_budget[at]).filter(|budget| *budget > 0);
    let free = said.map(|budget| budget.min(heap.size).saturating_sub(budgets.heap_usage[at]));
    Some(AdapterMemory { total: heap.size, free })
}

/// The working set that Metal recommends, and what this process has of it.
#[cfg(target_vendor = "apple")]
pub(super) fn memory(adapter: &wgpu::Adapter) -> Option<AdapterMemory> {
    use objc2_metal::MTLDevice;
    #[allow(unsafe_code, reason = "wgpu marks every look at a backend's own handles so")]
    // SAFETY: the handle is used while the adapter lives, and only asked for two numbers.
    let (total, taken) = unsafe {
        let hal = adapter.as_hal::<wgpu::hal::api::Metal>()?;
        let device = hal.raw_device();
        (device.recommendedMaxWorkingSetSize(), device.currentAllocatedSize() as u64)
    };
    Some(AdapterMemory { total, free: Some(total.saturating_sub(taken)) })
}

/// As above, where it is not known.
#[cfg(target_arch = "wasm32")]
pub(super) fn memory(_: &wgpu::Adapter) -> Option<AdapterMemory> {
    None
}
