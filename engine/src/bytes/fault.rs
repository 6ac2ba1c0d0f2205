//! What happens when a mapped file is cut short: the system raises SIGBUS where its bytes were. The handler here puts zeros
//! in their place and notes that the file is damaged, so that a step ends and its results are thrown away. A SIGBUS of
//! anything else goes where it went before.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Files that are mapped at once and guarded, at most. Those beyond end the program, as without a guard.
const MAX_MAPS: usize = 1024;

/// A mapped file, readable from a signal handler: no lock, no memory of its own.
struct Slot {
    taken: AtomicBool,
    start: AtomicUsize,
    /// Behind the last byte; 0: nothing is here.
    end: AtomicUsize,
    damaged: AtomicBool,
}

impl Slot {
    const fn empty() -> Slot {
        Slot {
            taken: AtomicBool::new(false),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            damaged: AtomicBool::new(false),
        }
    }
}

static SLOTS: [Slot; MAX_MAPS] = [const { Slot::empty() }; MAX_MAPS];

/// What SIGBUS did before.
static mut BEFORE: Option<libc::sigaction> = None;

static INSTALLED: Once = Once::new();

/// Bytes of a page.
static PAGE: AtomicUsize = AtomicUsize::new(0);

/// A map that is guarded as long as this lives.
#[derive(Debug)]
pub(super) struct Guard(usize);

impl Guard {
    /// Guards mapped bytes; `None` where too many are mapped already.
    pub(super) fn new(map: &[u8]) -> Option<Guard> {
        INSTALLED.call_once(install);
        let free = |slot: &Slot| slot.taken.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        let at = SLOTS.iter().position(free)?;
        let slot = &SLOTS[at];
        slot.damaged.store(false, Ordering::Relaxed);
        slot.start.store(map.as_ptr() as usize, Ordering::Relaxed);
        slot.end.store(map.as_ptr() as usize + map.len(), Ordering::Release);
        Some(Guard(at))
    }

    /// Whether bytes were missing that somebody read.
    pub(super) fn is_damaged(&self) -> bool {
        SLOTS[self.0].damaged.load(Ordering::Acquire)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let slot = &SLOTS[self.0];
        slot.end.store(0, Ordering::Release);
        slot.taken.store(false, Ordering::Release);
    }
}

#[allow(unsafe_code, reason = "the system's calls about signals")]
fn install() {
    // SAFETY: `sysconf` reads a constant. The structures are zeroed, which is a valid value of each, and filled as the
    // system wants them. `BEFORE` is written once, here, before the handler that reads it can run.
    unsafe {
        PAGE.store(usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).unwrap_or(4096), Ordering::Release);
        let mut before: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut before) != 0 {
            return;
        }
        BEFORE = Some(before);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
    }
}

/// Puts zeros from the missing page to the end of its map. Only what a signal handler may do: atomics and `mmap`.
#[allow(unsafe_code, reason = "a signal handler, and what it asks of the system")]
extern "C" fn handler(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system gives a valid `info` to a handler with SA_SIGINFO.
    let address = unsafe { (*info).si_addr() } as usize;
    let holds = |slot: &&Slot| {
        let end = slot.end.load(Ordering::Acquire);
        end != 0 && (slot.start.load(Ordering::Relaxed)..end).contains(&address)
    };
    if let Some(slot) = SLOTS.iter().find(holds) {
        let page = PAGE.load(Ordering::Acquire);
        let from = address / page * page;
        let length = slot.end.load(Ordering::Acquire).saturating_sub(from);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: the range lies in a map that this process made of a file and that is read-only. Somebody reads it now, so
        // it is not unmapped meanwhile, and nobody else has memory there. Readers see other bytes than before, as they would if
        // the file's were overwritten; all bytes are valid for `u8`.
        let zeros = unsafe { libc::mmap(from as *mut libc::c_void, length, libc::PROT_READ, flags, -1, 0) };
        if zeros != libc::MAP_FAILED {
            slot.damaged.store(true, Ordering::Release);
            return;
        }
    }
    // SAFETY: `BEFORE` was written before this handler was installed and is not written again. What was there before is either
    // a function of the form that its flags say, or one of the system's own ways, which comes into force by this call: the
    // instruction is tried again, and ends the process as it would have.
    unsafe {
        let Some(before) = BEFORE else { libc::abort() };
        if before.sa_sigaction == libc::SIG_DFL || before.sa_sigaction == libc::SIG_IGN {
            libc::sigaction(signal, &raw const before, std::ptr::null_mut());
        } else if before.sa_flags & libc::SA_SIGINFO != 0 {
            let before: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                std::mem::transmute(before.sa_sigaction);
            before(signal, info, context);
        } else {
            let before: extern "C" fn(libc::c_int) = std::mem::transmute(before.sa_sigaction);
            before(signal);
        }
    }
}
