//! Pulls of every kind of name, and every fault of the other side: bit-exact, or a sentence.

use std::time::Duration;

use ir_store::{Error, Kind, Store};

use crate::hub::{Faults, Hub, random_bytes, sha256};
use crate::{assert_clean, bytes_of, folder, name, pull, settings};

const REPO: &str = "hf.co/ann/fox-GGUF:Q4_K_M";
const FILE: &str = "/ann/fox-GGUF/fox-Q4_K_M.gguf";

fn model() -> Vec<u8> {
    random_bytes(700_001, 7)
}

fn hub() -> Hub {
    let hub = Hub::start();
    hub.file(FILE, &model());
    hub.file("/ann/fox-GGUF/fox-Q8_0.gguf", &random_bytes(1000, 3));
    hub.file("/ann/fox-GGUF/mmproj-F16.gguf", &random_bytes(500, 4));
    hub
}

#[test]
fn a_repository_is_pulled_once_and_from_where_it_redirects() {
    let hub = hub();
    hub.faults(Faults { redirect: true, key: Some("secret".into()), ..Faults::default() });
    let root = folder("redirects");
    let mut settings = settings(&root, &hub.url());
    settings.hub_token = Some("secret".into());
    let store = Store::new(settings);
    let events = pull(&store, REPO).unwrap();
    let statuses: Vec<&str> = events.iter().map(|e| e.status.as_str()).collect();
    assert_eq!(statuses.first(), Some(&"pulling manifest"));
    assert_eq!(statuses[statuses.len() - 3..], ["verifying sha256 digest", "writing manifest", "success"]);
    let last = events.iter().rfind(|e| e.total.is_some()).unwrap();
    assert_eq!((last.total, last.completed), (Some(700_001), Some(700_001)));
    assert_eq!(bytes_of(&store, REPO), model());
    let seen = hub.seen();
    assert!(seen.iter().any(|s| s.other), "{seen:?}");
    for request in &seen {
        let key = request.headers.get("authorization");
        assert_eq!(key.is_some(), !request.other, "{request:?}");
    }
    // Once more: nothing is missing.
    let sent = hub.sent();
    assert!(sent >= 700_001);
    pull(&store, REPO).unwrap();
    assert_eq!(hub.sent(), 0);
    // The same bytes under another name take no room and no time.
    pull(&store, "ann/fox-GGUF:fox-Q4_K_M.gguf").unwrap();
    assert_eq!(hub.sent(), 0);
    let found = store.resolve(&name(REPO)).unwrap().unwrap();
    assert!(found.manifest.unwrap().annotations["ir.projectors"].contains("mmproj-F16.gguf"));
    assert_clean(&store);
}

/// Pulls with these faults, with the model's bytes as the judge.
fn with(folder_name: &str, faults: Faults) -> Result<u64, Error> {
    let hub = hub();
    hub.faults(faults);
    let mut settings = settings(&folder(folder_name), &hub.url());
    settings.tuning.stall = Duration::from_millis(700);
    let store = Store::new(settings);
    let result = pull(&store, REPO).map(|_| hub.sent());
    match &result {
        Ok(_) => assert_eq!(bytes_of(&store, REPO), model(), "{folder_name}"),
        Err(_) => assert!(store.resolve(&name(REPO)).unwrap().is_none(), "{folder_name}"),
    }
    assert_clean(&store);
    result
}

#[test]
fn faults_that_pass_cost_time_only() {
    let cases = [
        ("cut", Faults { cuts: 15, ..Faults::default() }),
        ("busy", Faults { busy: 6, ..Faults::default() }),
        (
            "busy-date",
            Faults { busy: 2, retry_after: Some("Sun, 06 Nov 1994 08:49:37 GMT".into()), ..Faults::default() },
        ),
        ("broken", Faults { busy: 5, busy_status: 503, ..Faults::default() }),
        ("stalled", Faults { stalls: 2, ..Faults::default() }),
        ("expired", Faults { redirect: true, good_for: Some(3), ..Faults::default() }),
        ("chunked", Faults { chunked: true, cuts: 3, ..Faults::default() }),
        ("no-ranges", Faults { no_ranges: true, ..Faults::default() }),
        ("no-ranges-cut", Faults { no_ranges: true, cuts: 3, ..Faults::default() }),
        ("no-length", Faults { no_ranges: true, chunked: true, ..Faults::default() }),
        ("bare", Faults { bare: true, ..Faults::default() }),
        ("drip", Faults { pause: Some(Duration::from_millis(3)), ..Faults::default() }),
    ];
    for (name, faults) in cases {
        with(name, faults).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn faults_that_stay_end_in_a_sentence() {
    let cases = [
        ("wrong", Faults { flip: true, ..Faults::default() }, Kind::Corrupt, "it was deleted"),
        ("short", Faults { short: 10, ..Faults::default() }, Kind::Network, "too early"),
        (
            "short-whole",
            Faults { short: 10, no_ranges: true, ..Faults::default() },
            Kind::Corrupt,
            "of a file of 700001",
        ),
        ("lie-more", Faults { lie: 5, no_ranges: true, ..Faults::default() }, Kind::Corrupt, "of a file of 700001"),
        ("lie-less", Faults { lie: -5, ..Faults::default() }, Kind::Network, "too early"),
        ("always-busy", Faults { busy: 9999, ..Faults::default() }, Kind::Network, "429 (slow down)"),
        (
            "loop",
            Faults {
                redirect: true,
                redirect_to: Some("/ann/fox-GGUF/resolve/x/fox-Q4_K_M.gguf".into()),
                ..Faults::default()
            },
            Kind::Network,
            "redirects more than",
        ),
        (
            "unsafe",
            Faults { redirect: true, redirect_to: Some("http://hub.example/x".into()), ..Faults::default() },
            Kind::Denied,
            "without https",
        ),
    ];
    for (name, faults, kind, part) in cases {
        let error = with(name, faults).expect_err(name);
        assert!(error.kind == kind && error.what.contains(part), "{name}: {error:?}");
    }
}

#[test]
fn a_wrong_digest_leaves_nothing_and_names_both() {
    let hub = hub();
    hub.faults(Faults { flip: true, ..Faults::default() });
    let root = folder("wrong-digest");
    let store = Store::new(settings(&root, &hub.url()));
    let error = pull(&store, REPO).unwrap_err();
    assert!(error.what.contains(&sha256(&model())), "{error}");
    assert_eq!(std::fs::read_dir(root.join(".ir/partial")).unwrap().count(), 0);
    hub.faults(Faults::default());
    pull(&store, REPO).unwrap();
    assert_eq!(bytes_of(&store, REPO), model());
}

#[test]
fn a_registry_sends_for_a_token_that_nobody_else_sees() {
    let hub = Hub::start();
    let (weights, system) = (random_bytes(300_000, 5), b"You are a fox.");
    hub.model("library/fox", "small", &[("model", &weights), ("system", system), ("license", b"MIT")]);
    hub.faults(Faults { dance: true, redirect: true, cuts: 2, ..Faults::default() });
    let store = Store::new(settings(&folder("registry"), &hub.url()));
    pull(&store, "fox:small").unwrap();
    assert_eq!(bytes_of(&store, "fox:small"), weights);
    let found = store.resolve(&name("FOX:Small")).unwrap().unwrap();
    assert_eq!(store.texts(&found, "system").unwrap(), ["You are a fox."]);
    assert_eq!(found.name, "fox:small");
    for request in hub.seen() {
        let key = request.headers.get("authorization");
        assert!(!request.other || key.is_none(), "{request:?}");
    }
    // The same by its host.
    let by_host = format!("{}/library/fox:small", hub.host());
    hub.sent();
    pull(&store, &by_host).unwrap();
    assert_eq!(bytes_of(&store, &by_host), weights);
    assert_eq!(hub.sent(), 0);
    let error = pull(&store, "nosuch").unwrap_err();
    assert!(error.kind == Kind::NotFound && error.what.contains("nosuch:latest"), "{error}");
}

#[test]
fn an_address_is_a_model_with_or_without_its_digest() {
    let hub = Hub::start();
    let bytes = random_bytes(500_000, 9);
    hub.file("/files/a.gguf", &bytes);
    let plain = format!("{}/files/a.gguf", hub.url());
    for (i, faults) in [
        Faults::default(),
        Faults { cuts: 5, ..Faults::default() },
        Faults { chunked: true, no_ranges: true, ..Faults::default() },
        Faults { redirect: true, cuts: 2, ..Faults::default() },
    ]
    .into_iter()
    .enumerate()
    {
        hub.faults(faults);
        for url in [plain.clone(), format!("{plain}#sha256={}", sha256(&bytes))] {
            let store = Store::new(settings(&folder(&format!("url{i}-{}", url.len())), &hub.url()));
            pull(&store, &url).unwrap();
            assert_eq!(bytes_of(&store, &url), bytes);
        }
    }
    let store = Store::new(settings(&folder("url-wrong"), &hub.url()));
    hub.faults(Faults::default());
    let error = pull(&store, &format!("{plain}#sha256={}", "0".repeat(64))).unwrap_err();
    assert_eq!(error.kind, Kind::Corrupt, "{error}");
    // Nothing says how long the file is or what it must be: a cut could not be seen.
    hub.faults(Faults { bare: true, ..Faults::default() });
    let error = pull(&store, &plain).unwrap_err();
    assert!(error.what.contains("how long"), "{error}");
}

#[test]
fn a_file_that_changes_between_two_pulls_is_never_a_mixture() {
    let hub = Hub::start();
    let [old, new] = [11, 12].map(|seed| random_bytes(400_000, seed));
    hub.file("/files/b.gguf", &old);
    let url = format!("{}/files/b.gguf", hub.url());
    let mut settings = settings(&folder("changed"), &hub.url());
    settings.tuning.attempts = 2;
    hub.faults(Faults { short: 1, ..Faults::default() });
    let store = Store::new(settings);
    assert!(pull(&store, &url).is_err());
    hub.file("/files/b.gguf", &new);
    hub.faults(Faults::default());
    pull(&store, &url).unwrap();
    assert_eq!(bytes_of(&store, &url), new);
}

#[test]
fn parts_and_safetensors_have_their_files_names() {
    let hub = Hub::start();
    for no in 1..=3 {
        hub.file(&format!("/ann/big/Q4_K_M/big-Q4_K_M-0000{no}-of-00003.gguf"), &random_bytes(1000 * no, no as u64));
    }
    hub.file("/ann/big/Q8_0/big-Q8_0-00001-of-00002.gguf", b"one");
    hub.file("/bea/st/model.safetensors", &random_bytes(5000, 1));
    hub.small("/bea/st/config.json", br#"{"model_type": "llama", "max_position_embeddings": 99}"#);
    hub.small("/bea/st/README.md", b"not needed");
    let store = Store::new(settings(&folder("parts"), &hub.url()));
    pull(&store, "ann/big").unwrap();
    let found = store.resolve(&name("ann/big")).unwrap().unwrap();
    assert!(found.path.ends_with("big-Q4_K_M-00001-of-00003.gguf"), "{}", found.path.display());
    let third = found.path.with_file_name("big-Q4_K_M-00003-of-00003.gguf");
    assert_eq!(std::fs::read(third).unwrap(), random_bytes(3000, 3));
    let error = pull(&store, "ann/big:Q8_0").unwrap_err();
    assert!(error.what.contains("split into 2 parts"), "{error}");
    let error = pull(&store, "ann/big:Q5_K_M").unwrap_err();
    assert!(error.what.contains("has no Q5_K_M: it has Q4_K_M, Q8_0"), "{error}");
    pull(&store, "bea/st").unwrap();
    let found = store.resolve(&name("bea/st")).unwrap().unwrap();
    assert!(found.path.is_dir() && found.path.join("config.json").is_file() && !found.path.join("README.md").exists());
    let listed = store.list();
    let st = listed.iter().find(|m| m.name == "hf.co/bea/st").unwrap();
    assert_eq!((st.details.family.as_str(), st.details.context), ("llama", 99));
    assert_clean(&store);
    store.remove(&name("ann/big")).unwrap();
    assert!(!third_exists(&store));
}

fn third_exists(store: &Store) -> bool {
    let links = store.settings().root.join(".ir/links");
    let folders = std::fs::read_dir(links).unwrap();
    folders.flatten().any(|f| f.path().join("big-Q4_K_M-00003-of-00003.gguf").exists())
}

#[test]
fn two_pulls_of_one_model_share_a_download() {
    let hub = hub();
    hub.faults(Faults { pause: Some(Duration::from_millis(2)), ..Faults::default() });
    let store = Store::new(settings(&folder("shared"), &hub.url()));
    let mut watchers: Vec<_> = (0..3).map(|_| store.pull(&name(REPO)).unwrap()).collect();
    // One leaves: the others go on.
    watchers.pop();
    for mut watcher in watchers {
        let mut last = String::new();
        while let Some(event) = watcher.next_blocking() {
            last = event.unwrap().status;
        }
        assert_eq!(last, "success");
    }
    assert!(hub.sent() < 800_000);
    assert_eq!(hub.seen().iter().filter(|s| s.path.starts_with("/api/")).count(), 1);
}

#[test]
fn a_pull_that_is_stopped_goes_on_where_it_was() {
    let hub = hub();
    hub.faults(Faults { pause: Some(Duration::from_millis(5)), ..Faults::default() });
    let store = Store::new(settings(&folder("stopped"), &hub.url()));
    let mut watcher = store.pull(&name(REPO)).unwrap();
    let error = loop {
        match watcher.next_blocking().unwrap() {
            Ok(event) if event.completed.is_some_and(|n| n > 200_000) => watcher.stop(),
            Ok(_) => {}
            Err(e) => break e,
        }
    };
    assert_eq!(error.kind, Kind::Cancelled);
    hub.faults(Faults::default());
    hub.sent();
    let events = pull(&store, REPO).unwrap();
    let first = events.iter().find_map(|e| e.completed).unwrap();
    assert!(first > 200_000, "{first}");
    // What was on its way when the first was stopped is counted with the second by the server.
    assert!(hub.sent() <= 700_001 - 200_000 + (1 << 18));
    assert_eq!(bytes_of(&store, REPO), model());
}

#[test]
fn what_does_not_fit_is_not_begun() {
    let hub = Hub::start();
    let size = 1u64 << 49;
    let answer = serde_json::json!({"sha": "0123456789", "siblings": [{"rfilename": "x-Q4_0.gguf", "size": size,
        "lfs": {"sha256": "0".repeat(64), "size": size}}]});
    hub.answer("/api/models/ann/huge/revision/main", &answer.to_string());
    let store = Store::new(settings(&folder("huge"), &hub.url()));
    let error = pull(&store, "ann/huge").unwrap_err();
    assert!(error.kind == Kind::Space && error.what.contains("MB free"), "{error}");
    assert_eq!(hub.sent(), 0);
}

#[test]
fn repositories_and_registries_that_lie_are_refused() {
    let hub = Hub::start();
    let root = folder("lies");
    let store = Store::new(settings(&root, &hub.url()));
    let long = "x".repeat(10_000);
    for path in [
        "../../evil-Q4_K_M.gguf",
        "/etc/evil.gguf",
        "a/../evil.gguf",
        "nul/x.gguf",
        "c:\\x.gguf",
        "a\0b.gguf",
        "con.gguf",
        &long,
    ] {
        let answer = serde_json::json!({"sha": "0123456789", "siblings": [{"rfilename": path, "size": 3}]});
        hub.answer("/api/models/ann/evil/revision/main", &answer.to_string());
        let error = pull(&store, "ann/evil").unwrap_err();
        assert!(error.kind == Kind::NotFound && error.what.contains("neither"), "{path}: {error}");
    }
    let layer = |digest: &str, size: u64, title: &str| {
        serde_json::json!({"mediaType": "application/vnd.ollama.image.model", "digest": digest, "size": size,
            "annotations": {"org.opencontainers.image.title": title}})
    };
    let good = format!("sha256:{}", "0".repeat(64));
    let cases = [
        layer("sha256:../../../etc/passwd", 3, "a"),
        layer("md5:00", 3, "a"),
        layer(&good, u64::MAX, "a"),
        layer(&good, 3, ".."),
        layer(&good, 3, "a/.hidden"),
        layer(&good, 3, "nul.gguf"),
        layer(&good, 3, "a\u{0}b"),
        layer(&good, 3, &long),
    ];
    for bad in cases {
        let manifest = serde_json::json!({"schemaVersion": 2, "config": layer(&good, 3, "c"), "layers": [bad]});
        hub.answer("/v2/library/evil/manifests/latest", &manifest.to_string());
        let error = pull(&store, "evil").unwrap_err();
        assert_eq!(error.kind, Kind::Corrupt, "{bad}: {error}");
    }
    for body in ["", "[]", "{\"layers\": 3}", &format!("[{}", "[".repeat(100_000)), &" ".repeat(2 << 20)] {
        hub.answer("/v2/library/evil/manifests/latest", body);
        hub.answer("/api/models/ann/evil/revision/main", body);
        assert_eq!(pull(&store, "evil").unwrap_err().kind, Kind::Corrupt);
        assert!(pull(&store, "ann/evil").is_err());
    }
    let manifests = root.join("manifests");
    assert!(!manifests.exists() && store.list().is_empty());
}
