//! The server's floors: none uses one above it, and no API uses another.

use std::path::{Path, PathBuf};

/// The floors, lowest first; `lib` only names what is public.
const FLOORS: [&str; 6] = ["engine", "models", "generate", "api", "http", "lib"];

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A place in the crate as its first two names: `crate::api::common::stream` is `["api", "common"]`.
fn two(path: &str) -> [String; 2] {
    let mut names = path.split("::").map(|n| n.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
    [names.next().unwrap_or_default(), names.next().unwrap_or_default()]
}

/// What a line uses of the crate: full paths, and those that climb out of a folder by `super`.
fn used(line: &str, own: &[String]) -> Vec<[String; 2]> {
    let whole = line.split("crate::").skip(1).map(two);
    let climbing = line.split("super::super::").skip(1).filter(|_| own.len() == 3).map(|rest| {
        let [name, _] = two(rest);
        [own[0].clone(), name]
    });
    whole.chain(climbing).collect()
}

#[test]
fn floors_use_only_what_is_below_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let floor = |name: &str| FLOORS.iter().position(|f| *f == name);
    let (mut faults, mut n_uses) = (Vec::new(), 0);
    for file in files(&src) {
        let inside = file.strip_prefix(&src).unwrap().with_extension("");
        let own: Vec<String> = inside.iter().map(|n| n.to_string_lossy().into_owned()).collect();
        let Some(mine) = floor(&own[0]) else {
            faults.push(format!("{} has no floor", inside.display()));
            continue;
        };
        let text = std::fs::read_to_string(&file).unwrap();
        for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//")) {
            for [first, second] in used(line, &own) {
                n_uses += 1;
                let sibling = first == "api" && own[0] == "api";
                let allowed = match floor(&first) {
                    Some(theirs) if theirs == mine && sibling => second == "common" || second == own[1],
                    Some(theirs) => theirs <= mine,
                    None => own[0] == "lib",
                };
                if !allowed {
                    faults.push(format!("{}:{}: uses {first}::{second}", inside.display(), i + 1));
                }
            }
        }
    }
    assert!(n_uses > 200, "the uses were not found: {n_uses}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_climbing_use_is_found() {
    let own = ["api", "ollama", "embed"].map(str::to_owned);
    let found = used("use super::super::openai::chat; use crate::http::serve::Limits;", &own);
    assert_eq!(found, [["http", "serve"], ["api", "openai"]].map(|f| f.map(str::to_owned)));
}
