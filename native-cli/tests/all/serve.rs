//! `ir serve` as a program: what it prints, how it ends, where it refuses to listen, what is in its log; and `ir config`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};

use crate::common::{command, finish, ir, scratch, write};
use serde_json::Value as Json;

/// A server and what it said first.
struct Server {
    child: Child,
    /// Lines of standard error so far.
    said: Vec<String>,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Server {
    /// Starts one and waits until it has said this.
    fn start(flags: &[&str], until: &str) -> Server {
        let mut child = command(&[&["serve"], flags].concat()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut server = Server { child, said: Vec::new(), stderr };
        server.wait_for(until);
        server
    }

    /// Reads until a line holds these words; gives that line.
    fn wait_for(&mut self, words: &str) -> String {
        loop {
            let mut line = String::new();
            let n = self.stderr.read_line(&mut line).unwrap();
            assert!(n > 0, "it ended without {words:?}: {:?}", self.said);
            self.said.push(line.clone());
            if line.contains(words) {
                return line;
            }
        }
    }

    fn address(&self) -> String {
        let line = self.said.iter().find(|l| l.contains("http://")).unwrap();
        line.split("http://").nth(1).unwrap().split(' ').next().unwrap().to_owned()
    }

    /// Tells it to end; gives the exit code and the rest of standard error.
    fn end(mut self) -> (Option<i32>, String) {
        let told = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(told.success());
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

fn exchange(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nx-request-id: test-7\r\n\r\n")
}

fn post(path: &str, body: &str) -> String {
    let n = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {n}\r\n\r\n{body}")
}

#[test]
fn it_serves_logs_and_ends() {
    let mut server = Server::start(&["--addr", "127.0.0.1:0", "--log-format", "json"], "api/generate");
    let connect = |server: &Server| TcpStream::connect(server.address()).unwrap();
    assert!(exchange(connect(&server), &get("/")).contains("Ollama is running"));
    let body = r#"{"model": "ir-tiny", "prompt": "Tell me a secret about zebras", "stream": false, "options": {"num_predict": 4}}"#;
    let answer = exchange(connect(&server), &post("/api/generate", body));
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"done\":true"), "{answer}");
    exchange(connect(&server), &get("/api/version"));
    let line = server.wait_for("/api/version");
    let line: Json = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
    assert_eq!((&line["method"], &line["status"]), (&"GET".into(), &200.into()), "{line}");
    assert_eq!(line["span"]["id"], "test-7", "{line}");
    assert!(!server.said.concat().contains("zebras"), "a prompt is in the log: {:?}", server.said);
    let address = server.address();
    let (code, rest) = server.end();
    assert_eq!(code, Some(0), "{rest}");
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn prompts_are_in_the_log_where_asked_for() {
    let mut server = Server::start(&["--addr", "127.0.0.1:0", "--log-prompts"], "api/generate");
    let body = r#"{"model": "ir-tiny", "prompt": "Tell me about zebras", "options": {"num_predict": 1}}"#;
    exchange(TcpStream::connect(server.address()).unwrap(), &post("/api/generate", body));
    server.wait_for("zebras");
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn a_unix_socket_serves_and_goes_away() {
    let path = scratch().join("ir.sock");
    let _ = std::fs::remove_file(&path);
    let addr = format!("unix:{}", path.display());
    let server = Server::start(&["--addr", &addr], "curl --unix-socket");
    let answer = exchange(UnixStream::connect(&path).unwrap(), &get("/api/version"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let second = ir(&["serve", "--addr", &addr]);
    assert!(second.code == Some(1) && second.stderr.contains("listens there"), "{}", second.stderr);
    assert_eq!(server.end().0, Some(0));
    assert!(!path.exists());
}

#[test]
fn it_listens_beyond_this_machine_with_a_key_only() {
    let refused = ir(&["serve", "--addr", "0.0.0.0:0"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("--api-key"), "{}", refused.stderr);
    let server = Server::start(&["--addr", "0.0.0.0:0", "--api-key", "k"], "api/generate");
    assert_eq!(server.end().0, Some(0));
    let wrong = ir(&["serve", "--addr", "nowhere"]);
    assert!(wrong.code == Some(2) && wrong.stderr.contains("HOST:PORT"), "{}", wrong.stderr);
    let wrong = ir(&["serve", "--alias", "x"]);
    assert!(wrong.code == Some(2) && wrong.stderr.contains("NAME=MODEL"), "{}", wrong.stderr);
}

#[test]
fn settings_come_from_flags_the_environment_and_the_file() {
    let file =
        write("ir.toml", b"threads = 1\n[serve]\nctx = 256\nqueue = 9\nparallel = 3\nalias = [\"gpt=ir-tiny\"]\n");
    let mut run = command(&["config", "--json", "--config", &file, "serve", "--queue", "5"]);
    let all = finish(run.env("IR_PARALLEL", "7").env("IR_NO_KEY", "yes").spawn().unwrap()).ok().json();
    let cases = [
        ("queue", 5.into(), "flag"),
        ("parallel", 7.into(), "IR_PARALLEL"),
        ("no-key", true.into(), "IR_NO_KEY"),
        ("ctx", 256.into(), "ir.toml"),
        ("threads", 1.into(), "ir.toml"),
        ("grace", 10.into(), "default"),
    ];
    for (flag, value, from) in cases {
        let value: Json = value;
        assert_eq!((&all[flag]["value"], &all[flag]["from"]), (&value, &from.into()), "{flag}");
    }
    let shown = ir(&["config", "--config", &file]).ok().text();
    assert!(shown.contains("ctx = 256") && shown.contains("# ir.toml"), "{shown}");
    // The server heeds them: another name for the model, and a context that ends early.
    let server = Server::start(&["--addr", "127.0.0.1:0", "--config", &file], "api/generate");
    let connect = || TcpStream::connect(server.address()).unwrap();
    assert!(exchange(connect(), &post("/api/chat", r#"{"model": "gpt"}"#)).contains("\"load\""));
    assert!(exchange(connect(), &get("/api/ps")).contains("\"context_length\":256"));
    assert_eq!(server.end().0, Some(0));
    let wrong = write("wrong.toml", b"[serve]\nnope = 1\n");
    let ran = ir(&["config", "--config", &wrong]);
    assert!(ran.code == Some(2) && ran.stderr.contains("nope"), "{}", ran.stderr);
    let ran = ir(&["list", "--config", "/nowhere/ir.toml"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("/nowhere/ir.toml"), "{}", ran.stderr);
}

#[test]
fn what_is_loaded_is_shown_and_stopped() {
    let server = Server::start(&["--addr", "127.0.0.1:0", "--keep-alive", "-1"], "api/generate");
    let addr = server.address();
    let asked = |args: &[&str]| ir(&[args, &["--addr", &addr]].concat());
    assert_eq!(asked(&["ps"]).ok().text().trim(), "No model is loaded.");
    exchange(TcpStream::connect(&addr).unwrap(), &post("/api/chat", r#"{"model": "ir-tiny"}"#));
    let table = asked(&["ps"]).ok().text();
    assert!(table.contains("ir-tiny") && table.contains("1,024") && table.contains("it is needed no more"), "{table}");
    assert_eq!(asked(&["ps", "--json"]).ok().json()[0]["name"], "ir-tiny");
    assert_eq!(asked(&["stop", "IR-tiny:latest"]).ok().text().trim(), "IR-tiny:latest is unloaded");
    let again = asked(&["stop", "ir-tiny"]);
    assert!(again.code == Some(1) && again.stderr.contains("is not loaded"), "{}", again.stderr);
    let wrong = asked(&["stop", "nope"]);
    assert!(wrong.code == Some(1) && wrong.stderr.contains("'nope' not found"), "{}", wrong.stderr);
    assert_eq!(server.end().0, Some(0));
    let nobody = asked(&["ps"]);
    assert!(nobody.code == Some(1) && nobody.stderr.contains("`ir serve` starts one"), "{}", nobody.stderr);
}

#[test]
fn a_pinned_model_is_loaded_at_the_start_and_stays() {
    let path = scratch().join("pinned.sock");
    let _ = std::fs::remove_file(&path);
    let addr = format!("unix:{}", path.display());
    let server = Server::start(&["--addr", &addr, "--pin", "ir-tiny", "--keep-alive", "0", "--api-key", "k"], "curl");
    let asked = |args: &[&str]| ir(&[args, &["--addr", &addr]].concat());
    let refused = asked(&["ps"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("--api-key"), "{}", refused.stderr);
    let table = asked(&["ps", "--api-key", "k"]).ok().text();
    assert!(table.contains("ir-tiny"), "{table}");
    let stays = asked(&["stop", "ir-tiny", "--api-key", "k"]);
    assert!(stays.code == Some(1) && stays.stderr.contains("pinned"), "{}", stays.stderr);
    assert_eq!(server.end().0, Some(0));
    let wrong = ir(&["serve", "--addr", "127.0.0.1:0", "--pin", "nope"]);
    assert!(wrong.code == Some(1) && wrong.stderr.contains("nope"), "{}", wrong.stderr);
}
