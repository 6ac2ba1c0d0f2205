//! `ir tokenize`: how a model cuts a text into tokens.

use std::io::Read;

use ir_engine::text::Tokenizer;

use crate::args::TokenizeArgs;
use crate::failure::{Failure, Result};
use crate::models::{self, Opening};
use crate::term::{self, Out};

/// Prints a text's token ids, and their pieces unless JSON is wanted.
pub(crate) fn tokenize(args: &TokenizeArgs) -> Result {
    let place = models::find(&args.model, &args.file)?;
    let file = place.open_file(&args.file.place)?;
    let tokenizer =
        Tokenizer::from_meta(file.meta(), args.file.tokenizer_pre.as_deref()).map_err(|e| place.failure(&e))?;
    let ids = tokenizer.encode(&text(args)?, !args.no_bos, !args.no_special);
    let mut out = Out::new();
    if args.json {
        return out.line(serde_json::json!({ "ids": ids }).to_string());
    }
    let mut table = String::new();
    for id in &ids {
        table.push_str(&format!("{id:>7}  {}\n", piece(&tokenizer, *id)));
    }
    out.text(&table)?;
    out.line(term::counted(ids.len(), "token"))
}

/// What an id stands for, quoted; its spelling where it is a control token, its bytes where they are no whole
/// characters.
fn piece(tokenizer: &Tokenizer, id: u32) -> String {
    if tokenizer.is_control(id) {
        return tokenizer.piece(id).escape_debug().to_string();
    }
    let bytes = tokenizer.token_bytes(id);
    match std::str::from_utf8(&bytes) {
        Ok(text) => format!("{text:?}"),
        Err(_) => bytes.iter().map(|b| format!("\\x{b:02x}")).collect(),
    }
}

/// The text that the arguments name.
fn text(args: &TokenizeArgs) -> Result<String> {
    if let Some(text) = &args.text {
        return Ok(text.clone());
    }
    read_text(args.text_file.as_deref())
}

/// A file as text, or standard input for `None` and `-`.
pub(crate) fn read_text(path: Option<&std::path::Path>) -> Result<String> {
    let mut bytes = Vec::new();
    let name = match path.filter(|p| p.as_os_str() != "-") {
        Some(path) => {
            let failed = |e| Failure::run(format!("cannot read {}: {e}", path.display()));
            bytes = std::fs::read(path).map_err(failed)?;
            path.display().to_string()
        }
        None => {
            let failed = |e| Failure::run(format!("cannot read standard input: {e}"));
            std::io::stdin().read_to_end(&mut bytes).map_err(failed)?;
            "standard input".to_owned()
        }
    };
    let not_text = |e: std::string::FromUtf8Error| {
        let at = e.utf8_error().valid_up_to();
        Failure::run(format!("{name} is no UTF-8 text (byte {at}): convert it first"))
    };
    String::from_utf8(bytes).map_err(not_text)
}
