//! `ir.toml` and the environment as defaults of flags, for every command alike, and `ir config`, which shows each value and
//! where it comes from. Flags go over the environment, the environment over the file, the file over what is built in.
//!
//! Keys are the flags' names without their dashes. A key at the top of the file counts for every command that has the
//! flag; one in a table named after a command counts for that command and goes over the other.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::BoolishValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};
use serde_json::{Value as Json, json};
use toml::{Table, Value};

use crate::args::{Cli, ConfigArgs};
use crate::failure::{Failure, Result};
use crate::term::Out;

/// Bytes of the file at most.
const MAX_FILE: u64 = 1 << 20;
/// Flags that are no settings.
const NO_SETTINGS: [&str; 3] = ["config", "help", "version"];
/// Flags whose values are not shown.
const SECRETS: [&str; 1] = ["api-key"];

/// The command line with the file and the environment taken into account. Wrong command lines end the program, as clap has
/// it.
///
/// # Errors
/// A file that cannot be read, is no TOML, or sets what does not exist.
pub(crate) fn parse() -> Result<Cli> {
    // llama.cpp's short form of a flag, which has more than one letter.
    let long = |arg: OsString| if arg == "-ngl" { OsString::from("--gpu-layers") } else { arg };
    let args: Vec<OsString> = std::env::args_os().map(long).collect();
    let file = File::find(&args)?;
    let command = with_defaults(Cli::command(), &file)?;
    let matches = command.try_get_matches_from(args).unwrap_or_else(|e| e.exit());
    Ok(Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit()))
}

/// The configuration file.
#[derive(Debug, Default)]
struct File {
    /// `None`: there is none.
    path: Option<PathBuf>,
    table: Table,
}

impl File {
    /// The file of `--config` or `IR_CONFIG`, which must exist, or else `ir/ir.toml` in the user's configuration folder.
    fn find(args: &[OsString]) -> Result<File> {
        let named = flag(args).or_else(|| std::env::var_os("IR_CONFIG").filter(|v| !v.is_empty()).map(PathBuf::from));
        if let Some(path) = named {
            return File::read(&path);
        }
        use etcetera::BaseStrategy;
        let usual = etcetera::choose_base_strategy().map(|s| s.config_dir().join("ir").join("ir.toml"));
        match usual {
            Ok(path) if path.is_file() => File::read(&path),
            _ => Ok(File::default()),
        }
    }

    fn read(path: &Path) -> Result<File> {
        let refused = |why: String| Failure::usage(format!("the configuration {}: {why}", path.display()));
        let size = std::fs::metadata(path).map_err(|e| refused(e.to_string()))?.len();
        if size > MAX_FILE {
            return Err(refused(format!("it has {size} bytes, more than {MAX_FILE}")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| refused(e.to_string()))?;
        let table = text.parse::<Table>().map_err(|e| refused(e.to_string().trim().replace('\n', " ")))?;
        Ok(File { path: Some(path.to_owned()), table })
    }

    fn refused(&self, why: String) -> Failure {
        let path = self.path.as_deref().unwrap_or(Path::new("ir.toml"));
        Failure::usage(format!("the configuration {}: {why}", path.display()))
    }

    /// What the file says of a command's flag.
    fn value(&self, command: &str, flag: &str) -> Option<&Value> {
        let own = self.table.get(command).and_then(Value::as_table).and_then(|t| t.get(flag));
        own.or_else(|| self.table.get(flag).filter(|v| !v.is_table()))
    }

    /// Refuses keys that no command has.
    fn check(&self, cli: &Command) -> Result {
        let has = |command: &Command, key: &str| settings(command).any(|arg| arg.get_long() == Some(key));
        for (key, value) in &self.table {
            let Some(table) = value.as_table() else {
                if !cli.get_subcommands().any(|c| has(c, key)) {
                    return Err(self.refused(format!("no command has the setting {key:?}")));
                }
                continue;
            };
            let Some(command) = cli.find_subcommand(key) else {
                return Err(self.refused(format!("there is no command [{key}]")));
            };
            if let Some(key) = table.keys().find(|k| !has(command, k)) {
                let name = command.get_name();
                return Err(self.refused(format!("[{name}] has no setting {key:?}: `ir {name} --help` lists them")));
            }
        }
        Ok(())
    }
}

/// `--config` on the command line, before clap knows the defaults.
fn flag(args: &[OsString]) -> Option<PathBuf> {
    let mut args = args.iter().skip(1).take_while(|a| *a != "--");
    while let Some(arg) = args.next() {
        if arg == "--config" {
            return args.next().map(PathBuf::from);
        }
        if let Some(path) = arg.to_str().and_then(|a| a.strip_prefix("--config=")) {
            return Some(PathBuf::from(path));
        }
    }
    None
}

/// The flags of a command that can be set.
fn settings(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| arg.get_long().is_some_and(|long| !NO_SETTINGS.contains(&long)))
}

/// The name of a flag's variable.
fn variable(flag: &str) -> String {
    // The hub's own tools have a name for it.
    if flag == "hub" {
        return "HF_ENDPOINT".into();
    }
    format!("IR_{}", flag.replace('-', "_").to_uppercase())
}

/// The command line with the file's values as its defaults, and variables beside flags.
fn with_defaults(mut cli: Command, file: &File) -> Result<Command> {
    file.check(&cli)?;
    let names: Vec<String> = cli.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    for name in names {
        let Some(command) = cli.find_subcommand(&name) else { continue };
        let mut changes = Vec::new();
        for arg in settings(command) {
            let flag = arg.get_long().unwrap_or_default().to_owned();
            let value = file.value(&name, &flag).map(|v| texts(file, &flag, v)).transpose()?;
            changes.push((arg.get_id().clone(), flag, value));
        }
        cli = cli.mut_subcommand(name, |command| {
            changes.into_iter().fold(command, |command, (id, flag, value)| {
                command.mut_arg(id, |arg| {
                    let switch = matches!(arg.get_action(), ArgAction::SetTrue);
                    let arg = arg.env(variable(&flag)).hide_env(true);
                    let arg = if switch { arg.value_parser(BoolishValueParser::new()) } else { arg };
                    match value {
                        Some(values) => arg.default_values(values),
                        None => arg,
                    }
                })
            })
        });
    }
    Ok(cli)
}

/// A value as one would write it on the command line.
fn texts(file: &File, flag: &str, value: &Value) -> Result<Vec<String>> {
    let one = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(n) => Ok(n.to_string()),
        Value::Float(n) => Ok(n.to_string()),
        Value::Boolean(b) => Ok(b.to_string()),
        _ => Err(file.refused(format!("{flag} must be a text, a number, true, false, or an array of those"))),
    };
    match value {
        Value::Array(all) => all.iter().map(one).collect(),
        other => one(other).map(|text| vec![text]),
    }
}

/// `ir config`.
pub(crate) fn config(args: &ConfigArgs) -> Result {
    let all: Vec<OsString> = std::env::args_os().collect();
    let file = File::find(&all)?;
    let cli = with_defaults(Cli::command(), &file)?;
    let Some(command) = cli.find_subcommand(&args.command).cloned() else {
        return Err(Failure::usage(format!("there is no command {:?}: `ir --help` lists them", args.command)));
    };
    let (found, command) = matches(command, &args.flags)?;
    let mut out = Out::new();
    let rows: Vec<Row> = settings(&command).map(|arg| Row::of(arg, &found, &file, &args.command)).collect();
    if args.json {
        let rows = rows.iter().map(|r| (r.flag.clone(), json!({"value": r.value, "from": r.source})));
        let object: serde_json::Map<String, Json> = rows.collect();
        return out.line(Json::Object(object).to_string());
    }
    match &file.path {
        Some(path) => out.line(format!("# {} for `ir {}`", path.display(), args.command))?,
        None => out.line(format!("# no ir.toml, for `ir {}`", args.command))?,
    }
    let width = rows.iter().map(|r| r.flag.len() + r.value.to_string().len()).max().unwrap_or(0).min(60);
    for Row { flag, value, source } in rows {
        let line = format!("{flag} = {value}");
        out.line(format!("{line:<width$}  # {source}", width = width + 3))?;
    }
    Ok(())
}

/// What a command would be told. What it asks for beside flags is not needed to see its settings.
fn matches(command: Command, flags: &[OsString]) -> Result<(ArgMatches, Command)> {
    let ids: Vec<clap::Id> = command.get_arguments().map(|a| a.get_id().clone()).collect();
    let optional = |command: Command, id: clap::Id| command.mut_arg(id, |arg| arg.required(false));
    let command = ids.into_iter().fold(command, optional).no_binary_name(true);
    let found = command.clone().try_get_matches_from(flags).map_err(|e| {
        let text = e.to_string();
        let first = text.lines().next().unwrap_or("").trim_start_matches("error: ").to_owned();
        Failure::usage(first)
    })?;
    Ok((found, command))
}

/// A setting.
struct Row {
    flag: String,
    value: Json,
    source: String,
}

impl Row {
    fn of(arg: &Arg, found: &ArgMatches, file: &File, command: &str) -> Row {
        let flag = arg.get_long().unwrap_or_default().to_owned();
        let id = arg.get_id().as_str();
        let raw = found.try_get_raw(id).ok().flatten();
        let values: Vec<String> = raw.into_iter().flatten().map(|v| v.to_string_lossy().into_owned()).collect();
        let shown = |text: &String| if SECRETS.contains(&flag.as_str()) { json!("(hidden)") } else { plain(text) };
        let switch = matches!(arg.get_action(), ArgAction::SetTrue);
        let value = match values.as_slice() {
            _ if switch => found.get_flag(id).into(),
            [] => Json::Null,
            [one] => shown(one),
            more => more.iter().map(shown).collect(),
        };
        let source = match found.value_source(id) {
            Some(ValueSource::CommandLine) => "flag".to_owned(),
            Some(ValueSource::EnvVariable) => variable(&flag),
            _ if file.value(command, &flag).is_some() => "ir.toml".to_owned(),
            _ => "default".to_owned(),
        };
        Row { flag, value, source }
    }
}

/// Numbers and switches without quotes.
fn plain(text: &str) -> Json {
    match text.parse::<Json>() {
        Ok(value @ (Json::Number(_) | Json::Bool(_))) => value,
        _ => json!(text),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        File { path: Some("ir.toml".into()), table: text.parse().unwrap() }
    }

    /// A setting of `ir serve` and where it is from.
    fn row(text: &str, flags: &[&str], flag: &str) -> (Json, String) {
        let file = file(text);
        let cli = with_defaults(Cli::command(), &file).unwrap();
        let flags: Vec<OsString> = flags.iter().map(OsString::from).collect();
        let (found, command) = matches(cli.find_subcommand("serve").unwrap().clone(), &flags).unwrap();
        let arg = settings(&command).find(|a| a.get_long() == Some(flag)).unwrap();
        let Row { value, source, .. } = Row::of(arg, &found, &file, "serve");
        (value, source)
    }

    #[test]
    fn the_command_line_is_consistent() {
        with_defaults(Cli::command(), &File::default()).unwrap().debug_assert();
    }

    #[test]
    fn tables_go_over_the_top_and_flags_over_both() {
        let text = "threads = 3\nctx = 512\n[serve]\nctx = 1024\ncors = [\"http://a\", \"http://b\"]\nno-key = true\n[run]\nctx = 7\n";
        assert_eq!(row(text, &[], "ctx"), (json!(1024), "ir.toml".into()));
        assert_eq!(row(text, &["--ctx", "99"], "ctx"), (json!(99), "flag".into()));
        assert_eq!(row(text, &[], "threads"), (json!(3), "ir.toml".into()));
        assert_eq!(row(text, &[], "cors").0, json!(["http://a", "http://b"]));
        assert_eq!(row(text, &[], "no-key"), (json!(true), "ir.toml".into()));
        assert_eq!(row(text, &[], "queue"), (json!(512), "default".into()));
        assert_eq!(row("[serve]\napi-key = \"secret\"", &[], "api-key").0, json!("(hidden)"));
    }

    #[test]
    fn what_does_not_exist_is_named() {
        let cases = [
            ("nope = 1", "nope"),
            ("[serve]\nnope = 1", "nope"),
            ("[nope]\nctx = 1", "[nope]"),
            ("[serve]\nctx = {a = 1}", "ctx"),
            ("config = \"x\"", "config"),
        ];
        for (text, part) in cases {
            let error = with_defaults(Cli::command(), &file(text)).map(|_| ()).unwrap_err();
            assert!(error.sentence().unwrap().contains(part), "{text}: {error:?}");
        }
    }
}
