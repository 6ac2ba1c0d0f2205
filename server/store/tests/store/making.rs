//! Modelfiles, models that are made of others and of files, pushing and searching.

use ir_engine::builtin;
use ir_store::{GoTemplate, Kind, Modelfile, Store};
use serde_json::json;

use crate::hub::{Faults, Hub, random_bytes};
use crate::{assert_clean, bytes_of, folder, name, pull, settings};

const TEXT: &str = "# A fox.\r
FROM ann/fox\r
PARAMETER temperature 0.5
parameter stop \"<|end|>\"
PARAMETER stop User:
PARAMETER num_ctx 4096
PARAMETER mirostat 1
SYSTEM \"\"\"You are \"quick\".
And brown.\"\"\"
TEMPLATE \"{{ .Prompt }}\"
MESSAGE user Hello
MESSAGE assistant \"\"\"Hi!\"\"\"
LICENSE \"MIT\"
REQUIRES 0.5.0
";

#[test]
fn a_modelfile_is_read_and_written() {
    let file = Modelfile::parse(TEXT).unwrap();
    assert_eq!(file.from, "ann/fox");
    assert_eq!(
        serde_json::Value::Object(file.parameters.clone()),
        json!({"temperature": 0.5, "stop": ["<|end|>", "User:"], "num_ctx": 4096})
    );
    assert_eq!(file.system.as_deref(), Some("You are \"quick\".\nAnd brown."));
    assert_eq!(file.template.as_deref(), Some("{{ .Prompt }}"));
    assert_eq!(file.messages, [("user".into(), "Hello".into()), ("assistant".into(), "Hi!".into())]);
    assert_eq!((file.licenses.len(), file.requires.as_deref(), file.remarks.len()), (1, Some("0.5.0"), 1));
    let again = Modelfile::parse(&file.to_string()).unwrap();
    assert_eq!(again, Modelfile { remarks: Vec::new(), ..file });
}

#[test]
fn what_is_no_modelfile_is_refused_with_its_line() {
    let long = "x".repeat(5 << 20);
    let cases = [
        ("", "FROM"),
        ("SYSTEM hello", "FROM"),
        ("FROM a\nFROM b", "line 2"),
        ("FROM a\nFRMO b", "\"FRMO\" is no command"),
        ("FROM a\nPARAMETER temprature 1", "is it temperature"),
        ("FROM a\nPARAMETER top_k many", "a whole number"),
        ("FROM a\nPARAMETER temperature nan", "a number"),
        ("FROM a\nPARAMETER stop", "a value is missing"),
        ("FROM a\nMESSAGE robot hi", "line 2"),
        ("FROM a\nSYSTEM \"\"\"never ends", "closing quotes"),
        ("FROM a\nSYSTEM \"\"\"x\"\"\" y", "after the closing quotes"),
        ("FROM a\0b", "no Modelfile"),
        (long.as_str(), "no Modelfile"),
    ];
    for (text, part) in cases {
        let error = Modelfile::parse(text).unwrap_err();
        assert!(error.what.contains(part), "{:?}: {error}", text.get(..40));
    }
}

#[test]
fn models_are_made_of_models_and_files_and_share_their_weights() {
    let hub = Hub::start();
    let tiny = builtin::bytes().to_vec();
    hub.model(
        "library/fox",
        "latest",
        &[("model", &tiny), ("system", b"Old."), ("params", br#"{"top_k": 7, "seed": 1}"#)],
    );
    let root = folder("create");
    let store = Store::new(settings(&root, &hub.url()));
    pull(&store, "fox").unwrap();
    let mut steps = Vec::new();
    let file = Modelfile::parse("FROM fox\nPARAMETER seed 5\nMESSAGE user Hi\n").unwrap();
    store.create(&name("Quick"), &file, None, &mut |step| steps.push(step.to_owned())).unwrap();
    assert!(steps[0].starts_with("using existing layer sha256:") && steps.last().unwrap() == "success", "{steps:?}");
    let made = store.resolve(&name("quick")).unwrap().unwrap();
    assert_eq!(made.name, "Quick:latest");
    assert_eq!(store.texts(&made, "system").unwrap(), ["Old."]);
    let parameters: serde_json::Value = serde_json::from_str(&store.texts(&made, "params").unwrap()[0]).unwrap();
    assert_eq!(parameters, json!({"top_k": 7, "seed": 5}));
    assert_eq!(bytes_of(&store, "quick"), tiny);
    let weights = || {
        std::fs::read_dir(root.join("blobs"))
            .unwrap()
            .flatten()
            .filter(|e| e.metadata().unwrap().len() > 1 << 20)
            .count()
    };
    assert_eq!(weights(), 1);
    // Of a file: the same bytes are there already.
    let elsewhere = folder("create-from");
    std::fs::write(elsewhere.join("tiny.gguf"), &tiny).unwrap();
    let file = Modelfile::parse("FROM ./tiny.gguf").unwrap();
    store.create(&name("tiny"), &file, Some(&elsewhere), &mut |_| {}).unwrap();
    assert_eq!((bytes_of(&store, "tiny"), weights()), (tiny, 1));
    store.remove(&name("fox")).unwrap();
    store.gc(true).unwrap();
    assert_clean(&store);
    assert_eq!(store.list().len(), 2);
}

#[test]
fn weights_are_quantised_on_the_way() {
    let root = folder("quantised");
    let store = Store::new(settings(&root, "http://127.0.0.1:9"));
    let of = |kind: &str| Modelfile { from: "ir-tiny".into(), quantize: Some(kind.into()), ..Modelfile::default() };
    let mut steps = Vec::new();
    store.create(&name("wide"), &of("q8_0"), None, &mut |step| steps.push(step.to_owned())).unwrap();
    assert!(steps.contains(&"quantizing to Q8_0".to_owned()), "{steps:?}");
    let listed = store.list();
    let wide = listed.iter().find(|m| m.name == "wide:latest").unwrap();
    assert_eq!((wide.details.type_name.as_str(), wide.details.family.as_str()), ("Q8_0", "llama"));
    assert!(wide.size > 3_000_000, "{}", wide.size);
    let error = store.create(&name("x"), &of("q9"), None, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("there is no type \"q9\"") && error.contains("Q4_K_M"), "{error}");
    // What it was made of goes; nothing half made stays.
    store.gc(true).unwrap();
    assert_clean(&store);
    assert!(bytes_of(&store, "wide").len() > 3_000_000);
}

#[test]
fn nothing_is_made_of_what_is_no_model() {
    let root = folder("create-bad");
    let store = Store::new(settings(&root.join("store"), "http://127.0.0.1:9"));
    std::fs::write(root.join("text.gguf"), b"Dear diary").unwrap();
    std::fs::create_dir_all(root.join("dir.gguf")).unwrap();
    let long = "y".repeat(10_000);
    let cases = [
        ("FROM text.gguf", Kind::Corrupt),
        ("FROM missing.gguf", Kind::NotFound),
        ("FROM dir.gguf", Kind::Unsupported),
        ("FROM nosuch", Kind::NotFound),
        ("FROM ../../x:y", Kind::NotFound),
        ("FROM nul", Kind::Name),
        ("FROM @sha256:../../x", Kind::Corrupt),
        (&format!("FROM {long}"), Kind::Name),
        ("FROM text.gguf\nADAPTER x.gguf", Kind::Unsupported),
    ];
    for (text, kind) in cases {
        let file = Modelfile::parse(text).unwrap();
        let error = store.create(&name("new"), &file, Some(&root), &mut |_| {}).unwrap_err();
        assert_eq!(error.kind, kind, "{:?}: {error}", &text[..text.len().min(40)]);
        // Whoever is not at this machine names no paths at all.
        assert!(store.create(&name("new"), &file, None, &mut |_| {}).is_err());
    }
    #[cfg(unix)]
    {
        let file = Modelfile::parse("FROM /dev/zero").unwrap();
        assert!(store.create(&name("new"), &file, Some(&root), &mut |_| {}).is_err());
    }
    assert!(store.create(&name("./new"), &Modelfile::parse("FROM x").unwrap(), None, &mut |_| {}).is_err());
    assert!(store.list().is_empty());
}

#[test]
fn blobs_of_clients_must_be_what_they_are_called() {
    let root = folder("sent");
    let store = Store::new(settings(&root, "http://127.0.0.1:9"));
    let digest = ir_store::Digest::of(b"right");
    assert!(
        store.put_blob(&digest, &mut &b"wrong"[..]).unwrap_err().what.starts_with("digest mismatch, expected sha256:")
    );
    assert!(store.blob_path(&digest).unwrap().is_none());
    store.put_blob(&digest, &mut &b"right"[..]).unwrap();
    store.put_blob(&digest, &mut &b"right"[..]).unwrap();
    assert_eq!(std::fs::read(store.blob_path(&digest).unwrap().unwrap()).unwrap(), b"right");
    assert_eq!(std::fs::read_dir(root.join(".ir/partial")).unwrap().count(), 0);
}

#[test]
fn a_model_is_pushed_and_comes_back_the_same() {
    let hub = Hub::start();
    let weights = random_bytes(400_000, 3);
    hub.model("library/fox", "latest", &[("model", &weights), ("system", b"Quick.")]);
    let store = Store::new(settings(&folder("push"), &hub.url()));
    pull(&store, "fox").unwrap();
    let far = format!("{}/me/fox:v1", hub.host());
    store.copy(&name("fox"), &name(&far)).unwrap();
    hub.faults(Faults { dance: true, ..Faults::default() });
    let push = || {
        let mut watcher = store.push(&name(&far)).unwrap();
        let mut statuses = Vec::new();
        while let Some(event) = watcher.next_blocking() {
            statuses.push(event.unwrap().status);
        }
        statuses
    };
    let statuses = push();
    assert_eq!((statuses[0].as_str(), statuses.last().unwrap().as_str()), ("retrieving manifest", "success"));
    // The second time the registry has all of it.
    hub.seen();
    push();
    assert!(hub.seen().iter().all(|s| s.method != "PATCH"));
    let other = Store::new(settings(&folder("push-back"), &hub.url()));
    pull(&other, &far).unwrap();
    assert_eq!(bytes_of(&other, &far), weights);
    // One that answers nothing of use is not asked for long: somebody waits.
    hub.faults(Faults { busy: 100, busy_status: 503, ..Faults::default() });
    hub.seen();
    let mut watcher = store.push(&name(&far)).unwrap();
    let last = std::iter::from_fn(|| watcher.next_blocking()).last().unwrap();
    assert_eq!(last.unwrap_err().kind, Kind::Network);
    assert_eq!(hub.seen().len(), 3);
    hub.faults(Faults::default());
    for text in ["ann/fox", "https://a.example/x.gguf"] {
        assert_eq!(store.push(&name(text)).unwrap_err().kind, Kind::Unsupported);
    }
}

#[test]
fn a_search_says_what_a_pull_would_fetch() {
    let hub = Hub::start();
    hub.file("/ann/fox-GGUF/fox-Q4_K_M.gguf", &random_bytes(4000, 1));
    hub.file("/ann/fox-GGUF/fox-Q8_0.gguf", &random_bytes(8000, 1));
    hub.answer(
        "/api/models",
        r#"[{"id": "ann/fox-GGUF", "downloads": 12, "likes": 3}, {"id": "../evil"}, {"id": "bea/none"}]"#,
    );
    let store = Store::new(settings(&folder("search"), &hub.url()));
    let hits = store.search("red fox", 10).unwrap();
    assert_eq!(hits.len(), 2);
    assert_eq!((hits[0].name.as_str(), hits[0].downloads), ("ann/fox-GGUF", 12));
    assert_eq!(hits[0].default, Some(("Q4_K_M".into(), 4000)));
    assert_eq!(hits[1].default, None);
    assert!(hub.seen()[0].path.contains("search=red+fox") || hub.seen().is_empty());
}

#[test]
fn common_go_templates_are_recognised() {
    let cases = [
        ("{{ .Prompt }}", GoTemplate::None),
        ("", GoTemplate::None),
        (
            "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}<|im_start|>assistant\n",
            GoTemplate::Family("chatml"),
        ),
        ("<|start_header_id|>user<|end_header_id|>\n\n{{ .Prompt }}<|eot_id|>", GoTemplate::Family("llama-3")),
        ("<start_of_turn>user\n{{ .Prompt }}<end_of_turn>", GoTemplate::Family("gemma")),
        ("[INST] <<SYS>>{{ .System }}<</SYS>>\n\n{{ .Prompt }} [/INST]", GoTemplate::Family("llama-2")),
        ("[INST] {{ .Prompt }} [/INST]", GoTemplate::Family("mistral")),
        ("Human: {{ .Prompt }}", GoTemplate::Unknown),
    ];
    for (text, want) in cases {
        assert_eq!(GoTemplate::of(text), want, "{text}");
    }
}
