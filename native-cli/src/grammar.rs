//! What the command line says answers must look like, as a constraint for a model's vocabulary.

use std::path::Path;

use ir_engine::text::Tokenizer;
use ir_engine::text::constrain::{Constrainer, Constraint, Grammar, Vocabulary};

use crate::args::GrammarArgs;
use crate::failure::{Failure, Result};

/// Bytes of a grammar's file at most.
const MAX_FILE: u64 = 1 << 20;

/// The constraint that was asked for, if any.
pub(crate) fn constraint(args: &GrammarArgs, tokenizer: &Tokenizer) -> Result<Option<Constraint>> {
    let grammar = match args {
        GrammarArgs { grammar: Some(text), .. } => Grammar::Gbnf(text.clone()),
        GrammarArgs { grammar_file: Some(file), .. } => {
            let text = read(file)?;
            if file.extension().is_some_and(|e| e == "lark") { Grammar::Lark(text) } else { Grammar::Gbnf(text) }
        }
        GrammarArgs { json_schema: Some(schema), .. } => {
            let inline = schema.trim_start().starts_with('{');
            let text = if inline { schema.clone() } else { read(Path::new(schema))? };
            let schema = serde_json::from_str(&text)
                .map_err(|e| Failure::usage(format!("the JSON schema is no JSON ({e}): give its text or a file")))?;
            Grammar::JsonSchema(schema)
        }
        GrammarArgs { regex: Some(regex), .. } => Grammar::Regex(regex.clone()),
        _ => return Ok(None),
    };
    let compiled = Constrainer::new(&Vocabulary::of(tokenizer))?.compile(&grammar);
    compiled.map(Some).map_err(|e| Failure::usage(e.to_string()))
}

fn read(path: &Path) -> Result<String> {
    let refused = |why: String| Failure::usage(format!("cannot read the grammar {}: {why}", path.display()));
    let size = std::fs::metadata(path).map_err(|e| refused(e.to_string()))?.len();
    if size > MAX_FILE {
        return Err(refused(format!("it has {size} bytes, more than {MAX_FILE}")));
    }
    std::fs::read_to_string(path).map_err(|e| refused(e.to_string()))
}
