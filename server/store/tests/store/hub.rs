//! A small hub, registry and file server on loopback that speaks the real protocols, and their faults. Every answer
//! closes its connection. The second port is another host for clients (`localhost` instead of `127.0.0.1`).
#![allow(dead_code, unreachable_pub, reason = "the command's tests use a part of it")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::Digest as _;

/// How the server misbehaves. By default it does not.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// So many bodies are cut at a random byte.
    pub cuts: u32,
    /// So many file requests are answered 429 (or this status), with this Retry-After.
    pub busy: u32,
    pub busy_status: u16,
    pub retry_after: Option<String>,
    /// So many bodies stop coming half-way, with the connection open.
    pub stalls: u32,
    /// Ranges are not understood.
    pub no_ranges: bool,
    /// Bodies come in chunks, and no length is given.
    pub chunked: bool,
    /// Added to every announced length.
    pub lie: i64,
    /// One bit of every body is wrong.
    pub flip: bool,
    /// Bodies are this many bytes short, with a length that fits.
    pub short: usize,
    /// Files are at the other host.
    pub redirect: bool,
    /// The other host's addresses are good for so many requests.
    pub good_for: Option<u32>,
    /// Where redirects go instead.
    pub redirect_to: Option<String>,
    /// The registry wants its own token.
    pub dance: bool,
    /// The hub wants this key.
    pub key: Option<String>,
    /// A pause after each piece of a body.
    pub pause: Option<Duration>,
    /// Neither ranges nor digests nor lengths: the end is where the line ends.
    pub bare: bool,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Whether it came to the second port.
    pub other: bool,
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
}

#[derive(Debug, Default)]
struct State {
    /// Files by path; below `/v2/` and `/files/` as they are, others as `/user/repo/file`.
    files: BTreeMap<String, Arc<Vec<u8>>>,
    /// Files of the hub that are not in its large storage.
    small: Vec<String>,
    /// Answers by path, of whatever form.
    answers: BTreeMap<String, String>,
    faults: Faults,
    seen: Vec<Seen>,
    sent: u64,
    random: u64,
    used: u32,
    uploads: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug)]
pub struct Hub {
    state: Arc<Mutex<State>>,
    ports: [u16; 2],
    stop: Arc<AtomicBool>,
}

pub fn random_bytes(n: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    let mut next = move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    (0..n.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(n).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

impl Hub {
    pub fn start() -> Hub {
        let state = Arc::new(Mutex::new(State { random: 0x9e37_79b9_7f4a_7c15, ..State::default() }));
        let stop = Arc::new(AtomicBool::new(false));
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = listeners.each_ref().map(|l| l.local_addr().unwrap().port());
        for (i, listener) in listeners.into_iter().enumerate() {
            let (state, stop) = (Arc::clone(&state), Arc::clone(&stop));
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let state = Arc::clone(&state);
                    // A client that leaves is no fault.
                    std::thread::spawn(move || drop(answer(stream, i == 1, ports, &state)));
                }
            });
        }
        Hub { state, ports, stop }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    pub fn faults(&self, faults: Faults) {
        let mut state = self.state.lock().unwrap();
        (state.faults, state.used) = (faults, 0);
    }

    pub fn file(&self, path: &str, bytes: &[u8]) {
        self.state.lock().unwrap().files.insert(path.to_owned(), Arc::new(bytes.to_vec()));
    }

    /// A file of the hub whose digest it does not give.
    pub fn small(&self, path: &str, bytes: &[u8]) {
        self.file(path, bytes);
        self.state.lock().unwrap().small.push(path.to_owned());
    }

    /// What is answered to this path, whatever it is.
    pub fn answer(&self, path: &str, body: &str) {
        self.state.lock().unwrap().answers.insert(path.to_owned(), body.to_owned());
    }

    /// A model of the registry: roles and contents.
    pub fn model(&self, path: &str, tag: &str, layers: &[(&str, &[u8])]) {
        let blob = |bytes: &[u8]| {
            self.file(&format!("/v2/{path}/blobs/sha256:{}", sha256(bytes)), bytes);
            (format!("sha256:{}", sha256(bytes)), bytes.len())
        };
        let layers: Vec<_> = layers
            .iter()
            .map(|(role, bytes)| {
                let (digest, size) = blob(bytes);
                serde_json::json!({"mediaType": format!("application/vnd.ollama.image.{role}"), "digest": digest, "size": size})
            })
            .collect();
        let (digest, size) = blob(br#"{"model_format":"gguf"}"#);
        let config = serde_json::json!({"mediaType": "application/vnd.docker.container.image.v1+json", "digest": digest, "size": size});
        let manifest = serde_json::json!({"schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "config": config, "layers": layers});
        self.answer(&format!("/v2/{path}/manifests/{tag}"), &manifest.to_string());
    }

    /// Bytes of files' bodies that were sent since the last call.
    pub fn sent(&self) -> u64 {
        std::mem::take(&mut self.state.lock().unwrap().sent)
    }

    /// Requests since the last call.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.lock().unwrap().seen)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for port in self.ports {
            let _ = TcpStream::connect(("127.0.0.1", port));
        }
    }
}

fn answer(stream: TcpStream, other: bool, ports: [u16; 2], state: &Mutex<State>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut out = stream;
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or("").to_owned(), words.next().unwrap_or("").to_owned());
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let seen = Seen { other, method, path: target.clone(), headers };
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let faults = {
        let mut state = state.lock().unwrap();
        state.seen.push(seen.clone());
        state.faults.clone()
    };
    let base = |i: usize| {
        if i == 1 { format!("http://localhost:{}", ports[1]) } else { format!("http://127.0.0.1:{}", ports[0]) }
    };
    if path == "/token" {
        return plain(&mut out, 200, &[], &format!(r#"{{"token": "anyone:{}"}}"#, query.len()));
    }
    if path.starts_with("/v2/")
        && !other
        && faults.dance
        && !seen.headers.get("authorization").is_some_and(|a| a.starts_with("Bearer anyone"))
    {
        let realm = format!("Bearer realm=\"{}/token\",service=\"here\",scope=\"repository:x:pull\"", base(1));
        return plain(&mut out, 401, &[("WWW-Authenticate", &realm)], "{}");
    }
    if let Some(key) = faults.key.filter(|_| !other)
        && seen.headers.get("authorization") != Some(&format!("Bearer {key}"))
    {
        return plain(&mut out, 401, &[], r#"{"error":"Repository not found"}"#);
    }
    let fixed = state.lock().unwrap().answers.get(path).cloned();
    if let Some(body) = fixed.filter(|_| seen.method == "GET") {
        return plain(&mut out, 200, &[], &body);
    }
    if let Some(rest) = path.strip_prefix("/api/models/") {
        return plain(&mut out, 200, &[], &repository(rest, &state.lock().unwrap()));
    }
    if path.starts_with("/v2/") && seen.method != "GET" && seen.method != "HEAD" {
        return upload(&mut out, &seen, path, query, body, state);
    }
    let key = if other || path.starts_with("/v2/") || path.starts_with("/files/") {
        path.to_owned()
    } else {
        without_revision(path)
    };
    let Some(bytes) = state.lock().unwrap().files.get(&key).cloned() else {
        return plain(&mut out, 404, &[], r#"{"error":"there is no such thing"}"#);
    };
    if !other && faults.redirect {
        let to = faults.redirect_to.clone().unwrap_or_else(|| format!("{}{key}", base(1)));
        return plain(&mut out, 302, &[("Location", &to)], "");
    }
    file(&mut out, &seen, &bytes, state)
}

/// `/user/repo/resolve/REVISION/file` without the revision.
fn without_revision(path: &str) -> String {
    match path.split_once("/resolve/") {
        Some((repo, rest)) => format!("{repo}/{}", rest.split_once('/').map_or("", |r| r.1)),
        None => path.to_owned(),
    }
}

fn repository(rest: &str, state: &State) -> String {
    let repo: String = rest.split('/').take(2).collect::<Vec<_>>().join("/");
    let prefix = format!("/{repo}/");
    let mut siblings = Vec::new();
    for (path, bytes) in &state.files {
        let Some(name) = path.strip_prefix(&prefix) else { continue };
        let mut one = serde_json::json!({"rfilename": name, "size": bytes.len()});
        if !state.small.contains(path) {
            one["lfs"] = serde_json::json!({"sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 130});
        }
        siblings.push(one);
    }
    serde_json::json!({"id": repo, "sha": "0123456789abcdef0123456789abcdef01234567", "siblings": siblings}).to_string()
}

fn upload(
    out: &mut TcpStream,
    seen: &Seen,
    path: &str,
    query: &str,
    body: Vec<u8>,
    state: &Mutex<State>,
) -> std::io::Result<()> {
    let mut state = state.lock().unwrap();
    if let Some(model) = path.strip_suffix("/blobs/uploads/") {
        let id = format!("{model}/upload/{}", state.uploads.len());
        state.uploads.insert(id.clone(), Vec::new());
        return plain(out, 202, &[("Location", &id)], "");
    }
    if let Some(so_far) = state.uploads.get_mut(path) {
        so_far.extend_from_slice(&body);
        if seen.method == "PATCH" {
            return plain(out, 202, &[("Location", path)], "");
        }
        let bytes = so_far.clone();
        let digest = query.replace("digest=", "").replace("%3A", ":");
        if digest != format!("sha256:{}", sha256(&bytes)) {
            return plain(out, 400, &[], r#"{"errors":[{"message":"digest mismatch"}]}"#);
        }
        let model = path.split("/upload/").next().unwrap_or("").to_owned();
        state.files.insert(format!("{model}/blobs/{digest}"), Arc::new(bytes));
        return plain(out, 201, &[], "");
    }
    if path.contains("/manifests/") {
        state.answers.insert(path.to_owned(), String::from_utf8(body).unwrap());
        return plain(out, 201, &[], "");
    }
    plain(out, 404, &[], "")
}

fn plain(out: &mut TcpStream, status: u16, headers: &[(&str, &str)], body: &str) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    out.write_all(format!("{text}\r\n{body}").as_bytes())
}

/// Sends a file, or a range of it, with the faults that are due.
fn file(out: &mut TcpStream, seen: &Seen, bytes: &[u8], state: &Mutex<State>) -> std::io::Result<()> {
    let (faults, busy, cut, stall, random) = {
        let mut state = state.lock().unwrap();
        let due = |n: &mut u32| std::mem::replace(n, n.saturating_sub(1)) > 0;
        let busy = due(&mut state.faults.busy);
        let cut = !busy && due(&mut state.faults.cuts);
        let stall = !busy && !cut && due(&mut state.faults.stalls);
        let x = &mut state.random;
        *x ^= *x << 13;
        *x ^= *x >> 7;
        *x ^= *x << 17;
        let random = *x;
        if seen.other {
            state.used += 1;
            if state.faults.good_for.is_some_and(|n| state.used > n) {
                state.used = 0;
                return plain(out, 403, &[], "expired");
            }
        }
        (state.faults.clone(), busy, cut, stall, random)
    };
    if busy {
        let after = faults.retry_after.clone().unwrap_or_else(|| "0".into());
        let status = if faults.busy_status == 0 { 429 } else { faults.busy_status };
        return plain(out, status, &[("Retry-After", &after)], "slow down");
    }
    let etag = format!("\"{}\"", &sha256(bytes)[..16]);
    let range = seen.headers.get("range").filter(|_| !faults.no_ranges && !faults.bare);
    let range = range.filter(|_| seen.headers.get("if-range").is_none_or(|e| *e == etag));
    let range = range.and_then(|r| r.strip_prefix("bytes=")?.split_once('-')).map(|(a, b)| {
        let last = b.parse().unwrap_or(bytes.len() - 1).min(bytes.len() - 1);
        (a.parse::<usize>().unwrap(), last)
    });
    let mut body = match range {
        Some((first, last)) if first <= last => bytes[first..=last].to_vec(),
        Some(_) => return plain(out, 416, &[], ""),
        None => bytes.to_vec(),
    };
    body.truncate(body.len().saturating_sub(faults.short));
    if faults.flip && !body.is_empty() {
        let at = random as usize % body.len();
        body[at] ^= 1;
    }
    let mut head = String::from("HTTP/1.1 ");
    match range {
        Some((first, last)) => {
            head += &format!("206 Partial\r\nContent-Range: bytes {first}-{last}/{}\r\n", bytes.len())
        }
        None => head += "200 OK\r\n",
    }
    // The hub's own tools ask which commit a file is of.
    head += "Connection: close\r\nX-Repo-Commit: 0123456789abcdef0123456789abcdef01234567\r\n";
    if !faults.bare {
        head += &format!("ETag: {etag}\r\n");
    }
    if faults.chunked {
        head += "Transfer-Encoding: chunked\r\n";
    } else if !faults.bare {
        head += &format!("Content-Length: {}\r\n", body.len() as i64 + faults.lie);
    }
    out.write_all(format!("{head}\r\n").as_bytes())?;
    if seen.method == "HEAD" {
        return Ok(());
    }
    let end = if cut || stall { random as usize % body.len().max(1) } else { body.len() };
    for piece in body[..end].chunks(16 << 10) {
        if faults.chunked {
            out.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
        }
        out.write_all(piece)?;
        state.lock().unwrap().sent += piece.len() as u64;
        if faults.chunked {
            out.write_all(b"\r\n")?;
        }
        if let Some(pause) = faults.pause {
            std::thread::sleep(pause);
        }
    }
    if stall {
        // Until the client leaves.
        let _ = out.read(&mut [0]);
        return Ok(());
    }
    if faults.chunked && !cut {
        out.write_all(b"0\r\n\r\n")?;
    }
    Ok(())
}
