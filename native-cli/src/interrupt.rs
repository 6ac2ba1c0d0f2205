//! What Ctrl-C does: one action at a time, the one that was set last.

use std::sync::{Mutex, Once, PoisonError};

type Action = Box<dyn Fn() + Send>;

static ACTION: Mutex<Option<Action>> = Mutex::new(None);
static ONCE: Once = Once::new();

/// From now on Ctrl-C does this.
pub(crate) fn on(action: impl Fn() + Send + 'static) {
    *ACTION.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(action));
    ONCE.call_once(|| {
        // Without a handler Ctrl-C ends the process, which is right too.
        let _ = ctrlc::set_handler(|| {
            if let Some(action) = &*ACTION.lock().unwrap_or_else(PoisonError::into_inner) {
                action();
            }
        });
    });
}
