//! A template's tree with filters of `ops` around what can allocate or take long. They stand in for constants too, so
//! that minijinja's compiler computes nothing by itself (`'a' * 90000000` would be a text of that length in the code).

use minijinja::machinery::Span;
use minijinja::machinery::ast::{self, BinOpKind, CallArg, Expr, Spanned, Stmt};
use minijinja::{Error, ErrorKind, Value};

/// Filters that do not look into their input's elements.
const SHALLOW: [&str; 16] = [
    "length", "count", "first", "last", "default", "d", "list", "reverse", "items", "int", "float", "abs", "round",
    "bool", "attr", "tojson",
];

/// Tests that compare.
const COMPARING: [&str; 16] =
    ["eq", "equalto", "==", "ne", "!=", "lt", "lessthan", "<", "le", "<=", "gt", "greaterthan", ">", "ge", ">=", "in"];

/// A statement of the tree that the parser made.
///
/// # Errors
/// Tags that need other templates.
pub(super) fn statement<'a>(stmt: &Stmt<'a>) -> Result<Stmt<'a>, Error> {
    let all = |body: &[Stmt<'a>]| body.iter().map(statement).collect::<Result<Vec<_>, _>>();
    Ok(match stmt {
        Stmt::Template(t) => Stmt::Template(Spanned::new(ast::Template { children: all(&t.children)? }, t.span())),
        Stmt::EmitExpr(e) => Stmt::EmitExpr(Spanned::new(ast::EmitExpr { expr: expr(&e.expr) }, e.span())),
        // Written as a value is, since nobody counts what is written as it stands.
        Stmt::EmitRaw(e) => {
            let text = Expr::Const(Spanned::new(ast::Const { value: Value::from(e.raw) }, e.span()));
            Stmt::EmitExpr(Spanned::new(ast::EmitExpr { expr: text }, e.span()))
        }
        Stmt::ForLoop(f) => {
            let node = ast::ForLoop {
                target: expr(&f.target),
                iter: by("ir_iter", expr(&f.iter)),
                filter_expr: f.filter_expr.as_ref().map(expr),
                recursive: f.recursive,
                body: all(&f.body)?,
                else_body: all(&f.else_body)?,
            };
            Stmt::ForLoop(Spanned::new(node, f.span()))
        }
        Stmt::IfCond(i) => {
            let (true_body, false_body) = (all(&i.true_body)?, all(&i.false_body)?);
            Stmt::IfCond(Spanned::new(ast::IfCond { expr: expr(&i.expr), true_body, false_body }, i.span()))
        }
        Stmt::WithBlock(w) => {
            let pairs = w.assignments.iter();
            let assignments = pairs.map(|(target, value)| (expr(target), by("ir_keep", expr(value)))).collect();
            Stmt::WithBlock(Spanned::new(ast::WithBlock { assignments, body: all(&w.body)? }, w.span()))
        }
        Stmt::Set(s) => {
            let node = ast::Set { target: expr(&s.target), expr: by("ir_keep", expr(&s.expr)) };
            Stmt::Set(Spanned::new(node, s.span()))
        }
        Stmt::SetBlock(s) => {
            let (target, filter) = (expr(&s.target), s.filter.as_ref().map(expr));
            Stmt::SetBlock(Spanned::new(ast::SetBlock { target, filter, body: all(&s.body)? }, s.span()))
        }
        Stmt::FilterBlock(f) => {
            let node = ast::FilterBlock { filter: expr(&f.filter), body: all(&f.body)? };
            Stmt::FilterBlock(Spanned::new(node, f.span()))
        }
        Stmt::Macro(m) => Stmt::Macro(macro_of(m)?),
        Stmt::CallBlock(c) => {
            let node = ast::CallBlock { call: call(&c.call), macro_decl: macro_of(&c.macro_decl)? };
            Stmt::CallBlock(Spanned::new(node, c.span()))
        }
        Stmt::Continue(c) => Stmt::Continue(Spanned::new(ast::Continue, c.span())),
        Stmt::Break(b) => Stmt::Break(Spanned::new(ast::Break, b.span())),
        _ => return Err(Error::new(ErrorKind::SyntaxError, "a template stands alone, without blocks or others")),
    })
}

fn macro_of<'a>(m: &Spanned<ast::Macro<'a>>) -> Result<Spanned<ast::Macro<'a>>, Error> {
    let node = ast::Macro {
        name: m.name,
        args: exprs(&m.args),
        defaults: exprs(&m.defaults),
        body: m.body.iter().map(statement).collect::<Result<Vec<_>, _>>()?,
    };
    Ok(Spanned::new(node, m.span()))
}

fn exprs<'a>(list: &[Expr<'a>]) -> Vec<Expr<'a>> {
    list.iter().map(expr).collect()
}

/// `value | name`
fn by<'a>(name: &'static str, value: Expr<'a>) -> Expr<'a> {
    let span = value.span();
    filter(name, Some(value), Vec::new(), span)
}

fn filter<'a>(name: &'a str, expr: Option<Expr<'a>>, args: Vec<CallArg<'a>>, span: Span) -> Expr<'a> {
    Expr::Filter(Spanned::new(ast::Filter { name, expr, args }, span))
}

fn expr<'a>(e: &Expr<'a>) -> Expr<'a> {
    match e {
        Expr::Var(v) => Expr::Var(Spanned::new(ast::Var { id: v.id }, v.span())),
        Expr::Const(c) => Expr::Const(Spanned::new(ast::Const { value: c.value.clone() }, c.span())),
        Expr::Slice(s) => {
            let none = || Expr::Const(Spanned::new(ast::Const { value: Value::from(()) }, s.span()));
            let bound = |e: &Option<Expr<'a>>| CallArg::Pos(e.as_ref().map_or_else(none, expr));
            let bounds = [&s.start, &s.stop, &s.step].map(bound).into_iter().collect();
            filter("ir_slice", Some(expr(&s.expr)), bounds, s.span())
        }
        Expr::UnaryOp(u) => {
            let op = if matches!(u.op, ast::UnaryOpKind::Not) { ast::UnaryOpKind::Not } else { ast::UnaryOpKind::Neg };
            Expr::UnaryOp(Spanned::new(ast::UnaryOp { op, expr: expr(&u.expr) }, u.span()))
        }
        Expr::BinOp(b) => binary(b),
        Expr::Compare(c) => {
            let compared = |op: &ast::CompareOp<'a>| ast::CompareOp { op: op.op, expr: by("ir_work", expr(&op.expr)) };
            let ops = c.ops.iter().map(compared).collect();
            Expr::Compare(Spanned::new(ast::Compare { expr: by("ir_work", expr(&c.expr)), ops }, c.span()))
        }
        Expr::IfExpr(i) => {
            let (test_expr, true_expr) = (expr(&i.test_expr), expr(&i.true_expr));
            let false_expr = i.false_expr.as_ref().map(expr);
            Expr::IfExpr(Spanned::new(ast::IfExpr { test_expr, true_expr, false_expr }, i.span()))
        }
        Expr::Filter(f) => {
            let way = if SHALLOW.contains(&f.name) { "ir_pay" } else { "ir_work" };
            let input = filter(way, f.expr.as_ref().map(expr), Vec::new(), f.span());
            by("ir_made", filter(f.name, Some(input), arguments(&f.args), f.span()))
        }
        Expr::Test(t) => {
            let compares = COMPARING.contains(&t.name);
            let input = if compares { by("ir_work", expr(&t.expr)) } else { expr(&t.expr) };
            Expr::Test(Spanned::new(ast::Test { name: t.name, expr: input, args: arguments(&t.args) }, t.span()))
        }
        Expr::GetAttr(g) => Expr::GetAttr(Spanned::new(ast::GetAttr { expr: expr(&g.expr), name: g.name }, g.span())),
        Expr::GetItem(g) => {
            let (expr, subscript_expr) = (by("ir_holder", expr(&g.expr)), expr(&g.subscript_expr));
            Expr::GetItem(Spanned::new(ast::GetItem { expr, subscript_expr }, g.span()))
        }
        Expr::Call(c) => Expr::Call(call(c)),
        Expr::List(l) => Expr::List(Spanned::new(ast::List { items: exprs(&l.items) }, l.span())),
        Expr::Tuple(t) => Expr::Tuple(Spanned::new(ast::Tuple { items: exprs(&t.items) }, t.span())),
        Expr::Map(m) => {
            let (keys, values) = (exprs(&m.keys), exprs(&m.values));
            Expr::Map(Spanned::new(ast::Map { keys, values }, m.span()))
        }
    }
}

fn binary<'a>(b: &Spanned<ast::BinOp<'a>>) -> Expr<'a> {
    use BinOpKind::{Add, Concat, Eq, Gt, Gte, In, Lt, Lte, Mul, Ne, Rem};
    let (left, right) = (expr(&b.left), expr(&b.right));
    // Those that an operator of minijinja cannot serve, whose cost depends on both sides or whose outcome is another.
    let own = match b.op {
        In => "ir_in",
        Mul => "ir_mul",
        Rem => "ir_rem",
        _ => "",
    };
    if !own.is_empty() {
        return filter(own, Some(left), vec![CallArg::Pos(right)], b.span());
    }
    let way = match b.op {
        Add => "ir_pay",
        Concat => "ir_text",
        Eq | Ne | Lt | Lte | Gt | Gte => "ir_work",
        _ => return Expr::BinOp(Spanned::new(ast::BinOp { op: b.op, left, right }, b.span())),
    };
    let node = ast::BinOp { op: b.op, left: by(way, left), right: by(way, right) };
    let node = Expr::BinOp(Spanned::new(node, b.span()));
    if matches!(b.op, Add) { by("ir_made", node) } else { node }
}

fn call<'a>(c: &Spanned<ast::Call<'a>>) -> Spanned<ast::Call<'a>> {
    Spanned::new(ast::Call { expr: expr(&c.expr), args: arguments(&c.args) }, c.span())
}

fn arguments<'a>(args: &[CallArg<'a>]) -> Vec<CallArg<'a>> {
    let argument = |arg: &CallArg<'a>| match arg {
        CallArg::Pos(e) => CallArg::Pos(expr(e)),
        CallArg::Kwarg(name, e) => CallArg::Kwarg(name, expr(e)),
        CallArg::PosSplat(e) => CallArg::PosSplat(expr(e)),
        CallArg::KwargSplat(e) => CallArg::KwargSplat(expr(e)),
    };
    args.iter().map(argument).collect()
}
