//! [`Modelfile`]: what a model is made of and how it is to be run, in Ollama's text form.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::error::{Error, Kind, Result};

/// A Modelfile may have so many bytes.
const MAX_MODELFILE: usize = 4 << 20;

const INTEGERS: [&str; 12] = [
    "num_keep",
    "seed",
    "num_predict",
    "top_k",
    "repeat_last_n",
    "num_ctx",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "num_thread",
    "draft_num_predict",
    "num_gqa",
];
const NUMBERS: [&str; 7] =
    ["temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty"];
const SWITCHES: [&str; 1] = ["use_mmap"];
const TEXTS: [&str; 1] = ["stop"];

/// Parameters of older Modelfiles that mean nothing any more.
const OLD: [&str; 11] = [
    "mirostat",
    "mirostat_eta",
    "mirostat_tau",
    "tfs_z",
    "penalize_newline",
    "numa",
    "f16_kv",
    "low_vram",
    "vocab_only",
    "use_mlock",
    "logits_all",
];

/// What a model is made of and how it is to be run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Modelfile {
    /// The model or file that it is made from.
    pub from: String,
    /// Instead of it: files that are in the store already, by their names and digests.
    pub blobs: Vec<(String, String)>,
    /// Parameters by name; `stop` is an array.
    pub parameters: Map<String, Value>,
    /// The chat template, in Go's form.
    pub template: Option<String>,
    /// The system prompt.
    pub system: Option<String>,
    /// Adapters that are put on the model.
    pub adapters: Vec<String>,
    /// Examples that come before every chat: role and text.
    pub messages: Vec<(String, String)>,
    /// The type that the weights are quantised to; as they are if `None`. No line of a Modelfile says so.
    pub quantize: Option<String>,
    /// Licences.
    pub licenses: Vec<String>,
    /// The version of Ollama that it is said to need.
    pub requires: Option<String>,
    /// What was left out because it means nothing any more.
    pub remarks: Vec<String>,
}

impl Modelfile {
    /// Reads a Modelfile.
    ///
    /// # Errors
    /// With the line and what is wrong in it.
    pub fn parse(text: &str) -> Result<Modelfile> {
        if text.len() > MAX_MODELFILE || text.contains('\0') {
            return Err(Error::new(Kind::Name, "that is no Modelfile: it is too large, or has bytes that no text has"));
        }
        let mut file = Modelfile::default();
        let mut reader = Reader { rest: text.strip_prefix('\u{feff}').unwrap_or(text), line: 0 };
        while let Some((line, command, rest)) = reader.command() {
            let wrong = |why: String| Error::new(Kind::Name, format!("line {line} of the Modelfile: {why}"));
            match command.to_ascii_uppercase().as_str() {
                "FROM" if !file.from.is_empty() => return Err(wrong("there can be one FROM only".into())),
                "FROM" => file.from = reader.value(rest).map_err(wrong)?,
                "TEMPLATE" => file.template = Some(reader.value(rest).map_err(wrong)?),
                "SYSTEM" => file.system = Some(reader.value(rest).map_err(wrong)?),
                "ADAPTER" => file.adapters.push(reader.value(rest).map_err(wrong)?),
                "LICENSE" => file.licenses.push(reader.value(rest).map_err(wrong)?),
                "REQUIRES" => file.requires = Some(reader.value(rest).map_err(wrong)?),
                "PARAMETER" => {
                    let (name, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                    let value = reader.value(value.trim_start()).map_err(wrong)?;
                    file.parameter(name, &value).map_err(wrong)?;
                }
                "MESSAGE" => {
                    let (role, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                    let role = role.to_lowercase();
                    if !["system", "user", "assistant"].contains(&role.as_str()) {
                        return Err(wrong(format!("a MESSAGE is of system, user or assistant, not of {role:?}")));
                    }
                    let value = reader.value(value.trim_start()).map_err(wrong)?;
                    file.messages.push((role, value));
                }
                other => {
                    let other: String = other.chars().take(40).collect();
                    return Err(wrong(format!(
                        "{other:?} is no command: use FROM, PARAMETER, TEMPLATE, SYSTEM, ADAPTER, MESSAGE, LICENSE, REQUIRES"
                    )));
                }
            }
        }
        if file.from.is_empty() {
            return Err(Error::new(Kind::Name, "the Modelfile needs a line FROM, with a model's name or a .gguf file"));
        }
        Ok(file)
    }

    fn parameter(&mut self, name: &str, text: &str) -> std::result::Result<(), String> {
        let name = name.to_lowercase();
        let known = name.as_str();
        let wrong = |kind: &str| format!("{name} takes {kind}, not {text:?}");
        let value = if INTEGERS.contains(&known) {
            // Some write 4096.0.
            let whole = text.parse::<f64>().ok().filter(|x| x.fract() == 0.0 && x.abs() < 9e15).map(|x| x as i64);
            json!(text.parse::<i64>().ok().or(whole).ok_or_else(|| wrong("a whole number"))?)
        } else if NUMBERS.contains(&known) {
            json!(text.parse::<f64>().ok().filter(|x| x.is_finite()).ok_or_else(|| wrong("a number"))?)
        } else if SWITCHES.contains(&known) {
            json!(text.parse::<bool>().map_err(|_| wrong("true or false"))?)
        } else if TEXTS.contains(&known) {
            let mut all = self.parameters.get(known).and_then(Value::as_array).cloned().unwrap_or_default();
            all.push(json!(text));
            json!(all)
        } else if OLD.contains(&known) {
            self.remarks.push(format!("PARAMETER {name} means nothing any more and is left out"));
            return Ok(());
        } else {
            let all = [&INTEGERS[..], &NUMBERS, &SWITCHES, &TEXTS].concat();
            let near = crate::nearest::nearest(known, all.iter().copied());
            let near = if near.is_empty() { all.join(", ") } else { near.join(", ") };
            return Err(format!(
                "there is no parameter {:?}: is it {near}?",
                known.chars().take(40).collect::<String>()
            ));
        };
        self.parameters.insert(name, value);
        Ok(())
    }
}

/// Reads line by line; a value in `"""` may have many.
struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Reader<'a> {
    fn next_line(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        let (line, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
        self.rest = rest;
        self.line += 1;
        Some(line.strip_suffix('\r').unwrap_or(line))
    }

    /// The next command's line number, word, and what follows it.
    fn command(&mut self) -> Option<(usize, &'a str, &'a str)> {
        loop {
            let line = self.next_line()?.trim_start();
            if line.trim_end().is_empty() || line.starts_with('#') {
                continue;
            }
            let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            return Some((self.line, command.trim_end(), rest.trim_start()));
        }
    }

    /// A value: the rest of the line, a text in quotes, or one in `"""` that may have many lines.
    fn value(&mut self, text: &str) -> std::result::Result<String, String> {
        let Some(quote) = ["\"\"\"", "\""].into_iter().find(|q| text.starts_with(q)) else {
            let text = text.trim_end();
            return if text.is_empty() { Err("a value is missing".into()) } else { Ok(text.to_owned()) };
        };
        let mut value = text[quote.len()..].to_owned();
        loop {
            if let Some(at) = value.find(quote) {
                let after = value[at + quote.len()..].trim();
                if !after.is_empty() && quote.len() > 1 {
                    return Err(format!(
                        "after the closing quotes comes {:?}",
                        after.chars().take(40).collect::<String>()
                    ));
                }
                if after.is_empty() {
                    value.truncate(at);
                    return Ok(value);
                }
                // Quotes within a line belong to it, unless they close it.
                let closed = value.trim_end().strip_suffix('"').map(str::to_owned);
                return Ok(closed.unwrap_or_else(|| format!("\"{value}")));
            }
            let Some(next) = self.next_line() else { return Err("the closing quotes are missing".into()) };
            value.push('\n');
            value.push_str(next);
        }
    }
}

fn quoted(text: &str) -> String {
    let plain = !text.contains(['\n', '"']) && text.trim() == text && !text.is_empty();
    match (plain, text.contains("\"\"\"")) {
        (true, _) => text.to_owned(),
        (false, false) => format!("\"\"\"{text}\"\"\""),
        // There is no way to write three quotes: two are nearest.
        (false, true) => format!("\"\"\"{}\"\"\"", text.replace("\"\"\"", "\"\"")),
    }
}

/// Parameters as lines: name and value.
pub fn parameter_lines(parameters: &Map<String, Value>) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    for (name, value) in parameters {
        let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
        for value in values {
            let text = value.as_str().map_or_else(|| value.to_string(), quoted_word);
            lines.push((name.clone(), text));
        }
    }
    lines
}

fn quoted_word(text: &str) -> String {
    if text.contains('\n') { format!("\"\"\"{text}\"\"\"") } else { format!("\"{text}\"") }
}

impl fmt::Display for Modelfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "FROM {}", self.from)?;
        if let Some(template) = &self.template {
            writeln!(f, "TEMPLATE {}", quoted(template))?;
        }
        if let Some(system) = &self.system {
            writeln!(f, "SYSTEM {}", quoted(system))?;
        }
        for (name, value) in parameter_lines(&self.parameters) {
            writeln!(f, "PARAMETER {name} {value}")?;
        }
        for (role, text) in &self.messages {
            writeln!(f, "MESSAGE {role} {}", quoted(text))?;
        }
        for license in &self.licenses {
            writeln!(f, "LICENSE \"\"\"{}\"\"\"", license.replace("\"\"\"", "\"\""))?;
        }
        self.requires.as_ref().map_or(Ok(()), |requires| writeln!(f, "REQUIRES {requires}"))
    }
}
