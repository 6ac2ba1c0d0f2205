//! `ir launch`: what clients are told, shown and for real with a client of our own.

use crate::common::{command, finish, ir};

#[test]
fn every_client_is_shown_and_nothing_is_started() {
    for client in ["aider", "claude", "cline", "codex", "continue", "copilot", "goose", "opencode", "qwen", "zed"] {
        let shown =
            ir(&["launch", client, "--print", "--model", "fox", "--addr", "127.0.0.1:9", "--", "--own"]).ok().text();
        assert!(shown.contains("127.0.0.1:9") && shown.contains("fox"), "{shown}");
        assert!(shown.lines().last().is_some_and(|line| line.ends_with(" --own")), "{shown}");
    }
    let codex =
        ir(&["launch", "codex", "--print", "--model", "fox", "--addr", "0.0.0.0:9", "--api-key", "secret"]).ok().text();
    assert!(codex.contains("IR_API_KEY=secret") && codex.contains("http://127.0.0.1:9/v1"), "{codex}");
}

#[test]
fn what_cannot_be_launched_is_a_sentence() {
    let unknown = ir(&["launch", "nope", "--print"]);
    assert!(unknown.code == Some(2) && unknown.stderr.contains("opencode"), "{}", unknown.stderr);
    let socket = ir(&["launch", "claude", "--print", "--addr", "unix:/tmp/x"]);
    assert!(socket.code == Some(2) && socket.stderr.contains("HOST:PORT"), "{}", socket.stderr);
}

/// A client of our own asks the server that was started for it, and the server ends with it.
#[cfg(unix)]
#[test]
fn a_client_is_started_with_a_server_and_both_end() {
    use std::os::unix::fs::PermissionsExt;
    let folder = std::env::temp_dir().join(format!("ir-launch-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let script = folder.join("claude");
    std::fs::write(&script, "#!/bin/sh\necho \"$ANTHROPIC_BASE_URL $ANTHROPIC_MODEL $1\"\nexit 3\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let addr = format!("127.0.0.1:{port}");
    let mut launch = command(&["launch", "claude", "--addr", &addr, "--", "--flag"]);
    launch.env("PATH", format!("{}:/usr/bin:/bin", folder.display()));
    let ran = finish(launch.spawn().unwrap());
    assert_eq!(ran.text(), format!("http://{addr} ir-tiny --flag\n"), "{}", ran.stderr);
    assert!(
        ran.code == Some(1) && ran.stderr.contains("ended with 3") && ran.stderr.contains("1024 tokens"),
        "{}",
        ran.stderr
    );
    assert!(std::net::TcpStream::connect(&addr).is_err(), "the server is still there");
    let mut absent = command(&["launch", "codex", "--addr", &addr]);
    absent.env("PATH", folder.display().to_string());
    let absent = finish(absent.spawn().unwrap());
    assert!(absent.code == Some(1) && absent.stderr.contains("npm install"), "{}", absent.stderr);
    std::fs::remove_dir_all(&folder).unwrap();
}
