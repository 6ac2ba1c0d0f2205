//! Names of every kind, and names that are none.

use ir_store::{Kind, ModelName, Store};

use crate::{folder, name, settings};

#[test]
fn every_kind_of_name_is_read() {
    let digest = "a".repeat(64);
    let cases = [
        ("smollm2:135m", "registry.ollama.ai/library/smollm2:135m", "smollm2:135m"),
        ("Qwen", "registry.ollama.ai/library/Qwen:latest", "Qwen:latest"),
        ("registry.ollama.ai/ann/fox:small", "registry.ollama.ai/ann/fox:small", "registry.ollama.ai/ann/fox:small"),
        ("ollama.com/library/fox", "registry.ollama.ai/library/fox:latest", "fox:latest"),
        ("127.0.0.1:5000/ns/model:tag", "127.0.0.1:5000/ns/model:tag", "127.0.0.1:5000/ns/model:tag"),
        ("localhost:5000/model", "localhost:5000/library/model:latest", "localhost:5000/library/model:latest"),
        ("registry.example/ns/model", "registry.example/ns/model:latest", "registry.example/ns/model:latest"),
        ("user/repo", "hf.co/user/repo", "hf.co/user/repo"),
        ("hf.co/user/Repo-GGUF:Q4_K_M", "hf.co/user/Repo-GGUF:Q4_K_M", "hf.co/user/Repo-GGUF:Q4_K_M"),
        ("huggingface.co/user/repo:a/b.gguf@v1.0", "hf.co/user/repo:a/b.gguf@v1.0", "hf.co/user/repo:a/b.gguf@v1.0"),
        ("https://huggingface.co/user/repo", "hf.co/user/repo", "hf.co/user/repo"),
        ("https://hf.co/user/repo/blob/main/x.gguf", "hf.co/user/repo:x.gguf@main", "hf.co/user/repo:x.gguf@main"),
        ("https://a.example/x/y.gguf", "https://a.example/x/y.gguf", "https://a.example/x/y.gguf"),
        ("model.gguf", "model.gguf", "model.gguf"),
        ("./model", "./model", "./model"),
        ("/models/x.gguf", "/models/x.gguf", "/models/x.gguf"),
        ("C:\\models\\x.gguf", "C:\\models\\x.gguf", "C:\\models\\x.gguf"),
        ("folder/x.gguf", "folder/x.gguf", "folder/x.gguf"),
    ];
    for (text, whole, short) in cases {
        let read = ModelName::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!((read.to_string().as_str(), read.short().as_str()), (whole, short), "{text}");
        assert_eq!(ModelName::parse(&read.to_string()).unwrap(), read, "{text}");
    }
    let with_digest = format!("https://a.example/y.gguf#sha256={digest}");
    assert_eq!(ModelName::parse(&with_digest).unwrap().to_string(), with_digest);
}

#[test]
fn names_that_leave_the_store_are_refused() {
    let long = "a".repeat(10_000);
    let bad = [
        "",
        " ",
        "a b",
        "a\0b",
        "a\nb",
        "..",
        "../x:y",
        "a/../b",
        "user/..",
        "user/repo/..",
        "hf.co/../x",
        "hf.co/a/b/c",
        "hf.co/a",
        "a/b/c",
        "user/repo:..",
        "user/repo:a/../b",
        "user/repo:/etc/passwd",
        "user/repo@..",
        "user/repo@a/b",
        "con",
        "nul:latest",
        "x:com1",
        "user/aux.gguf:x",
        "LPT9",
        "x:",
        ":x",
        "a:b:c",
        "-x",
        ".x:y",
        "x.",
        "x:y.",
        "é",
        "a%2e%2e",
        "a/b:c%00",
        "http://hub.example/x.gguf",
        "https://a.example/x",
        "https://u:p@a.example/x.gguf",
        "ftp://a.example/x.gguf",
        "file:///etc/x.gguf",
        "https://a.example/x.gguf#sha256=12",
        "a..b/c:d",
        "1.2.3.4:5/../x",
        long.as_str(),
    ];
    let root = folder("names");
    let store = Store::new(settings(&root.join("store"), "http://127.0.0.1:9"));
    for text in bad {
        match ModelName::parse(text) {
            Err(e) => assert_eq!(e.kind, Kind::Name, "{text:?}: {e}"),
            // A path of this machine is a name; it is never a manifest's.
            Ok(ModelName::Path(_)) => {
                let name = ModelName::parse(text).unwrap();
                assert!(store.pull(&name).is_err() && store.remove(&name).is_err(), "{text:?}");
            }
            Ok(other) => panic!("{text:?} is read as {other:?}"),
        }
    }
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0, "nothing is made before it is needed");
}

#[test]
fn names_that_differ_in_case_only_are_one() {
    let hub = crate::hub::Hub::start();
    hub.file("/Ann/Fox/fox-Q4_0.gguf", b"fox");
    let store = Store::new(settings(&folder("case"), &hub.url()));
    crate::pull(&store, "Ann/Fox:Q4_0").unwrap();
    for text in ["ann/fox:q4_0", "HF.co/ANN/FOX:Q4_0"] {
        assert_eq!(crate::bytes_of(&store, text), b"fox");
    }
    store.copy(&name("ann/fox:q4_0"), &name("My-Fox")).unwrap();
    store.copy(&name("ann/fox:q4_0"), &name("my-fox")).unwrap();
    assert_eq!(store.list().len(), 2);
    store.remove(&name("MY-FOX")).unwrap();
    assert_eq!(store.list().len(), 1);
    assert_eq!(store.list()[0].name, "hf.co/Ann/Fox:Q4_0");
}

#[test]
fn an_unknown_name_says_what_was_tried_and_what_is_near() {
    let hub = crate::hub::Hub::start();
    hub.file("/ann/smollm/x-Q4_0.gguf", b"fox");
    let store = Store::new(settings(&folder("near"), &hub.url()));
    crate::pull(&store, "ann/smollm:Q4_0").unwrap();
    store.copy(&name("ann/smollm:Q4_0"), &name("smollm2:135m")).unwrap();
    let error = store.remove(&name("smolm2:135m")).unwrap_err();
    assert!(error.what.contains("nearest are smollm2:135m"), "{error}");
}
