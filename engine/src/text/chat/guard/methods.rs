//! Methods, filters and tests as Python and Jinja have them, where minijinja's differ, are missing, or could
//! allocate without bound.

use minijinja::formatting::{FormatStyle, format as format_text};
use minijinja::value::{Kwargs, Rest, Tuple, ValueKind, from_args};
use minijinja::{Environment, Error, State, Value};

use super::super::json::display;
use super::filters;
use super::ops::{MAX_TEXT, invalid, made, shallow, spend, spend_text};

type Outcome = Result<Value, Error>;

/// Adds the filters and tests.
pub(super) fn install(env: &mut Environment<'static>) {
    env.add_filter("string", |state: &mut State, value: &Value| text_of(state, value).map(Value::from));
    env.add_filter("replace", |state: &mut State, value: &Value, old: &str, new: &str, count: Option<i64>| {
        let text = text_of(state, value)?;
        replace(state, &text, old, new, count)
    });
    env.add_filter("join", join_filter);
    env.add_filter("format", |state: &mut State, text: &str, args: Rest<Value>| {
        format(state, FormatStyle::Printf, text, &args)
    });
    for name in ["default", "d"] {
        env.add_filter(name, |value: Value, default: Option<Value>, boolean: Option<bool>, options: Kwargs| {
            let boolean = boolean.or(options.get("boolean")?).unwrap_or(false);
            options.assert_all_used()?;
            let missing = value.is_undefined() || (boolean && !value.is_true());
            Ok::<_, Error>(if missing { default.unwrap_or_else(|| Value::from("")) } else { value })
        });
    }
    for name in ["length", "count"] {
        env.add_filter(name, |value: &Value| match (value.is_undefined(), value.len()) {
            (true, _) => Ok(0),
            (_, Some(n)) => Ok(n),
            (_, None) => Err(invalid(format!("a value that is {} has no length", value.kind()))),
        });
    }
    env.add_filter("int", |value: &Value, default: Option<Value>| {
        to_number(value, default, |x| Value::from(x.trunc() as i64), |t| t.parse::<i64>().ok().map(Value::from))
    });
    env.add_filter("float", |value: &Value, default: Option<Value>| {
        let default = default.or_else(|| Some(Value::from(0.0)));
        to_number(value, default, Value::from, |_| None)
    });
    let sequence = |value: &Value| {
        value.as_str().is_some() || matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::Map)
    };
    env.add_test("sequence", sequence);
    env.add_test("iterable", move |value: &Value| value.is_undefined() || sequence(value));
    env.add_test("number", |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool));
    env.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
}

/// Jinja's `int` and `float`: a number, a text that is one, or the default.
fn to_number(
    value: &Value,
    default: Option<Value>,
    convert: fn(f64) -> Value,
    parse: fn(&str) -> Option<Value>,
) -> Value {
    let default = default.unwrap_or_else(|| Value::from(0));
    match value.as_str().map(str::trim) {
        Some(text) => parse(text).or_else(|| text.parse().ok().map(convert)).unwrap_or(default),
        None if value.kind() == ValueKind::Bool => convert(f64::from(u8::from(value.is_true()))),
        None if value.is_integer() && convert(0.0).is_integer() => value.clone(),
        None => f64::try_from(value.clone()).map_or(default, convert),
    }
}

pub(super) fn text_of(state: &mut State, value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    display(&mut out, value, MAX_TEXT)?;
    spend_text(state, out.len())?;
    Ok(out)
}

/// Calls `value.method(args)`: what follows, or minijinja-contrib's methods.
pub(super) fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Outcome {
    spend(state, shallow(value))?;
    let own = match value.as_str() {
        Some(text) => string_method(state, text, method, args)?,
        None if method == "index" && matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) => {
            let (item,): (&Value,) = from_args(args)?;
            let at = value.try_iter()?.position(|v| v == *item);
            Some(Value::from(at.ok_or_else(|| invalid("the list has no such item"))?))
        }
        None if method == "copy" && matches!(value.kind(), ValueKind::Seq | ValueKind::Map) => {
            let () = from_args(args)?;
            Some(value.clone())
        }
        None => None,
    };
    let result = match own {
        Some(result) => result,
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)?,
    };
    made(state, result)
}

fn string_method(state: &mut State, text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "replace" => {
            let (old, new, count): (&str, &str, Option<i64>) = from_args(args)?;
            replace(state, text, old, new, count)?
        }
        "join" => {
            let (values,): (&Value,) = from_args(args)?;
            join(state, text, values.try_iter()?)?
        }
        "format" => format(state, FormatStyle::StrFormat, text, args)?,
        "rsplit" => {
            let (separator, limit): (Option<&str>, Option<i64>) = from_args(args)?;
            rsplit(text, separator, limit)?
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let found = if method == "partition" { text.split_once(separator) } else { text.rsplit_once(separator) };
            let parts = match (found, method) {
                (Some((a, b)), _) => [a, separator, b],
                (None, "partition") => [text, "", ""],
                (None, _) => ["", "", text],
            };
            Value::from(Tuple::from(parts.map(Value::from).to_vec()))
        }
        "index" => {
            let (part,): (&str,) = from_args(args)?;
            let at = text.find(part).ok_or_else(|| invalid("the text has no such part"))?;
            Value::from(text[..at].chars().count())
        }
        "center" => {
            let (width,): (i64,) = from_args(args)?;
            filters::center(state, text, width)?
        }
        "casefold" => Value::from(text.to_lowercase()),
        _ => return Ok(None),
    }))
}

fn replace(state: &mut State, text: &str, old: &str, new: &str, count: Option<i64>) -> Outcome {
    let most = count.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    let times = text.matches(old).count().min(most);
    spend_text(state, text.len().saturating_add(times.saturating_mul(new.len())))?;
    Ok(Value::from(text.replacen(old, new, most)))
}

fn join(state: &mut State, separator: &str, items: impl Iterator<Item = Value>) -> Outcome {
    let mut out = String::new();
    for (i, item) in items.enumerate() {
        let before = out.len();
        out.push_str(if i > 0 { separator } else { "" });
        display(&mut out, &item, MAX_TEXT)?;
        spend(state, out.len() - before)?;
        if out.len() > MAX_TEXT {
            return Err(invalid(format!("a text would be longer than {MAX_TEXT} bytes")));
        }
    }
    Ok(Value::from(out))
}

fn join_filter(state: &mut State, value: &Value, separator: Option<&str>, options: Kwargs) -> Outcome {
    let separator = separator.map_or_else(|| options.get::<Option<&str>>("d"), |s| Ok(Some(s)))?.unwrap_or_default();
    let attribute: Option<String> = options.get("attribute")?;
    options.assert_all_used()?;
    let items = value.try_iter()?.map(|item| match &attribute {
        Some(name) => item.get_attr(name).unwrap_or_default(),
        None => item,
    });
    join(state, separator, items)
}

/// `text % args` and `text.format(args)`, with the widths that the text asks for paid in advance.
pub(super) fn format(state: &mut State, style: FormatStyle, text: &str, args: &[Value]) -> Outcome {
    let mark = if matches!(style, FormatStyle::Printf) { '%' } else { '{' };
    let mut widths = 0usize;
    for digits in text.split(|c: char| !c.is_ascii_digit()).filter(|d| !d.is_empty()) {
        widths = widths.saturating_add(digits.parse().unwrap_or(usize::MAX));
    }
    if text.contains('*') && mark == '%' || mark == '{' && nested_fields(text) {
        return Err(invalid("a format's widths must be written as numbers"));
    }
    let mut shown = String::new();
    for arg in args {
        display(&mut shown, arg, MAX_TEXT)?;
    }
    let fields = text.matches(mark).count();
    let most = fields.saturating_mul(shown.len().saturating_add(400)).saturating_add(text.len()).saturating_add(widths);
    spend_text(state, most)?;
    format_text(style, text, args).map(Value::from)
}

/// Whether a field of a format holds another: `{:{}}`.
fn nested_fields(text: &str) -> bool {
    let plain = text.replace("{{", "").replace("}}", "");
    let mut inside = false;
    plain.chars().any(|c| {
        let nested = inside && c == '{';
        inside = if inside { c != '}' } else { c == '{' };
        nested
    })
}

/// `text.rsplit(separator, limit)`
fn rsplit(text: &str, separator: Option<&str>, limit: Option<i64>) -> Outcome {
    let limit = limit.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    let mut parts: Vec<Value> = Vec::new();
    let mut rest = text;
    match separator {
        Some("") => return Err(invalid("an empty text separates nothing")),
        Some(separator) => {
            while parts.len() < limit {
                let Some((before, part)) = rest.rsplit_once(separator) else { break };
                parts.push(part.into());
                rest = before;
            }
            parts.push(rest.into());
        }
        None => {
            rest = rest.trim_end();
            while parts.len() < limit && !rest.is_empty() {
                let Some((at, space)) = rest.char_indices().rev().find(|(_, c)| c.is_whitespace()) else { break };
                parts.push(rest[at + space.len_utf8()..].into());
                rest = rest[..at].trim_end();
            }
            if !rest.is_empty() {
                parts.push(rest.into());
            }
        }
    }
    parts.reverse();
    Ok(Value::from(parts))
}
