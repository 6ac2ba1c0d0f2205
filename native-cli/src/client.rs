//! Asking a server that runs: one request, one answer, over TCP or a Unix socket. Plain HTTP, as `ir serve` speaks it.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde_json::Value as Json;

use crate::args::ServerArgs;
use crate::failure::{Failure, Result};

/// An answer may have so many bytes.
const MAX_ANSWER: u64 = 64 << 20;

/// How long a server may take to take up the connection, and to say anything.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(120));

/// The JSON that the server answers with.
///
/// # Errors
/// There is no server, it refuses, or it answers in no known way.
pub(crate) fn ask(server: &ServerArgs, method: &str, path: &str, body: Option<&Json>) -> Result<Json> {
    let body = body.map(Json::to_string).unwrap_or_default();
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", host(&server.addr));
    if let Some(key) = server.api_key.first() {
        head += &format!("Authorization: Bearer {key}\r\n");
    }
    if !body.is_empty() {
        head += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    }
    let bytes = exchange(server, format!("{head}\r\n{body}").as_bytes())?;
    let strange = || Failure::run(format!("what answers at {} is no server of models", server.addr));
    let (status, text) = parse(&bytes).ok_or_else(strange)?;
    let json: Json = serde_json::from_slice(&text).map_err(|_| strange())?;
    if status == 200 {
        return Ok(json);
    }
    let error =
        json["error"].as_str().or(json["error"]["message"].as_str()).unwrap_or("it refuses, and does not say why");
    Err(Failure::run(match status {
        401 => format!("{error}: give it with --api-key"),
        _ => error.to_owned(),
    }))
}

/// The `Host` header for an address to listen on.
fn host(addr: &str) -> &str {
    if addr.starts_with("unix:") || addr.starts_with("0.0.0.0:") || addr.starts_with("[::]:") {
        "localhost"
    } else {
        addr
    }
}

fn nobody(addr: &str, error: &std::io::Error) -> Failure {
    Failure::run(format!(
        "no server answers at {addr} ({error}): `ir serve` starts one, and --addr names another place"
    ))
}

fn exchange(server: &ServerArgs, request: &[u8]) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| nobody(&server.addr, &e);
    if let Some(path) = server.addr.strip_prefix("unix:") {
        return unix(path, request).map_err(failed);
    }
    let wrong = |e: std::io::Error| {
        Failure::usage(format!("--addr {:?}: {e}; give HOST:PORT as in 127.0.0.1:11434", server.addr))
    };
    let mut last = None;
    for addr in server.addr.to_socket_addrs().map_err(wrong)? {
        match TcpStream::connect_timeout(&addr, PATIENCE.0) {
            Ok(stream) => {
                let _ = stream.set_read_timeout(Some(PATIENCE.1));
                return through(stream, request).map_err(failed);
            }
            Err(e) => last = Some(e),
        }
    }
    Err(failed(last.unwrap_or_else(|| std::io::Error::other("the name has no address"))))
}

#[cfg(unix)]
fn unix(path: &str, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let stream = std::os::unix::net::UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE.1))?;
    through(stream, request)
}

#[cfg(not(unix))]
fn unix(_: &str, _: &[u8]) -> std::io::Result<Vec<u8>> {
    Err(std::io::Error::other("this system has no Unix sockets"))
}

fn through(mut stream: impl Read + Write, request: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(request)?;
    let mut bytes = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// An answer's status and body.
fn parse(bytes: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let body = &bytes[end + 4..];
    let status = head.strip_prefix("HTTP/1.")?.split_whitespace().nth(1)?.parse().ok()?;
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|l| l.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let chunked = header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
    Some((status, if chunked { whole(body)? } else { body.to_vec() }))
}

/// A body that came in chunks.
fn whole(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let end = body.windows(2).position(|w| w == b"\r\n")?;
        let size = std::str::from_utf8(&body[..end]).ok()?.split(';').next()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(all);
        }
        let start = end + 2;
        all.extend_from_slice(body.get(start..start.checked_add(size)?)?);
        body = body.get(start + size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_whole_and_in_chunks() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(parse(whole), Some((200, b"{}".to_vec())));
        let chunks = b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4;x=y\r\n\":1}\r\n0\r\n\r\n";
        assert_eq!(parse(chunks), Some((404, b"{\"a\":1}".to_vec())));
        for broken in
            [&b""[..], b"hello\r\n\r\n", b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx"]
        {
            assert_eq!(parse(broken), None);
        }
    }
}
