//! Models by name, as a user has them: pulled from a hub on loopback, cut, gone on with, listed, run, made and removed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::{Ran, command, finish, scratch, tiny};

#[path = "../../../server/store/tests/store/hub.rs"]
mod hub;

use hub::{Faults, Hub};

const NAME: &str = "ann/tiny-GGUF:Q4_0";

/// A home of its own, and the hub.
struct User {
    hub: Hub,
    models: PathBuf,
}

impl User {
    fn new(name: &str) -> User {
        let models = scratch().join("store").join(name);
        let _ = std::fs::remove_dir_all(&models);
        let hub = Hub::start();
        let bytes = std::fs::read(tiny()).unwrap();
        hub.file("/ann/tiny-GGUF/tiny-Q4_0.gguf", &bytes);
        hub.model(
            "library/tiny",
            "latest",
            &[("model", &bytes), ("params", br#"{"temperature": 0, "num_predict": 5}"#)],
        );
        User { hub, models }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = command(args);
        command.env("HF_ENDPOINT", self.hub.url()).env("IR_REGISTRY", self.hub.url()).env("IR_MODELS", &self.models);
        command
    }

    fn ir(&self, args: &[&str]) -> Ran {
        let mut child = self.command(args).spawn().unwrap();
        drop(child.stdin.take());
        finish(child)
    }

    fn names(&self) -> Vec<String> {
        let listed = self.ir(&["list", "--json"]).ok().json();
        listed.as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap().to_owned()).collect()
    }
}

#[test]
fn a_model_is_fetched_once_and_then_used_by_its_name() {
    let user = User::new("fetched");
    let ask = |name: &str| user.ir(&["run", name, "Who are you?", "--temp", "0", "-n", "12"]);
    let first = ask(NAME).ok();
    assert!(first.stderr.contains("Pulling hf.co/ann/tiny-GGUF:Q4_0 from 127.0.0.1: 1."), "{}", first.stderr);
    assert!(first.stderr.contains("success"), "{}", first.stderr);
    let sent = user.hub.sent();
    assert_eq!(sent, std::fs::metadata(tiny()).unwrap().len());
    let again = ask(NAME).ok();
    assert!(!again.stderr.contains("Pulling") && user.hub.sent() == 0, "{}", again.stderr);
    assert_eq!(again.text(), ask(tiny().to_str().unwrap()).ok().text());
    assert_eq!(user.names(), ["ir-tiny", "hf.co/ann/tiny-GGUF:Q4_0"]);
    let table = user.ir(&["list"]).ok().text();
    assert!(table.contains("store") && table.contains("llama") && table.contains("CONTEXT"), "{table}");
    // All commands take the name.
    assert_eq!(user.ir(&["tokenize", NAME, "Hello", "--json"]).ok().json()["ids"][0], 42);
    assert!(user.ir(&["info", NAME]).ok().text().contains("hf.co/ann/tiny-GGUF:Q4_0"));
    assert!(user.ir(&["verify"]).ok().text().contains("are what their digests say"));
    user.ir(&["cp", NAME, "fox"]).ok();
    user.ir(&["rm", NAME]).ok();
    assert_eq!(user.names(), ["ir-tiny", "fox:latest"]);
    assert_eq!(ask("fox").ok().text(), again.text());
    user.ir(&["rm", "fox"]).ok();
    assert!(user.ir(&["gc"]).ok().text().starts_with("0 files and 0 unfinished"));
    assert_eq!(std::fs::read_dir(user.models.join("blobs")).unwrap().count(), 0);
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_what_has_arrived_and_says_how_to_go_on() {
    let user = User::new("stopped");
    user.hub.faults(Faults { pause: Some(Duration::from_millis(20)), ..Faults::default() });
    let child = user.command(&["pull", NAME]).spawn().unwrap();
    let mut sent = 0;
    for _ in 0..6000 {
        sent += user.hub.sent();
        if sent > 400_000 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let ran = finish(child);
    assert!(kill.success() && ran.code == Some(130), "{:?} {}", ran.code, ran.stderr);
    assert!(ran.stderr.contains("is kept: `ir pull hf.co/ann/tiny-GGUF:Q4_0` goes on"), "{}", ran.stderr);
    assert!(user.ir(&["run", "ir-tiny", "x", "-n", "1"]).code == Some(0));
    user.hub.faults(Faults { cuts: 3, ..Faults::default() });
    sent += user.hub.sent();
    let ran = user.ir(&["pull", NAME]).ok();
    let size = std::fs::metadata(tiny()).unwrap().len();
    sent += user.hub.sent();
    // What was on its way at the cuts is sent twice.
    assert!(sent < size * 2, "{sent} {size} {}", ran.stderr);
    assert!(user.ir(&["verify"]).ok().text().contains("are what"));
}

#[test]
fn a_name_that_is_nowhere_exits_2_and_says_what_was_tried() {
    let user = User::new("nowhere");
    let ran = user.ir(&["run", "tinny", "x"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("it could not be fetched either: the registry has no tinny:latest"), "{}", ran.stderr);
    user.ir(&["pull", "tiny"]).ok();
    let ran = user.ir(&["info", "tinny"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("the nearest being tiny:latest"), "{}", ran.stderr);
    let ran = user.ir(&["pull", "ann/tiny-GGUF:Q9"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("has no Q9: it has Q4_0"), "{}", ran.stderr);
    for (args, part) in [
        (&["pull", "../x:y"][..], "nothing to pull"),
        (&["pull", "a b"], "spaces"),
        (&["rm", "nope"], "not in the store"),
        (&["cp", "nope", "x"], "not in the store"),
        (&["push", "ann/x"], "registry's host"),
        (&["create", "x", "-f", "nosuch"], "nosuch"),
        (&["create", "x", "--from", "nosuch.gguf"], "nosuch.gguf"),
        (&["pull", "x", "--registry", "http://hub.example"], "use https"),
    ] {
        let ran = user.ir(args);
        assert!(matches!(ran.code, Some(1 | 2)), "{args:?}: {:?}", ran.code);
        let complaint: Vec<&str> = ran.stderr.lines().filter(|l| l.starts_with("ir: ")).collect();
        assert!(complaint.len() == 1 && complaint[0].contains(part), "{args:?}: {}", ran.stderr);
    }
}

#[test]
fn a_modelfile_says_how_a_model_is_run_and_shown() {
    let user = User::new("made");
    let file = scratch().join("fox.modelfile");
    let text =
        "FROM tiny\nPARAMETER stop never-said\nSYSTEM \"\"\"You are\na fox.\"\"\"\nMESSAGE user Hi\nLICENSE MIT\n";
    std::fs::write(&file, text).unwrap();
    user.ir(&["pull", "tiny"]).ok();
    user.ir(&["create", "fox", "-f", file.to_str().unwrap()]).ok();
    let json = user.ir(&["show", "fox", "--json"]).ok().json();
    assert_eq!(json["system"], "You are\na fox.");
    assert_eq!(json["settings"], serde_json::json!({"temperature": 0, "num_predict": 5, "stop": ["never-said"]}));
    assert_eq!((&json["family"], &json["name"]), (&"llama".into(), &"fox:latest".into()));
    let modelfile = user.ir(&["show", "fox", "--modelfile"]).ok().text();
    assert!(modelfile.starts_with("FROM fox:latest\n") && modelfile.contains("MESSAGE user Hi"), "{modelfile}");
    let text = user.ir(&["show", "fox"]).ok().text();
    assert!(text.contains("of the file (Jinja)") && text.contains("num_predict") && text.contains("MIT"), "{text}");
    assert_eq!(user.ir(&["show", "fox", "--license"]).ok().text(), "MIT\n");
    // Temperature 0 and five tokens are the recipe's; flags go over them.
    let run = |args: &[&str]| user.ir(&[&["run", "fox", "Who are you?"], args].concat()).ok().text();
    let short = run(&[]);
    assert_eq!(short, run(&[]));
    assert!(run(&["-n", "9"]).starts_with(short.trim_end()));
    // The system prompt and the message are part of the prompt.
    let tokens = |name: &str| {
        let said = user.ir(&["run", name, "Who are you?", "--verbose"]).ok().stderr;
        let line = said.lines().find_map(|l| l.strip_prefix("prompt:")).unwrap().to_owned();
        line.split_whitespace().next().unwrap().parse::<usize>().unwrap()
    };
    assert!(tokens("fox") > tokens("tiny") + 5);
}

#[test]
fn a_proxy_is_asked_instead() {
    let user = User::new("proxy");
    // To the proxy the request names the whole address: this hub does not know such a path, and says so.
    let mut child = user
        .command(&["pull", NAME])
        .env("HF_ENDPOINT", "http://127.0.0.1:9")
        .env("HTTP_PROXY", user.hub.url())
        .spawn()
        .unwrap();
    drop(child.stdin.take());
    finish(child);
    let seen = user.hub.seen();
    assert!(seen.iter().any(|s| s.path.starts_with("http://127.0.0.1:9/api/models/ann/tiny-GGUF")), "{seen:?}");
}

#[test]
fn other_programs_models_run_where_they_are() {
    let user = User::new("foreign");
    std::fs::create_dir_all(&user.models).unwrap();
    let cache = scratch().join("hf-cache");
    let snapshot = cache.join("models--bea--hen/snapshots/abc");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(cache.join("models--bea--hen/refs")).unwrap();
    std::fs::write(cache.join("models--bea--hen/refs/main"), "abc").unwrap();
    std::fs::copy(tiny(), snapshot.join("hen-Q4_0.gguf")).unwrap();
    let run = |args: &[&str]| {
        let mut child = user.command(args).env("HF_HUB_CACHE", &cache).spawn().unwrap();
        drop(child.stdin.take());
        finish(child)
    };
    let listed = run(&["list", "--json"]).ok().json();
    assert_eq!(
        (&listed[1]["name"], &listed[1]["origin"]),
        (&"hf.co/bea/hen:hen-Q4_0.gguf".into(), &"huggingface".into())
    );
    run(&["run", "bea/hen", "Hello", "-n", "3"]).ok();
    let ran = run(&["rm", "bea/hen"]);
    assert!(ran.stderr.contains("only read") && Path::new(&snapshot).join("hen-Q4_0.gguf").exists(), "{}", ran.stderr);
}

#[test]
fn what_fits_is_said_before_anything_is_loaded() {
    let user = User::new("fits");
    let fits = user.ir(&["info", "ir-tiny", "--fit"]).ok().text();
    assert!(fits.contains("cpu") && fits.contains("the whole context of 1,024 tokens"), "{fits}");
    let all = user.ir(&["info", "ir-tiny", "--fit", "--json"]).ok().json();
    assert_eq!((&all["fit"][0]["device"], &all["fit"][0]["context"]), (&"cpu".into(), &1024.into()), "{all}");
    assert!(user.ir(&["show", "ir-tiny"]).ok().text().contains("Fits"));
}
