//! Keeps hostile templates in bounds. minijinja counts steps, but not what a step costs: `a ~ a` in a loop doubles
//! a text until memory ends, and long chains of operators overflow the stack of its compiler. So what a source asks of
//! the compiler is measured first (`nesting`), and in the tree that minijinja's parser makes, whatever can allocate gets
//! filters in front of it that draw on a budget (`paid`, `ops`). A template is compiled anew for each rendering, since
//! compiled code borrows from its source; that takes a small part of the time that rendering takes.

mod filters;
mod methods;
mod nesting;
mod ops;
mod paid;

use std::collections::BTreeMap;

use minijinja::machinery::{CodeGenerator, ast, eval, make_string_output, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, Value};

pub(super) use ops::{MAX_TEXT, install, spend_text};

/// A template's source may be this long, in bytes. Those of the hub reach some 20 KB.
const MAX_SOURCE: usize = 1 << 20;

/// The name of every template.
const NAME: &str = "template";

/// A template that parses and keeps the limits.
#[derive(Debug)]
pub(super) struct Guarded {
    source: String,
}

impl Guarded {
    /// # Errors
    /// Where the template is too long, does not parse or nests too deep.
    pub(super) fn new(source: &str) -> Result<Guarded, Error> {
        if source.len() > MAX_SOURCE {
            return Err(ops::invalid(format!("it is longer than {MAX_SOURCE} bytes")));
        }
        let guarded = Guarded { source: nesting::checked(source, syntax())? };
        guarded.tree()?;
        Ok(guarded)
    }

    fn tree(&self) -> Result<ast::Stmt<'_>, Error> {
        paid::statement(&parse(&self.source, NAME, syntax())?)
    }

    /// The text that it makes of the variables.
    pub(super) fn render(&self, env: &Environment, variables: Value) -> Result<String, Error> {
        let mut code = CodeGenerator::new(NAME, &self.source);
        code.compile_stmt(&self.tree()?);
        let (instructions, _) = code.finish();
        let (blocks, mut text) = (BTreeMap::new(), String::new());
        eval(env, &instructions, variables, &blocks, &mut make_string_output(&mut text), AutoEscape::None)?;
        if text.len() > MAX_TEXT {
            return Err(ops::invalid(format!("the prompt is longer than {MAX_TEXT} bytes")));
        }
        Ok(text)
    }
}

/// Hugging Face's rules of whitespace.
fn syntax() -> SyntaxConfig {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().unwrap_or_default()
}
