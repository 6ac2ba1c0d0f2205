//! `ir launch`: starts a coding client that asks the server of this machine, and the server too where none runs.

mod clients;

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use etcetera::BaseStrategy;
use ir_engine::builtin;
use serde_json::Value as Json;

use crate::args::{LaunchArgs, ServerArgs};
use crate::client::ask;
use crate::failure::{Failure, Result};
use crate::term::{self, Out};
use clients::{CLIENTS, Client, File, Folders, Start, Told};

/// How long a server that was started here may take to answer.
const START: Duration = Duration::from_secs(60);

/// The key of clients that want one where the server wants none.
const ANY_KEY: &str = "ir";

/// Starts a client, or shows how it would be started.
pub(crate) fn launch(args: &LaunchArgs) -> Result {
    let client = known(&args.client)?;
    if args.server.addr.starts_with("unix:") {
        return Err(Failure::usage(format!(
            "{} does not speak through a Unix socket: give --addr HOST:PORT",
            client.name
        )));
    }
    let folders = folders()?;
    // Held until the client has ended: the server ends with it.
    let server = if args.print { None } else { Server::needed(&args.server)? };
    let model = Model::find(args)?;
    let url = format!("http://{}", reached(&args.server.addr));
    let key = args.server.api_key.first().map_or(ANY_KEY, String::as_str);
    let told = Told { url: &url, key, model: &model.name, context: model.context };
    let start = (client.start)(&told, &folders);
    if args.print {
        return print(client, &start, &args.flags);
    }
    if let Some(n) = model.context.filter(|n| *n < client.needs) {
        term::remark(&format!(
            "{} has a context of {n} tokens, and {} wants {} or more: `ir serve --ctx` asks for more, a model made for more is better",
            model.name, client.name, client.needs
        ));
    }
    if let Some(file) = &start.file {
        place(file, args.yes)?;
    }
    let ended = run(client, &start, &args.flags);
    drop(server);
    ended
}

fn known(name: &str) -> Result<&'static Client> {
    let names: Vec<&str> = CLIENTS.iter().map(|c| c.name).collect();
    let unknown = || Failure::usage(format!("no client {name:?} is known: there are {}", names.join(", ")));
    CLIENTS.iter().find(|c| c.name == name).ok_or_else(unknown)
}

fn folders() -> Result<Folders> {
    let base = etcetera::choose_base_strategy().map_err(|e| Failure::run(format!("there is no home folder: {e}")))?;
    Ok(Folders { own: base.data_dir().join("ir/clients"), config: base.config_dir() })
}

/// An address by which clients of this machine reach what listens at another.
fn reached(addr: &str) -> String {
    let any = [("0.0.0.0:", "127.0.0.1:"), ("[::]:", "[::1]:")];
    let local = any.into_iter().find_map(|(any, own)| addr.strip_prefix(any).map(|port| format!("{own}{port}")));
    local.unwrap_or_else(|| addr.to_owned())
}

/// The model that the client is told.
struct Model {
    name: String,
    context: Option<u64>,
}

impl Model {
    /// The one that is asked for, or the server's first.
    fn find(args: &LaunchArgs) -> Result<Model> {
        let list = match ask(&args.server, "GET", "/v1/models", None) {
            Ok(list) => list,
            // What is only shown needs no server.
            Err(_) if args.print => Json::Null,
            Err(failure) => return Err(failure),
        };
        let of = |entry: &Json| Some((entry["id"].as_str()?.to_owned(), entry["context_length"].as_u64()));
        let name = match &args.model {
            Some(name) => name.clone(),
            None => of(&list["data"][0]).map_or_else(|| builtin::NAME.to_owned(), |(name, _)| name),
        };
        let path = format!("/v1/models/{}", encoded(&name));
        let found = match ask(&args.server, "GET", &path, None) {
            Ok(entry) => of(&entry),
            Err(_) if args.print => None,
            Err(failure) => return Err(failure),
        };
        Ok(Model { context: found.and_then(|(_, context)| context), name })
    }
}

/// A name within an address: whatever has a meaning there is written out.
fn encoded(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/".contains(&b);
    name.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// A server that was started here; it ends with this.
struct Server(Child);

impl Server {
    /// Starts one where none answers.
    fn needed(server: &ServerArgs) -> Result<Option<Server>> {
        if ask(server, "GET", "/api/version", None).is_ok() {
            return Ok(None);
        }
        let failed = |e: std::io::Error| Failure::run(format!("cannot start `ir serve`: {e}"));
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.args(["serve", "--log", "off", "--addr", &server.addr]);
        for key in &server.api_key {
            command.args(["--api-key", key]);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(failed)?;
        let mut started = Server(child);
        let begun = Instant::now();
        loop {
            if ask(server, "GET", "/api/version", None).is_ok() {
                term::remark(&format!("Started `ir serve` at {}; it ends with the client.", server.addr));
                return Ok(Some(started));
            }
            let ended = started.0.try_wait().ok().flatten().is_some();
            if ended || begun.elapsed() > START {
                let addr = &server.addr;
                return Err(Failure::run(format!(
                    "`ir serve --addr {addr}` does not answer: start it by hand to see why"
                )));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Writes a client's file, after asking where it is not ours alone.
fn place(file: &File, yes: bool) -> Result {
    let shown = file.path.display();
    if file.shared && file.path.exists() {
        let text = std::fs::read_to_string(&file.path).unwrap_or_default();
        if serde_json::from_str::<Json>(&text)
            .is_ok_and(|own| holds(&own, &serde_json::from_str(&file.text).unwrap_or_default()))
        {
            return Ok(());
        }
        term::remark(&format!("{shown} is yours and stays as it is. Put this into it:\n{}", file.text));
        return Ok(());
    }
    if !yes && !agreed(&format!("Write {shown}?"))? {
        return Err(Failure::run(format!("{shown} was not written: --yes writes it without asking, --print shows it")));
    }
    write(&file.path, &file.text).map_err(|e| Failure::run(format!("cannot write {shown}: {e}")))
}

/// Whether settings hold what they are to hold.
fn holds(own: &Json, wanted: &Json) -> bool {
    match (own, wanted) {
        (Json::Object(own), Json::Object(wanted)) => {
            wanted.iter().all(|(key, value)| own.get(key).is_some_and(|own| holds(own, value)))
        }
        (own, wanted) => own == wanted,
    }
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let unfinished = path.with_extension("ir-new");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    // It may hold a key.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&unfinished)?.write_all(text.as_bytes())?;
    std::fs::rename(unfinished, path)
}

fn agreed(question: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    term::remark(&format!("{question} [y/N]"));
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|e| Failure::run(format!("cannot read an answer: {e}")))?;
    Ok(["y", "yes"].contains(&line.trim().to_ascii_lowercase().as_str()))
}

fn run(client: &Client, start: &Start, flags: &[std::ffi::OsString]) -> Result {
    let mut command = Command::new(client.program);
    command.envs(start.env.iter().map(|(name, value)| (*name, value.as_str()))).args(&start.flags).args(flags);
    let status = command.status().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Failure::run(format!(
            "{} is not installed: {} brings it, and --print shows what it would be told",
            client.program, client.install
        )),
        _ => Failure::run(format!("cannot start {}: {e}", client.program)),
    })?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::run(format!("{} ended with {code}", client.program))),
        None => Err(Failure::Interrupted),
    }
}

/// Shows how a client is started, as one would type it.
fn print(client: &Client, start: &Start, flags: &[std::ffi::OsString]) -> Result {
    let mut out = Out::new();
    if let Some(file) = &start.file {
        out.line(format!("# {}", file.path.display()))?;
        out.line(file.text.trim_end())?;
        out.line("")?;
    }
    for (name, value) in &start.env {
        out.line(format!("export {name}={}", quoted(value)))?;
    }
    let given = flags.iter().map(|flag| flag.to_string_lossy().into_owned());
    let words: Vec<String> = start.flags.iter().cloned().chain(given).map(|word| quoted(&word)).collect();
    out.line([client.program.to_owned()].into_iter().chain(words).collect::<Vec<_>>().join(" "))
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_addresses_and_settings() {
        assert_eq!(
            (quoted("a-b/c").as_str(), quoted("a b").as_str(), quoted("it's").as_str()),
            ("a-b/c", "'a b'", r"'it'\''s'")
        );
        assert_eq!(
            (reached("0.0.0.0:7"), reached("[::]:7"), reached("box:7")),
            ("127.0.0.1:7".into(), "[::1]:7".into(), "box:7".into())
        );
        assert_eq!(encoded("hf.co/a/b:Q4 x?"), "hf.co/a/b:Q4%20x%3F");
        let own = serde_json::json!({"a": {"b": 1, "c": 2}, "d": 3});
        assert!(holds(&own, &serde_json::json!({"a": {"b": 1}})) && !holds(&own, &serde_json::json!({"a": {"b": 2}})));
        assert!(
            known("claude").is_ok() && known("nope").is_err_and(|e| e.sentence().is_some_and(|s| s.contains("codex")))
        );
    }
}
