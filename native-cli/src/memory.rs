//! The most memory that this process has had at once, as the system counts it.

/// Peak resident memory in bytes; `None` where the system does not say.
pub(crate) fn peak() -> Option<u64> {
    status("VmHWM:")
}

/// The part of the resident memory, at this moment, that is mapped files.
pub(crate) fn mapped() -> Option<u64> {
    status("RssFile:")
}

/// A field of Linux's `/proc/self/status`, in bytes.
fn status(field: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
