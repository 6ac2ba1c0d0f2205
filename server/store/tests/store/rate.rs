//! A gigabyte from loopback, written and hashed: as fast as `curl URL | tee FILE | sha256sum`, near enough. Only with
//! `IR_FULL=1`, since it takes a machine that does nothing else, and an optimised build.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use ir_store::{Settings, Store};

use crate::hub::random_bytes;
use crate::{amount, folder, name};

const SIZE: usize = 1 << 30;
const PIECE: usize = 1 << 20;

/// Sends a file of the same mebibyte over and over, whole or in ranges.
fn serve(mut stream: TcpStream, piece: &[u8]) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut line, mut range) = (String::new(), None);
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let text = line.trim_end().to_lowercase();
        if text.is_empty() {
            break;
        }
        if let Some((first, last)) = text.strip_prefix("range: bytes=").and_then(|r| r.split_once('-')) {
            range = Some((first.parse::<usize>().unwrap(), last.parse().unwrap_or(SIZE - 1).min(SIZE - 1)));
        }
    }
    let (first, last) = range.unwrap_or((0, SIZE - 1));
    let status = match range {
        Some(_) => format!("206 Partial\r\nContent-Range: bytes {first}-{last}/{SIZE}"),
        None => "200 OK".into(),
    };
    let length = last + 1 - first;
    write!(stream, "HTTP/1.1 {status}\r\nETag: \"1\"\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
    let mut at = first;
    while at <= last {
        let start = at % PIECE;
        let end = PIECE.min(start + last + 1 - at);
        stream.write_all(&piece[start..end])?;
        at += end - start;
    }
    Ok(())
}

fn server(piece: Arc<Vec<u8>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let piece = Arc::clone(&piece);
            std::thread::spawn(move || drop(serve(stream, &piece)));
        }
    });
    port
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[test]
fn a_gigabyte_comes_as_fast_as_by_curl() {
    let runs = amount(0, 5);
    if runs == 0 || Command::new("curl").arg("--version").output().is_err() {
        eprintln!("skipped: the rate of a gigabyte (IR_FULL=1, and curl)");
        return;
    }
    let piece = Arc::new(random_bytes(PIECE, 9));
    let digest = {
        use sha2::Digest as _;
        let mut sum = sha2::Sha256::new();
        (0..SIZE / PIECE).for_each(|_| sum.update(piece.as_slice()));
        sum.finalize().iter().map(|b| format!("{b:02x}")).collect::<String>()
    };
    let url = format!("http://127.0.0.1:{}/x.gguf", server(piece));
    let root = folder("rate");
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let file = root.join("curl");
        let line = format!("curl -sS {url} | tee {} | sha256sum", file.display());
        let started = Instant::now();
        let out = Command::new("sh").arg("-c").arg(line).stderr(Stdio::inherit()).output().unwrap();
        theirs.push(started.elapsed().as_secs_f64());
        assert!(String::from_utf8_lossy(&out.stdout).starts_with(&digest));
        std::fs::remove_file(file).unwrap();
        let store = Store::new(Settings::new(root.join("store")));
        let started = Instant::now();
        let mut pull = store.pull(&name(&format!("{url}#sha256={digest}"))).unwrap();
        while let Some(event) = pull.next_blocking() {
            event.unwrap();
        }
        ours.push(started.elapsed().as_secs_f64());
        std::fs::remove_dir_all(root.join("store")).unwrap();
    }
    let (theirs, ours) = (median(theirs), median(ours));
    let ratio = theirs / ours;
    eprintln!("1 GiB: {ours:.2} s, by curl, tee and sha256sum {theirs:.2} s: {:.0} % of their rate", 100.0 * ratio);
    assert!(ratio >= 0.8, "{ours:.2} s against {theirs:.2} s");
}
