//! Parses the expressions of a tag and writes each as equivalent Jinja, fully bracketed, with calls of the budgeted
//! operations (`ops`) for what can allocate. Operators are here, operands in `operand`, statements in `rewrite`.

use super::lexer::Token;

/// Brackets, unary operators and choices may nest this deep within a tag.
pub(super) const MAX_NESTING: usize = 48;

/// Operators of one level, filters and subscripts may follow each other this often.
const MAX_CHAIN: usize = 400;

/// What a rule writes, or why it cannot.
pub(super) type Code = Result<String, String>;

/// Rewrites all of `tokens` by one rule.
pub(super) fn whole<'t>(tokens: &'t [Token], rule: impl FnOnce(&mut Parser<'t>) -> Code) -> Code {
    let mut parser = Parser { tokens, at: 0, depth: 0 };
    let code = rule(&mut parser)?;
    parser.end()?;
    Ok(code)
}

/// A string literal of this value.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A recursive-descent parser that writes what it reads. Precedence is Jinja's; what it writes is in brackets.
pub(super) struct Parser<'a> {
    pub(super) tokens: &'a [Token],
    pub(super) at: usize,
    depth: usize,
}

/// Names that no variable can have.
pub(super) const KEYWORDS: [&str; 8] = ["if", "else", "and", "or", "not", "in", "is", "recursive"];

impl Parser<'_> {
    pub(super) fn sees(&self, op: &str) -> bool {
        matches!(self.tokens.get(self.at), Some(Token::Op(o)) if *o == op)
    }

    pub(super) fn takes(&mut self, op: &str) -> bool {
        let found = self.sees(op);
        self.at += usize::from(found);
        found
    }

    pub(super) fn sees_name(&self, name: &str) -> bool {
        matches!(self.tokens.get(self.at), Some(Token::Name(n)) if n == name)
    }

    pub(super) fn takes_name(&mut self, name: &str) -> bool {
        let found = self.sees_name(name);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, op: &str) -> Result<(), String> {
        if self.takes(op) { Ok(()) } else { Err(format!("{op:?} is missing before {}", self.here())) }
    }

    pub(super) fn here(&self) -> String {
        match self.tokens.get(self.at) {
            Some(Token::Name(text) | Token::Number(text)) => format!("{text:?}"),
            Some(Token::Str(_)) => "a string".into(),
            Some(Token::Op(op)) => format!("{op:?}"),
            None => "the end of the tag".into(),
        }
    }

    pub(super) fn end(&self) -> Result<(), String> {
        if self.at == self.tokens.len() { Ok(()) } else { Err(format!("unexpected {}", self.here())) }
    }

    pub(super) fn name(&mut self) -> Code {
        match self.tokens.get(self.at) {
            Some(Token::Name(name)) if !KEYWORDS.contains(&name.as_str()) => {
                self.at += 1;
                Ok(name.clone())
            }
            _ => Err(format!("a name is missing before {}", self.here())),
        }
    }

    /// Counts a level of nesting around `rule`.
    pub(super) fn nested(&mut self, rule: impl FnOnce(&mut Self) -> Code) -> Code {
        self.depth += 1;
        if self.depth > MAX_NESTING {
            return Err(format!("an expression nests more than {MAX_NESTING} deep"));
        }
        let code = rule(self);
        self.depth -= 1;
        code
    }

    /// Names to assign to, up to `end` (which is taken) or to the end of the tag or a `|`.
    pub(super) fn targets(&mut self, end: &str) -> Code {
        let mut code = String::new();
        loop {
            match self.tokens.get(self.at) {
                Some(Token::Name(name)) if name == end => break self.at += 1,
                Some(Token::Op(op)) if *op == end => break self.at += 1,
                Some(Token::Name(name)) if !KEYWORDS.contains(&name.as_str()) => code.push_str(name),
                Some(Token::Op(op @ ("," | "(" | ")" | "."))) => code.push_str(op),
                None | Some(Token::Op("|")) if end == "=" => break,
                _ => return Err(format!("unexpected {}", self.here())),
            }
            self.at += 1;
            if code.len() > 2000 || code.matches('(').count() > 8 {
                return Err("too many names are assigned at once".into());
            }
        }
        if code.is_empty() { Err("a name to assign to is missing".into()) } else { Ok(code) }
    }

    /// `(name, name=default)` without its brackets.
    pub(super) fn parameters(&mut self) -> Code {
        self.expect("(")?;
        let mut parts = Vec::new();
        while !self.takes(")") {
            if !parts.is_empty() {
                self.expect(",")?;
            }
            let name = self.name()?;
            parts.push(if self.takes("=") { format!("{name}={}", self.expression()?) } else { name });
        }
        Ok(parts.join(", "))
    }

    /// One expression, or several with commas as a tuple.
    pub(super) fn tuple(&mut self) -> Code {
        let first = self.expression()?;
        if !self.sees(",") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.takes(",") {
            if self.at == self.tokens.len() || self.sees(")") {
                break;
            }
            parts.push(self.expression()?);
        }
        Ok(format!("({},)", parts.join(", ")))
    }

    pub(super) fn expression(&mut self) -> Code {
        self.nested(Self::condition)
    }

    /// `a if b else c`
    pub(super) fn condition(&mut self) -> Code {
        let mut code = self.or()?;
        let mut n = 0;
        while self.takes_name("if") {
            let test = self.or()?;
            let other = if self.takes_name("else") { format!(" else {}", self.expression()?) } else { String::new() };
            code = format!("({code} if {test}{other})");
            n += 1;
            if n > 8 {
                return Err("too many choices follow each other".into());
            }
        }
        Ok(code)
    }

    /// Operands of `rule` between which `op` stands.
    pub(super) fn chain(
        &mut self,
        rule: fn(&mut Self) -> Code,
        op: fn(&mut Self) -> bool,
    ) -> Result<Vec<String>, String> {
        let mut parts = vec![rule(self)?];
        while op(self) {
            parts.push(rule(self)?);
            if parts.len() > MAX_CHAIN {
                return Err(format!("more than {MAX_CHAIN} operators follow each other"));
            }
        }
        Ok(parts)
    }

    pub(super) fn or(&mut self) -> Code {
        let parts = self.chain(Self::and, |p| p.takes_name("or"))?;
        Ok(if parts.len() == 1 { parts.concat() } else { format!("({})", parts.join(" or ")) })
    }

    pub(super) fn and(&mut self) -> Code {
        let parts = self.chain(Self::not, |p| p.takes_name("and"))?;
        Ok(if parts.len() == 1 { parts.concat() } else { format!("({})", parts.join(" and ")) })
    }

    pub(super) fn not(&mut self) -> Code {
        if self.takes_name("not") {
            return Ok(format!("(not {})", self.nested(Self::not)?));
        }
        self.comparison()
    }

    pub(super) fn comparison(&mut self) -> Code {
        let first = self.sum()?;
        let not_in = self.sees_name("not") && matches!(self.tokens.get(self.at + 1), Some(Token::Name(n)) if n == "in");
        if not_in || self.sees_name("in") {
            self.at += 1 + usize::from(not_in);
            let container = self.sum()?;
            return Ok(format!("({}ir_in({first}, {container}))", if not_in { "not " } else { "" }));
        }
        // `a < b < c` means `a < b and b < c`, in minijinja as well.
        let (mut code, mut last, mut n) = (String::new(), first, 0);
        while let Some(op) = ["==", "!=", "<=", ">=", "<", ">"].into_iter().find(|op| self.takes(op)) {
            code.push_str(&format!("ir_work({last}) {op} "));
            last = self.sum()?;
            n += 1;
            if n > MAX_CHAIN {
                return Err(format!("more than {MAX_CHAIN} comparisons follow each other"));
            }
        }
        Ok(if n == 0 { last } else { format!("({code}{last})") })
    }

    /// `a + b - c`: runs of `+` become one call.
    pub(super) fn sum(&mut self) -> Code {
        let mut code = self.joined()?;
        let mut n = 0;
        while self.sees("+") || self.sees("-") {
            if self.takes("-") {
                code = format!("({code} - {})", self.joined()?);
            } else {
                let mut parts = vec![code];
                while self.takes("+") {
                    parts.push(self.joined()?);
                    n += 1;
                    if n > MAX_CHAIN {
                        return Err(format!("more than {MAX_CHAIN} operators follow each other"));
                    }
                }
                code = format!("ir_add({})", parts.join(", "));
            }
            n += 8;
            if n > MAX_CHAIN {
                return Err("too many signs follow each other".into());
            }
        }
        Ok(code)
    }

    /// `a ~ b`
    pub(super) fn joined(&mut self) -> Code {
        let parts = self.chain(Self::product, |p| p.takes("~"))?;
        Ok(if parts.len() == 1 { parts.concat() } else { format!("ir_join({})", parts.join(", ")) })
    }

    pub(super) fn product(&mut self) -> Code {
        let mut code = self.power()?;
        let mut n = 0;
        while let Some(op) = ["*", "//", "/", "%"].into_iter().find(|op| self.takes(op)) {
            let right = self.power()?;
            code = match op {
                "*" => format!("ir_mul({code}, {right})"),
                "%" => format!("ir_rem({code}, {right})"),
                op => format!("({code} {op} {right})"),
            };
            n += 1;
            if n > MAX_NESTING {
                return Err("too many factors follow each other".into());
            }
        }
        Ok(code)
    }

    pub(super) fn power(&mut self) -> Code {
        let left = self.unary()?;
        if !self.takes("**") {
            return Ok(left);
        }
        Ok(format!("({left} ** {})", self.unary()?))
    }
}
