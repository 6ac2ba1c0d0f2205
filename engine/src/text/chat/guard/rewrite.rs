//! Rewrites a Jinja source so that every operation that can allocate goes through a function with a budget
//! (`ops`), and nesting is bounded. The result is equivalent Jinja made of tags only, each text in quotes.

use super::lexer::{Fault, Piece, Token, lex};

/// Brackets, unary operators and choices may nest this deep within a tag.
const MAX_NESTING: usize = 48;

/// Operators of one level, filters and subscripts may follow each other this often.
const MAX_CHAIN: usize = 400;

/// Blocks may nest this deep.
const MAX_BLOCKS: usize = 64;

/// An `if` may have this many `elif`s.
const MAX_ELIFS: usize = 100;

/// The rewritten source.
pub(super) fn rewrite(source: &str) -> Result<String, Fault> {
    let mut out = Writer { text: String::with_capacity(source.len() * 2), line: 1 };
    let mut blocks: Vec<Block> = Vec::new();
    for piece in lex(source)? {
        match piece {
            Piece::Text(text) => out.tag(out.line, "{{", &quoted(&text), "}}"),
            Piece::Print(line, tokens) => {
                let code = whole(&tokens, Parser::tuple).map_err(|what| Fault { line, what })?;
                out.tag(line, "{{", &code, "}}");
            }
            Piece::Block(line, tokens) => {
                let code = statement(&tokens, &mut blocks).map_err(|what| Fault { line, what })?;
                if !code.is_empty() {
                    out.tag(line, "{%", &code, "%}");
                }
            }
        }
    }
    match blocks.last() {
        Some(block) => Err(Fault { line: out.line, what: format!("{:?} is not closed", block.name) }),
        None => Ok(out.text),
    }
}

/// Writes tags, each in the line that it has in the original.
struct Writer {
    text: String,
    line: usize,
}

impl Writer {
    fn tag(&mut self, line: usize, open: &str, code: &str, close: &str) {
        self.text.push_str(open);
        while self.line < line {
            self.text.push('\n');
            self.line += 1;
        }
        self.text.extend([" ", code, " ", close]);
    }
}

/// A string literal of this value.
fn quoted(text: &str) -> String {
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

/// A block that is open.
struct Block {
    name: &'static str,
    elifs: usize,
}

type Code = Result<String, String>;

/// Rewrites all of `tokens` by one rule.
fn whole<'t>(tokens: &'t [Token], rule: impl FnOnce(&mut Parser<'t>) -> Code) -> Code {
    let mut parser = Parser { tokens, at: 0, depth: 0 };
    let code = rule(&mut parser)?;
    parser.end()?;
    Ok(code)
}

/// Rewrites a `{% %}` tag; empty where nothing stays of it.
fn statement(tokens: &[Token], blocks: &mut Vec<Block>) -> Code {
    let Some(Token::Name(name)) = tokens.first() else { return Err("a tag begins without a name".into()) };
    let rest = &tokens[1..];
    let mut open = |name: &'static str| {
        blocks.push(Block { name, elifs: 0 });
        if blocks.len() > MAX_BLOCKS { Err(format!("blocks nest more than {MAX_BLOCKS} deep")) } else { Ok(()) }
    };
    match name.as_str() {
        "if" => {
            open("if")?;
            Ok(format!("if {}", whole(rest, Parser::tuple)?))
        }
        "for" => {
            open("for")?;
            whole(rest, for_loop)
        }
        "set" => whole(rest, |p| set(p, blocks)),
        "macro" => {
            open("macro")?;
            whole(rest, |p| Ok(format!("macro {}({})", p.name()?, p.parameters()?)))
        }
        "call" => {
            open("call")?;
            whole(rest, |p| {
                let parameters = if p.sees("(") { format!("({})", p.parameters()?) } else { String::new() };
                Ok(format!("call{parameters} {}", p.unary()?))
            })
        }
        "filter" => {
            open("filter")?;
            whole(rest, |p| Ok(format!("filter {}", p.filter_chain()?)))
        }
        "with" => {
            open("with")?;
            whole(rest, with)
        }
        // Marks what a trainer learns from; its content stays.
        "generation" => {
            open("generation")?;
            Ok(String::new())
        }
        "elif" => {
            let inside = blocks.last_mut().filter(|b| b.name == "if").ok_or("elif stands outside of an if")?;
            inside.elifs += 1;
            if inside.elifs > MAX_ELIFS {
                return Err(format!("an if has more than {MAX_ELIFS} elifs"));
            }
            Ok(format!("elif {}", whole(rest, Parser::tuple)?))
        }
        "else" | "break" | "continue" if rest.is_empty() => Ok(name.clone()),
        end => {
            let closed = blocks.pop().filter(|b| end.strip_prefix("end") == Some(b.name));
            match closed {
                Some(block) if block.name == "generation" => Ok(String::new()),
                Some(_) => Ok(end.to_owned()),
                None => Err(format!("a tag {end:?} is unknown, or has no place here")),
            }
        }
    }
}

fn for_loop(p: &mut Parser) -> Code {
    let targets = p.targets("in")?;
    let over = p.or()?;
    let filter = if p.takes_name("if") { format!(" if {}", p.condition()?) } else { String::new() };
    let recursive = if p.takes_name("recursive") { " recursive" } else { "" };
    Ok(format!("for {targets} in ir_iter({over}){filter}{recursive}"))
}

fn set(p: &mut Parser, blocks: &mut Vec<Block>) -> Code {
    let targets = p.targets("=")?;
    if p.at > 0 && p.tokens.get(p.at - 1) == Some(&Token::Op("=")) {
        return Ok(format!("set {targets} = ir_keep({})", p.tuple()?));
    }
    blocks.push(Block { name: "set", elifs: 0 });
    if p.takes("|") {
        return Ok(format!("set {targets} | {}", p.filter_chain()?));
    }
    Ok(format!("set {targets}"))
}

fn with(p: &mut Parser) -> Code {
    let mut parts = Vec::new();
    while p.at < p.tokens.len() {
        if !parts.is_empty() {
            p.expect(",")?;
        }
        let target = p.name()?;
        p.expect("=")?;
        parts.push(format!("{target} = ir_keep({})", p.expression()?));
    }
    Ok(format!("with {}", parts.join(", ")))
}

/// A recursive-descent parser that writes what it reads. Precedence is Jinja's; what it writes is in brackets.
struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
}

const KEYWORDS: [&str; 8] = ["if", "else", "and", "or", "not", "in", "is", "recursive"];

impl Parser<'_> {
    fn sees(&self, op: &str) -> bool {
        matches!(self.tokens.get(self.at), Some(Token::Op(o)) if *o == op)
    }

    fn takes(&mut self, op: &str) -> bool {
        let found = self.sees(op);
        self.at += usize::from(found);
        found
    }

    fn sees_name(&self, name: &str) -> bool {
        matches!(self.tokens.get(self.at), Some(Token::Name(n)) if n == name)
    }

    fn takes_name(&mut self, name: &str) -> bool {
        let found = self.sees_name(name);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, op: &str) -> Result<(), String> {
        if self.takes(op) { Ok(()) } else { Err(format!("{op:?} is missing before {}", self.here())) }
    }

    fn here(&self) -> String {
        match self.tokens.get(self.at) {
            Some(Token::Name(text) | Token::Number(text)) => format!("{text:?}"),
            Some(Token::Str(_)) => "a string".into(),
            Some(Token::Op(op)) => format!("{op:?}"),
            None => "the end of the tag".into(),
        }
    }

    fn end(&self) -> Result<(), String> {
        if self.at == self.tokens.len() { Ok(()) } else { Err(format!("unexpected {}", self.here())) }
    }

    fn name(&mut self) -> Code {
        match self.tokens.get(self.at) {
            Some(Token::Name(name)) if !KEYWORDS.contains(&name.as_str()) => {
                self.at += 1;
                Ok(name.clone())
            }
            _ => Err(format!("a name is missing before {}", self.here())),
        }
    }

    /// Counts a level of nesting around `rule`.
    fn nested(&mut self, rule: impl FnOnce(&mut Self) -> Code) -> Code {
        self.depth += 1;
        if self.depth > MAX_NESTING {
            return Err(format!("an expression nests more than {MAX_NESTING} deep"));
        }
        let code = rule(self);
        self.depth -= 1;
        code
    }

    /// Names to assign to, up to `end` (which is taken) or to the end of the tag or a `|`.
    fn targets(&mut self, end: &str) -> Code {
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
            if code.len() > 2000 {
                return Err("too many names are assigned at once".into());
            }
        }
        if code.is_empty() { Err("a name to assign to is missing".into()) } else { Ok(code) }
    }

    /// `(name, name=default)` without its brackets.
    fn parameters(&mut self) -> Code {
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
    fn tuple(&mut self) -> Code {
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

    fn expression(&mut self) -> Code {
        self.nested(Self::condition)
    }

    /// `a if b else c`
    fn condition(&mut self) -> Code {
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
    fn chain(&mut self, rule: fn(&mut Self) -> Code, op: fn(&mut Self) -> bool) -> Result<Vec<String>, String> {
        let mut parts = vec![rule(self)?];
        while op(self) {
            parts.push(rule(self)?);
            if parts.len() > MAX_CHAIN {
                return Err(format!("more than {MAX_CHAIN} operators follow each other"));
            }
        }
        Ok(parts)
    }

    fn or(&mut self) -> Code {
        let parts = self.chain(Self::and, |p| p.takes_name("or"))?;
        Ok(if parts.len() == 1 { parts.concat() } else { format!("({})", parts.join(" or ")) })
    }

    fn and(&mut self) -> Code {
        let parts = self.chain(Self::not, |p| p.takes_name("and"))?;
        Ok(if parts.len() == 1 { parts.concat() } else { format!("({})", parts.join(" and ")) })
    }

    fn not(&mut self) -> Code {
        if self.takes_name("not") {
            return Ok(format!("(not {})", self.nested(Self::not)?));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Code {
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
    fn sum(&mut self) -> Code {
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
    fn joined(&mut self) -> Code {
        let parts = self.chain(Self::product, |p| p.takes("~"))?;
        Ok(if parts.len() == 1 { parts.concat() } else { format!("ir_join({})", parts.join(", ")) })
    }

    fn product(&mut self) -> Code {
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

    fn power(&mut self) -> Code {
        let left = self.unary()?;
        if !self.takes("**") {
            return Ok(left);
        }
        Ok(format!("({left} ** {})", self.unary()?))
    }

    /// An operand with its sign, subscripts, filters and tests.
    fn unary(&mut self) -> Code {
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
    fn filter_chain(&mut self) -> Code {
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
