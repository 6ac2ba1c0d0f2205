//! Operands of expressions: literals and names with their subscripts, calls, filters and tests. See `parser`.

use super::lexer::Token;
use super::parser::{Code, KEYWORDS, MAX_NESTING, Parser, quoted};

impl Parser<'_> {
    /// An operand with its sign, subscripts, filters and tests.
    pub(super) fn unary(&mut self) -> Code {
        let code = self.signed()?;
        self.filters(code)
    }

    fn signed(&mut self) -> Code {
        if self.takes("-") {
            return Ok(format!("(-{})", self.nested(Self::signed)?));
        }
        if self.takes("+") {
            return self.nested(Self::signed);
        }
        let code = self.primary()?;
        self.postfix(code)
    }

    /// `.name`, `[index]`, `[start:stop:step]`, `(arguments)`
    fn postfix(&mut self, mut code: String) -> Code {
        for _ in 0..MAX_NESTING {
            if self.takes(".") {
                code = match self.tokens.get(self.at) {
                    Some(Token::Name(name)) => format!("{code}.{name}"),
                    Some(Token::Number(index)) => format!("ir_item({code}, {index})"),
                    _ => return Err(format!("a name is missing before {}", self.here())),
                };
                self.at += 1;
            } else if self.takes("[") {
                code = self.subscript(code)?;
            } else if self.sees("(") {
                code = format!("{code}({})", self.arguments()?);
            } else {
                return Ok(code);
            }
        }
        Err("too many subscripts follow each other".into())
    }

    fn subscript(&mut self, code: String) -> Code {
        let mut parts = vec![String::new()];
        while !self.takes("]") {
            match parts.last_mut() {
                Some(last) if last.is_empty() && !self.sees(":") => *last = self.tuple()?,
                _ => {
                    self.expect(":")?;
                    parts.push(String::new());
                }
            }
        }
        if let [index] = parts.as_slice() {
            return if index.is_empty() {
                Err("a subscript is empty".into())
            } else {
                Ok(format!("ir_item({code}, {index})"))
            };
        }
        if parts.len() > 3 {
            return Err("a slice has more than three parts".into());
        }
        parts.resize(3, String::new());
        for part in parts.iter_mut().filter(|p| p.is_empty()) {
            part.push_str("none");
        }
        Ok(format!("ir_slice({code}, {})", parts.join(", ")))
    }

    /// `(a, b=c, *d, **e)` without its brackets.
    fn arguments(&mut self) -> Code {
        self.expect("(")?;
        let mut parts = Vec::new();
        while !self.takes(")") {
            if !parts.is_empty() {
                self.expect(",")?;
                if self.takes(")") {
                    break;
                }
            }
            let keyword = matches!(self.tokens.get(self.at), Some(Token::Name(_)))
                && self.tokens.get(self.at + 1) == Some(&Token::Op("="));
            let stars = ["**", "*"].into_iter().find(|op| self.takes(op)).unwrap_or_default();
            let name = if keyword { format!("{}=", self.name()?) } else { String::new() };
            if keyword {
                self.expect("=")?;
            }
            parts.push(format!("{stars}{name}{}", self.expression()?));
        }
        Ok(parts.join(", "))
    }

    /// `| name(arguments)`, `is name arguments` and calls of their results.
    fn filters(&mut self, mut code: String) -> Code {
        for _ in 0..MAX_NESTING {
            if self.takes("|") {
                code = self.filter(&code)?;
            } else if self.takes_name("is") {
                code = self.test(&code)?;
            } else if self.sees("(") {
                code = format!("{code}({})", self.arguments()?);
            } else {
                return Ok(code);
            }
        }
        Err("too many filters follow each other".into())
    }

    fn filter(&mut self, code: &str) -> Code {
        let name = self.name()?;
        let arguments = if self.sees("(") { self.arguments()? } else { String::new() };
        let comma = if arguments.is_empty() { "" } else { ", " };
        Ok(format!("ir_filter(\"{name}\", {code}{comma}{arguments})"))
    }

    /// Filters of a block: `name(arguments) | name`.
    pub(super) fn filter_chain(&mut self) -> Code {
        let mut parts = Vec::new();
        loop {
            let name = self.name()?;
            let arguments = if self.sees("(") { self.arguments()? } else { String::new() };
            let comma = if arguments.is_empty() { "" } else { ", " };
            parts.push(format!("ir_filter_block(\"{name}\"{comma}{arguments})"));
            if !self.takes("|") {
                return Ok(parts.join(" | "));
            }
            if parts.len() > MAX_NESTING {
                return Err("too many filters follow each other".into());
            }
        }
    }

    fn test(&mut self, code: &str) -> Code {
        let not = if self.takes_name("not") { "not " } else { "" };
        // `in` is a keyword and a test.
        let name = if self.takes_name("in") { "in".to_owned() } else { self.name()? };
        let arguments = match self.tokens.get(self.at) {
            Some(Token::Op("(")) => format!("({})", self.arguments()?),
            Some(Token::Name(name)) if KEYWORDS.contains(&name.as_str()) => String::new(),
            Some(Token::Name(_) | Token::Str(_) | Token::Number(_) | Token::Op("[" | "{")) => {
                let argument = self.primary()?;
                format!("({})", self.postfix(argument)?)
            }
            _ => String::new(),
        };
        Ok(format!("({code} is {not}{name}{arguments})"))
    }

    fn primary(&mut self) -> Code {
        let Some(token) = self.tokens.get(self.at) else { return Err("an expression ends early".into()) };
        match token {
            Token::Name(_) => self.name().map(|name| match name.as_str() {
                "True" => "true".to_owned(),
                "False" => "false".to_owned(),
                "None" => "none".to_owned(),
                _ => name,
            }),
            Token::Number(number) => {
                self.at += 1;
                Ok(number.clone())
            }
            Token::Str(_) => {
                let mut text = String::new();
                while let Some(Token::Str(part)) = self.tokens.get(self.at) {
                    text.push_str(part);
                    self.at += 1;
                }
                Ok(quoted(&text))
            }
            Token::Op("(") => {
                self.at += 1;
                if self.takes(")") {
                    return Ok("()".into());
                }
                let code = self.nested(Self::tuple)?;
                self.expect(")")?;
                Ok(if code.starts_with('(') { code } else { format!("({code})") })
            }
            Token::Op("[") => {
                self.at += 1;
                Ok(format!("[{}]", self.items("]", Self::expression)?))
            }
            Token::Op("{") => {
                self.at += 1;
                let pair = |p: &mut Self| {
                    let key = p.expression()?;
                    p.expect(":")?;
                    Ok(format!("{key}: {}", p.expression()?))
                };
                Ok(format!("{{{}}}", self.items("}", pair)?))
            }
            _ => Err(format!("unexpected {}", self.here())),
        }
    }

    /// Items with commas up to a closing bracket.
    fn items(&mut self, end: &str, item: impl Fn(&mut Self) -> Code) -> Code {
        let mut parts = Vec::new();
        while !self.takes(end) {
            if !parts.is_empty() {
                self.expect(",")?;
                if self.takes(end) {
                    break;
                }
            }
            parts.push(item(self)?);
        }
        Ok(parts.join(", "))
    }
}
