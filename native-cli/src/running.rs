//! `ir ps` and `ir stop`: what a server that runs has loaded, and giving its memory back.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};

use crate::args::{PsArgs, ServerArgs, StopArgs};
use crate::client;
use crate::failure::{Failure, Result};
use crate::info::{grouped, human_bytes};
use crate::term::{self, Out, Style};

/// What is further away than this is never.
const NEVER: i64 = 10 * 365 * 86_400;

/// `ir ps`.
pub(crate) fn ps(args: &PsArgs) -> Result {
    let models = loaded(&args.server)?;
    let mut out = Out::new();
    if args.json {
        return out.line(Json::from(models).to_string());
    }
    if models.is_empty() {
        return out.line("No model is loaded.");
    }
    let text = |model: &Json, key: &str| term::one_line(model[key].as_str().unwrap_or("-"));
    let wide = models.iter().map(|m| text(m, "name").chars().count()).max().unwrap_or(0).clamp(8, 60);
    let head = format!("{:wide$}  {:>9}  {:>9}  {:24}  {}\n", "NAME", "SIZE", "CONTEXT", "DEVICE", "UNTIL");
    out.styled(Style::Bold, &head)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    for model in &models {
        let size = human_bytes(model["size"].as_u64().unwrap_or(0));
        let context = model["context_length"].as_u64().map_or_else(|| "-".into(), grouped);
        let until = model["expires_at"].as_str().and_then(seconds).map_or_else(|| "-".into(), |at| left(at - now));
        let (name, device) = (text(model, "name"), term::cut(&text(model, "device"), 24));
        out.line(format!("{name:wide$}  {size:>9}  {context:>9}  {device:24}  {until}"))?;
    }
    Ok(())
}

/// `ir stop`.
pub(crate) fn stop(args: &StopArgs) -> Result {
    let mut out = Out::new();
    for name in &args.model {
        let before = names(&args.server)?;
        let answer = client::ask(
            &args.server,
            "POST",
            "/api/generate",
            Some(&json!({ "model": name, "keep_alive": 0, "stream": false })),
        )?;
        let model = term::one_line(answer["model"].as_str().unwrap_or(name));
        let after = names(&args.server)?;
        if before.difference(&after).next().is_some() {
            out.line(format!("{model} is unloaded"))?;
        } else if before.iter().any(|known| same(known, &model)) {
            out.line(format!("{model} is in use: it is unloaded when the last answer has ended"))?;
        } else {
            return Err(Failure::run(format!("{model} is not loaded: `ir ps` shows what is")));
        }
    }
    Ok(())
}

fn same(a: &str, b: &str) -> bool {
    let bare = |name: &str| name.strip_suffix(":latest").unwrap_or(name).to_lowercase();
    bare(a) == bare(b)
}

fn loaded(server: &ServerArgs) -> Result<Vec<Json>> {
    let answer = client::ask(server, "GET", "/api/ps", None)?;
    let strange = || Failure::run(format!("what answers at {} is no server of models", server.addr));
    answer["models"].as_array().cloned().ok_or_else(strange)
}

fn names(server: &ServerArgs) -> Result<BTreeSet<String>> {
    Ok(loaded(server)?.iter().filter_map(|m| Some(m["name"].as_str()?.to_owned())).collect())
}

/// A time that lies so many seconds ahead.
fn left(seconds: i64) -> String {
    match seconds {
        ..=0 => "now".into(),
        1..90 => format!("in {seconds} s"),
        90..5400 => format!("in {} min", (seconds + 30) / 60),
        5400..172_800 => format!("in {} h", (seconds + 1800) / 3600),
        172_800..NEVER => format!("in {} days", seconds / 86_400),
        _ => "it is needed no more".into(),
    }
}

/// Seconds since 1970 of a time as RFC 3339 writes it.
fn seconds(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let time = number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?;
    let zone = text.get(19..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset = match zone.as_bytes().first()? {
        b'Z' => 0,
        sign @ (b'+' | b'-') => {
            let minutes = zone.get(1..3)?.parse::<i64>().ok()? * 60 + zone.get(4..6)?.parse::<i64>().ok()?;
            if *sign == b'+' { minutes * 60 } else { -minutes * 60 }
        }
        _ => return None,
    };
    // Years begin in March, so that leap days are last.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some(days * 86_400 + time - offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, want) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:00:01.123456789Z", Some(951_825_601)),
            ("2026-09-01T02:00:00+02:00", Some(1_788_220_800)),
            ("2026-08-31T19:30:00.5-04:30", Some(1_788_220_800)),
            ("yesterday", None),
            ("2026-09-01T02:00:00", None),
        ] {
            assert_eq!(seconds(text), want, "{text}");
        }
        let told: Vec<String> = [0, 30, 300, 7200, 864_000, 3_000_000_000].map(left).to_vec();
        assert_eq!(told, ["now", "in 30 s", "in 5 min", "in 2 h", "in 10 days", "it is needed no more"]);
    }
}
