//! The most memory that this process has had at once, as the system counts it.

/// Peak resident memory in bytes; `None` where the system does not say.
#[cfg(target_os = "linux")]
pub(crate) fn peak() -> Option<u64> {
    status("VmHWM:")
}

/// Peak resident memory in bytes; `None` where the system does not say.
#[cfg(all(unix, not(target_os = "linux")))]
pub(crate) fn peak() -> Option<u64> {
    use nix::sys::resource::{UsageWho, getrusage};
    let peak = u64::try_from(getrusage(UsageWho::RUSAGE_SELF).ok()?.max_rss()).ok()?;
    // Apple counts bytes, the BSDs kibibytes.
    if cfg!(target_vendor = "apple") { Some(peak) } else { peak.checked_mul(1024) }
}

/// Peak resident memory in bytes; `None` where the system does not say.
#[cfg(not(unix))]
pub(crate) fn peak() -> Option<u64> {
    None
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
