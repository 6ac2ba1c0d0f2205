//! Bounds on Lark grammars before the compiler sees them, which recurses from rule to rule.

use super::compile::MAX_RULES;
use crate::error::{Error, Result};

/// Refuses grammars of too many rules.
pub(super) fn check(text: &str) -> Result<()> {
    // A rule or terminal begins a line; what merely looks like one counts too.
    let begins = |line: &&str| {
        let line = line.trim_start();
        line.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '?' | '!')) && line.contains(':')
    };
    let n = text.lines().filter(begins).count();
    if n > MAX_RULES {
        return Err(Error::limit(format!("the Lark grammar has {n} rules: it may have {MAX_RULES} at most")));
    }
    Ok(())
}
