//! Other programs' folders, links, the list, and what collecting leaves.

use std::path::Path;

use ir_engine::builtin;
use ir_store::{Foreign, Kind, Origin, Store};

use crate::hub::{Hub, sha256};
use crate::{assert_clean, folder, name, pull, settings};

fn tiny() -> Vec<u8> {
    builtin::bytes().to_vec()
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// A store as Ollama leaves it.
fn ollama(root: &Path) {
    let layer = |kind: &str, bytes: &[u8]| {
        write(&root.join(format!("blobs/sha256-{}", sha256(bytes))), bytes);
        serde_json::json!({"mediaType": kind, "digest": format!("sha256:{}", sha256(bytes)), "size": bytes.len()})
    };
    let model = layer("application/vnd.ollama.image.model", &tiny());
    let system = layer("application/vnd.ollama.image.system", b"You are a fox.");
    let config = layer("application/vnd.docker.container.image.v1+json", b"{}");
    let manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": [model, system]}).to_string();
    write(&root.join("manifests/registry.ollama.ai/library/Fox/latest"), manifest.as_bytes());
}

fn everything(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(root).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(everything(&path));
        } else {
            all.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}

#[test]
fn other_programs_models_are_read_in_place() {
    let base = folder("foreign");
    ollama(&base.join("ollama"));
    let snapshot = base.join("hub/models--ann--fox/snapshots/abc123");
    write(&base.join("hub/models--ann--fox/blobs/d1"), &tiny());
    write(&base.join("hub/models--ann--fox/refs/main"), b"abc123");
    std::fs::create_dir_all(&snapshot).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("../../blobs/d1", snapshot.join("fox-Q4_0.gguf")).unwrap();
    #[cfg(not(unix))]
    write(&snapshot.join("fox-Q4_0.gguf"), &tiny());
    write(&base.join("lm/bea/hen/hen-Q8_0.gguf"), &tiny());
    write(&base.join("own/mine.gguf"), &tiny());
    let mut settings = settings(&base.join("own"), "http://127.0.0.1:9");
    for (origin, part) in [(Origin::Ollama, "ollama"), (Origin::HuggingFace, "hub"), (Origin::LmStudio, "lm")] {
        settings.foreign.push(Foreign { origin, folder: base.join(part) });
    }
    let before = ["ollama", "hub", "lm"].map(|part| everything(&base.join(part)));
    let store = Store::new(settings);
    let listed = store.list();
    let names: Vec<_> = listed.iter().map(|m| (m.name.as_str(), m.origin)).collect();
    assert_eq!(
        names,
        [
            ("Fox:latest", Origin::Ollama),
            ("hf.co/ann/fox:fox-Q4_0.gguf", Origin::HuggingFace),
            ("hf.co/bea/hen:hen-Q8_0.gguf", Origin::LmStudio),
            ("mine", Origin::Folder),
        ]
    );
    assert!(listed.iter().all(|m| m.details.family == "llama" && m.details.error.is_none()), "{listed:?}");
    for text in ["fox", "ann/fox", "ann/fox:Q4_0", "bea/hen:q8_0", "hf.co/ann/fox:fox-Q4_0.gguf"] {
        let found = store.resolve(&name(text)).unwrap().unwrap_or_else(|| panic!("{text}"));
        assert_eq!(std::fs::read(&found.path).unwrap(), tiny(), "{text}");
    }
    let fox = store.resolve(&name("fox")).unwrap().unwrap();
    assert_eq!(store.texts(&fox, "system").unwrap(), ["You are a fox."]);
    let error = store.remove(&name("fox")).unwrap_err();
    assert!(error.what.contains("ollama"), "{error}");
    store.gc(true).unwrap();
    assert_eq!(before, ["ollama", "hub", "lm"].map(|part| everything(&base.join(part))));
}

#[cfg(unix)]
#[test]
fn links_are_refused() {
    use std::os::unix::fs::symlink;
    let hub = Hub::start();
    hub.file("/ann/fox/fox-Q4_0.gguf", b"fox");
    let outside = folder("links-outside");
    let secret = outside.join("secret");
    write(&secret, b"fox");
    // A blob that is a link, a folder that is one, a manifest that is one, an unfinished file that is one.
    let root = folder("links-blob");
    let store = Store::new(settings(&root, &hub.url()));
    pull(&store, "ann/fox").unwrap();
    let blob = root.join(format!("blobs/sha256-{}", sha256(b"fox")));
    std::fs::remove_file(&blob).unwrap();
    symlink(&secret, &blob).unwrap();
    assert_eq!(store.resolve(&name("ann/fox")).unwrap_err().kind, Kind::Corrupt);
    assert_eq!(store.verify(false, &mut |_, _| {}).unwrap().len(), 1);
    assert!(pull(&store, "ann/fox").is_err());
    for part in ["blobs", "manifests", "manifests/hf.co", ".ir", ".ir/partial"] {
        let root = folder("links-folder");
        let at = root.join(part);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        symlink(&outside, &at).unwrap();
        let store = Store::new(settings(&root, &hub.url()));
        assert!(pull(&store, "ann/fox").is_err(), "{part}");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1, "{part}");
    }
    let root = folder("links-partial");
    std::fs::create_dir_all(root.join(".ir/partial")).unwrap();
    symlink(&secret, root.join(".ir/partial").join(sha256(b"fox"))).unwrap();
    let store = Store::new(settings(&root, &hub.url()));
    assert!(pull(&store, "ann/fox").is_err());
    assert_eq!(std::fs::read(&secret).unwrap(), b"fox");
    // In another program's folder a link to elsewhere is no model.
    let cache = folder("links-cache");
    write(&cache.join("models--a--b/refs/main"), b"c");
    std::fs::create_dir_all(cache.join("models--a--b/snapshots/c")).unwrap();
    symlink(&secret, cache.join("models--a--b/snapshots/c/x.gguf")).unwrap();
    let mut settings = settings(&folder("links-own"), &hub.url());
    settings.foreign.push(Foreign { origin: Origin::HuggingFace, folder: cache });
    let store = Store::new(settings);
    assert!(store.list().is_empty() && store.resolve(&name("a/b")).unwrap().is_none());
}

#[test]
fn a_second_list_opens_nothing() {
    let hub = Hub::start();
    hub.file("/ann/fox/fox-Q4_0.gguf", &tiny());
    let root = folder("list");
    let store = Store::new(settings(&root, &hub.url()));
    pull(&store, "ann/fox").unwrap();
    let models = crate::amount(40, 500);
    for i in 0..models {
        store.copy(&name("ann/fox"), &name(&format!("fox-{i}"))).unwrap();
        write(&root.join(format!("files/{i}.gguf")), &tiny());
    }
    // Folders that have just changed are read again: their times are too coarse.
    std::thread::sleep(std::time::Duration::from_millis(2200));
    assert_eq!(store.list().len(), 2 * models + 1);
    // Other tests of this process list too, so an attempt may see their files: one must be clean.
    let clean = |list: &dyn Fn() -> usize| {
        (0..200).any(|_| {
            let before = ir_store::files_opened();
            assert_eq!(list(), 2 * models + 1);
            ir_store::files_opened() == before
        })
    };
    assert!(clean(&|| store.list().len()));
    // Another process opens the index and nothing else.
    let other = Store::new(settings(&root, &hub.url()));
    assert!(clean(&|| other.list().len()));
    let sample = other.list();
    assert!(sample.iter().all(|m| m.details.family == "llama" && m.details.context > 0));
    // What changes is seen.
    store.remove(&name("fox-0")).unwrap();
    write(&root.join("files/0.gguf"), b"no model");
    let listed = other.list();
    assert!(listed.len() == 2 * models && listed.iter().any(|m| m.details.error.is_some()));
}

#[test]
fn collecting_leaves_what_is_needed_and_verify_finds_what_is_spoiled() {
    let hub = Hub::start();
    hub.file("/ann/fox/fox-Q4_0.gguf", &tiny());
    hub.file("/ann/hen/hen-Q4_0.gguf", b"hen");
    let root = folder("gc");
    let store = Store::new(settings(&root, &hub.url()));
    pull(&store, "ann/fox").unwrap();
    pull(&store, "ann/hen").unwrap();
    store.copy(&name("ann/fox"), &name("fox")).unwrap();
    store.remove(&name("ann/fox")).unwrap();
    assert_eq!(crate::bytes_of(&store, "fox"), tiny());
    write(&root.join(format!("blobs/sha256-{}", "0".repeat(64))), b"lost");
    let collected = store.gc(false).unwrap();
    assert_eq!((collected.blobs, collected.bytes), (1, 4));
    assert_clean(&store);
    let hen = root.join(format!("blobs/sha256-{}", sha256(b"hen")));
    std::fs::write(&hen, b"cat").unwrap();
    let faults = store.verify(true, &mut |_, _| {}).unwrap();
    assert!(
        faults.len() == 1 && faults[0].what == "hf.co/ann/hen" && faults[0].why.contains("other bytes"),
        "{faults:?}"
    );
    assert!(store.resolve(&name("ann/hen")).unwrap_err().what.contains("ir pull"));
    pull(&store, "ann/hen").unwrap();
    assert_clean(&store);
    // A manifest that cannot be read stops a collection, and can be removed.
    write(&root.join("manifests/hf.co/ann/hen/latest"), b"{");
    assert!(store.gc(false).is_err());
    assert_eq!(store.verify(false, &mut |_, _| {}).unwrap().len(), 1);
    store.remove(&name("ann/hen")).unwrap();
    assert_eq!(store.gc(false).unwrap().blobs, 1);
}
