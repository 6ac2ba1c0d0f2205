//! Keeps hostile templates in bounds. minijinja counts steps, but not what a step costs: `a ~ a` in a loop doubles
//! a text until memory ends, and deep nesting overflows the stack. So a source is rewritten (`rewrite`) to call
//! operations that draw on a budget (`ops`) and behave as Python's. See [`install`] and [`compile`].

mod filters;
mod lexer;
mod methods;
mod operand;
mod ops;
mod parser;
mod rewrite;

use crate::error::{Error, Result};

pub(super) use ops::{MAX_TEXT, install, spend_text};

/// A template's source may be this long, in bytes. Those of the hub reach some 20 KB.
const MAX_SOURCE: usize = 1 << 20;

/// The source that minijinja gets for a template.
///
/// # Errors
/// Where the template is too long, does not parse or nests too deep.
pub(super) fn compile(source: &str) -> Result<String> {
    if source.len() > MAX_SOURCE {
        return Err(Error::Template(format!("it is longer than {MAX_SOURCE} bytes")));
    }
    rewrite::rewrite(source).map_err(|fault| Error::Template(format!("{} (line {})", fault.what, fault.line)))
}
