// Who finishes last of workgroups that count themselves at a place of `finished`, a binding of the kernel: what the others wrote to
// coherent buffers in front of it, the last one sees. storageBarrier() orders memory for the whole device, and every
// workgroup counts itself behind it. Pages promise none of that, so kernels with COHERENT are native.

var<workgroup> before_s: u32; // workgroups that were done before this one

// Whether this workgroup is the last of `n`. All invocations must call it; the count is 0 again behind the last.
fn is_last(lid: u32, counter: u32, n: u32) -> bool {
    storageBarrier();
    if (lid == 0u) { before_s = atomicAdd(&finished[counter], 1u); }
    workgroupBarrier();
    if (before_s + 1u < n) { return false; }
    storageBarrier();
    if (lid == 0u) { atomicStore(&finished[counter], 0u); }
    return true;
}
