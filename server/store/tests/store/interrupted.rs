//! Interruptions in a row, processes killed at random moments, and two processes that do what they like with the same
//! names. A killed or second process is this test's own binary, run again.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ir_store::{Kind, Store};

use crate::hub::{Faults, Hub, random_bytes};
use crate::{amount, assert_clean, bytes_of, folder, name, pull, settings};

const NAME: &str = "ann/fox:Q4_0";
const SIZE: usize = 3_000_000;

fn hub() -> (Hub, Vec<u8>) {
    let (hub, bytes) = (Hub::start(), random_bytes(SIZE, 21));
    hub.file("/ann/fox/fox-Q4_0.gguf", &bytes);
    (hub, bytes)
}

#[test]
fn many_interruptions_in_a_row_end_in_the_right_file() {
    let (hub, bytes) = hub();
    let cuts = amount(20, 200) as u32;
    hub.faults(Faults { cuts, redirect: true, ..Faults::default() });
    let mut settings = settings(&folder("cuts"), &hub.url());
    // A cut may come at the first byte many times in a row.
    settings.tuning.attempts = 1000;
    let store = Store::new(settings);
    pull(&store, NAME).unwrap();
    assert_eq!(bytes_of(&store, NAME), bytes);
    let cut = hub.seen().iter().filter(|s| s.other).count();
    assert!(cut as u32 >= cuts, "{cut}");
    assert_clean(&store);
}

/// Runs a part of this test binary as another process.
fn other_process(test: &str, root: &std::path::Path, hub: &Hub) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("IR_STORE_CHILD", root)
        .env("IR_STORE_HUB", hub.url())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The store of a process that another test started; `None` in an ordinary run.
fn of_parent() -> Option<std::sync::Arc<Store>> {
    let root = std::env::var_os("IR_STORE_CHILD")?;
    Some(Store::new(settings(root.as_ref(), &std::env::var("IR_STORE_HUB").unwrap())))
}

#[test]
fn child_that_pulls() {
    if let Some(store) = of_parent() {
        pull(&store, NAME).unwrap();
    }
}

#[test]
fn killed_processes_lose_next_to_nothing() {
    let (hub, bytes) = hub();
    let root = folder("kills");
    let kills = amount(10, 100);
    let store = Store::new(settings(&root, &hub.url()));
    let (mut killed, mut alive) = (0u64, 0);
    for i in 0..kills {
        hub.faults(Faults { pause: Some(Duration::from_micros(400)), ..Faults::default() });
        let mut child = other_process("interrupted::child_that_pulls", &root, &hub);
        // At a random number of bytes instead of a random time: the same on any machine.
        hub.sent();
        let wanted = (i as u64 * 7919 * 1009) % (SIZE as u64 / 8);
        let mut sent = 0;
        let started = Instant::now();
        while sent < wanted && child.try_wait().unwrap().is_none() && started.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(1));
            sent += hub.sent();
        }
        alive += usize::from(child.try_wait().unwrap().is_none());
        // SIGKILL on Unix.
        child.kill().unwrap();
        child.wait().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        killed += sent + hub.sent();
        // A manifest that is there names a blob that is there and right.
        assert_clean(&store);
        if let Some(found) = store.resolve(&name(NAME)).unwrap() {
            assert_eq!(std::fs::read(found.path).unwrap(), bytes);
            store.remove(&name(NAME)).unwrap();
            killed = 0;
        }
    }
    assert!(alive > kills / 2, "{alive} of {kills} processes lived until they were killed");
    hub.faults(Faults::default());
    pull(&store, NAME).unwrap();
    assert_eq!(bytes_of(&store, NAME), bytes);
    // Each kill may lose what was not noted yet and what was on its way, for each stream.
    let slack = kills as u64 * 3 * ((32 << 10) + (300 << 10));
    let total = killed + hub.sent();
    assert!(total <= SIZE as u64 + slack, "{total} bytes for a file of {SIZE}");
    assert_clean(&store);
}

/// Pulls, opens, copies and removes at random; only errors that say what happened are right.
fn at_random(store: &std::sync::Arc<Store>, seed: u64, time: Duration) {
    let names = ["ann/fox:Q4_0", "ann/hen:Q4_0", "cock:one"];
    let mut x = seed | 1;
    let started = Instant::now();
    while started.elapsed() < time {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        let model = names[(x >> 20) as usize % names.len()];
        let result = match (x >> 40) % 6 {
            0 | 1 => pull(store, model).map(|_| ()),
            2 => store.remove(&name(model)),
            3 => store.copy(&name(model), &name("copy-of-it")),
            4 => store.gc((x >> 50).is_multiple_of(2)).map(|_| ()),
            _ => match store.resolve(&name(model)) {
                Ok(Some(found)) => match std::fs::File::open(&found.path) {
                    Ok(_) => Ok(()),
                    // Removed by the other process since.
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
                    Err(e) => panic!("{e}"),
                },
                other => other.map(|_| ()),
            },
        };
        if let Err(e) = result {
            // It was removed before, or while it was pulled or looked at.
            let clean =
                e.kind == Kind::NotFound || e.what.contains("removed while") || e.what.contains("is missing or has");
            assert!(clean, "{model}: {e}");
        }
    }
}

#[test]
fn child_that_does_as_it_likes() {
    if let Some(store) = of_parent() {
        at_random(&store, 99, Duration::from_secs(amount(8, 60) as u64));
    }
}

#[test]
fn two_processes_with_the_same_names_do_no_harm() {
    let hub = Hub::start();
    for (i, animal) in ["fox", "hen"].iter().enumerate() {
        hub.file(&format!("/ann/{animal}/{animal}-Q4_0.gguf"), &random_bytes(300_000, i as u64 + 1));
    }
    // The same weights as the fox's, as a layer of a registry's model.
    hub.model("library/cock", "one", &[("model", &random_bytes(300_000, 1)), ("system", b"Crow.")]);
    let root = folder("two-processes");
    let store = Store::new(settings(&root, &hub.url()));
    let mut child = other_process("interrupted::child_that_does_as_it_likes", &root, &hub);
    at_random(&store, 7, Duration::from_secs(amount(8, 60) as u64));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    assert_clean(&store);
    // Nothing leaks: without names nothing is left.
    for model in ["ann/fox:Q4_0", "ann/hen:Q4_0", "cock:one", "copy-of-it"] {
        let _ = store.remove(&name(model));
    }
    store.gc(true).unwrap();
    for part in ["blobs", ".ir/partial", ".ir/locks", ".ir/pulls"] {
        let left: Vec<_> = std::fs::read_dir(root.join(part)).unwrap().flatten().map(|e| e.path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
