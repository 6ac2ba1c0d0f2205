//! The store against a hub and registry on loopback, other programs' folders, and hostile input. `IR_FULL=1` runs the
//! long parts whole.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    unreachable_pub,
    missing_docs,
    reason = "a test that cannot go on fails; what tests share needs no manual"
)]

mod hub;
mod interrupted;
mod making;
mod names;
mod places;
mod pulls;
mod rate;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ir_store::{Error, Event, ModelName, Settings, Store, Tuning};

/// So many in a run, and so many with `IR_FULL=1`.
pub fn amount(run: usize, full: usize) -> usize {
    if std::env::var_os("IR_FULL").is_some_and(|v| v == "1") { full } else { run }
}

/// A folder of its own for a test.
pub fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("store").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Settings for files of tests: small ranges, short waits.
pub fn settings(root: &Path, hub: &str) -> Settings {
    let mut settings = Settings::new(root);
    (settings.hub, settings.registry) = (hub.to_owned(), hub.to_owned());
    settings.tuning = Tuning {
        streams: 3,
        min_range: 64 << 10,
        journal_step: 32 << 10,
        attempts: 6,
        first_wait: Duration::from_millis(2),
        longest_wait: Duration::from_millis(50),
        stall: Duration::from_secs(20),
    };
    settings
}

pub fn name(text: &str) -> ModelName {
    ModelName::parse(text).unwrap()
}

/// Pulls to the end; gives the events.
pub fn pull(store: &Arc<Store>, model: &str) -> Result<Vec<Event>, Error> {
    let mut watcher = store.pull(&name(model))?;
    let mut events = Vec::new();
    while let Some(event) = watcher.next_blocking() {
        events.push(event?);
    }
    Ok(events)
}

/// The bytes of a model that is here.
pub fn bytes_of(store: &Store, model: &str) -> Vec<u8> {
    std::fs::read(store.resolve(&name(model)).unwrap().unwrap().path).unwrap()
}

/// Nothing is wrong in the store, and nothing in it that no model needs.
pub fn assert_clean(store: &Store) {
    let faults = store.verify(false, &mut |_, _| {}).unwrap();
    assert!(faults.is_empty(), "{faults:?}");
}
