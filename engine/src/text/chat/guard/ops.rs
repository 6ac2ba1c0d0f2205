//! The operations that rewritten templates call: Python's meaning, each drawing on the rendering's budget.

use minijinja::value::{Kwargs, Rest, Tuple, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::super::json::{MAX_DEPTH, display};
use super::{filters, methods};

/// A text that a template builds may be this long, in bytes; the prompt as well.
pub(in super::super) const MAX_TEXT: usize = 16 << 20;

/// Bytes that one rendering may copy and compare, all in all.
const BUDGET: usize = 256 << 20;

/// What it costs to copy an element of a list or a map, or to look at it.
const ELEMENT: usize = 32;

/// Filters that do not look into their input's elements.
const SHALLOW: [&str; 16] = [
    "length", "count", "first", "last", "default", "d", "list", "reverse", "items", "int", "float", "abs", "round",
    "bool", "attr", "tojson",
];

/// Filters that can grow their input without bound and that no chat template needs.
const REMOVED: [&str; 4] = ["chain", "zip", "pprint", "lines"];

type Outcome = Result<Value, Error>;

pub(super) fn invalid(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

/// What is left of a rendering's budget.
struct Budget(usize);

/// Draws `bytes` from the rendering's budget.
pub(super) fn spend(state: &mut State, bytes: usize) -> Result<(), Error> {
    let budget = state.get_or_insert_extension_with(|| Budget(BUDGET));
    match budget.0.checked_sub(bytes) {
        Some(left) => {
            budget.0 = left;
            Ok(())
        }
        None => Err(invalid("it needs more time or memory than a chat template may")),
    }
}

/// Draws a text of this length, which must not exceed [`MAX_TEXT`].
pub(in super::super) fn spend_text(state: &mut State, len: usize) -> Result<(), Error> {
    if len > MAX_TEXT {
        return Err(invalid(format!("a text would be longer than {MAX_TEXT} bytes")));
    }
    spend(state, len)
}

/// What it costs to copy or walk a value's first level.
pub(super) fn shallow(value: &Value) -> usize {
    match value.as_str() {
        Some(text) => text.len(),
        None => value.len().unwrap_or(1).saturating_mul(ELEMENT),
    }
}

/// Draws for a walk over all of a value, and finds out whether it nests too deep. `pure` allows no namespaces in it.
fn walk(state: &mut State, value: &Value, depth: usize, pure: bool) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(invalid(format!("a value nests more than {MAX_DEPTH} deep")));
    }
    spend(state, ELEMENT + value.as_str().map_or(0, str::len))?;
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            for item in value.try_iter()? {
                walk(state, &item, depth + 1, pure)?;
            }
        }
        ValueKind::Map => {
            if pure && is_namespace(value) {
                return Err(invalid("a namespace cannot be kept in another value"));
            }
            for key in value.try_iter()? {
                walk(state, &value.get_item(&key)?, depth + 1, pure)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|o| o.type_name().ends_with("::Namespace"))
}

/// Adds the operations to an environment.
pub(in super::super) fn install(env: &mut Environment<'static>) {
    for name in REMOVED {
        env.remove_filter(name);
    }
    env.remove_global("debug");
    env.add_function("ir_join", join);
    env.add_function("ir_add", add);
    env.add_function("ir_mul", mul);
    env.add_function("ir_rem", rem);
    env.add_function("ir_work", work);
    env.add_function("ir_in", contains);
    env.add_function("ir_iter", iterate);
    env.add_function("ir_keep", keep);
    env.add_function("ir_item", item);
    env.add_function("ir_slice", slice);
    env.add_function("ir_filter", filter);
    env.add_filter("ir_filter_block", filter_block);
    env.set_unknown_method_callback(methods::call);
    methods::install(env);
    filters::install(env);
}

/// `a ~ b ~ c`
fn join(state: &mut State, parts: Rest<Value>) -> Result<String, Error> {
    let texts = parts.iter().filter_map(|p| p.as_str()).map(str::len);
    spend_text(state, texts.fold(0, usize::saturating_add))?;
    let mut out = String::new();
    for part in parts.iter() {
        display(&mut out, part, MAX_TEXT)?;
    }
    spend_text(state, out.len())?;
    Ok(out)
}

/// A number as Python has them; truth values count as 0 and 1.
#[derive(Clone, Copy)]
enum Number {
    Int(i128),
    Float(f64),
}

fn number(value: &Value) -> Option<Number> {
    match value.kind() {
        ValueKind::Bool => Some(Number::Int(value.is_true().into())),
        ValueKind::Number if value.is_integer() => i128::try_from(value.clone()).ok().map(Number::Int),
        ValueKind::Number => f64::try_from(value.clone()).ok().map(Number::Float),
        _ => None,
    }
}

fn int(value: i128) -> Value {
    i64::try_from(value).map_or_else(|_| Value::from(value), Value::from)
}

fn arithmetic(
    (a, b): (&Value, &Value),
    op: &str,
    ints: fn(i128, i128) -> Option<i128>,
    floats: fn(f64, f64) -> f64,
) -> Outcome {
    let (Some(x), Some(y)) = (number(a), number(b)) else {
        return Err(invalid(format!("{op:?} does not work with {} and {}", a.kind(), b.kind())));
    };
    let float = |n| match n {
        Number::Int(i) => i as f64,
        Number::Float(f) => f,
    };
    match (x, y) {
        (Number::Int(x), Number::Int(y)) => {
            ints(x, y).map(int).ok_or_else(|| invalid(format!("{x} {op} {y} has no result")))
        }
        _ => Ok(Value::from(floats(float(x), float(y)))),
    }
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

/// `a + b + c`, from left to right.
fn add(state: &mut State, parts: Rest<Value>) -> Outcome {
    let mut parts = parts.iter().peekable();
    let Some(mut sum) = parts.next().cloned() else { return Ok(Value::UNDEFINED) };
    while let Some(part) = parts.next() {
        sum = if sum.as_str().is_some() && part.as_str().is_some() {
            // A run of texts is joined at once.
            let mut out = sum.as_str().unwrap_or_default().to_owned();
            out.push_str(part.as_str().unwrap_or_default());
            while let Some(text) = parts.peek().and_then(|p| p.as_str()) {
                spend_text(state, out.len())?;
                out.push_str(text);
                parts.next();
            }
            spend_text(state, out.len())?;
            Value::from(out)
        } else if is_list(&sum) && is_list(part) {
            spend(state, shallow(&sum).saturating_add(shallow(part)))?;
            sum.try_iter()?.chain(part.try_iter()?).collect()
        } else {
            arithmetic((&sum, part), "+", i128::checked_add, |a, b| a + b)?
        };
    }
    Ok(sum)
}

/// `a * b`, texts and lists repeated included.
fn mul(state: &mut State, a: &Value, b: &Value) -> Outcome {
    let (times, of) = if a.as_str().is_some() || is_list(a) { (b, a) } else { (a, b) };
    if of.as_str().is_none() && !is_list(of) {
        return arithmetic((a, b), "*", i128::checked_mul, |a, b| a * b);
    }
    let times = times.as_i64().ok_or_else(|| invalid("only a whole number can repeat a value"))?;
    let times = usize::try_from(times).unwrap_or(0);
    spend_text(state, shallow(of).saturating_mul(times))?;
    if let Some(text) = of.as_str() {
        return Ok(Value::from(text.repeat(times)));
    }
    let items: Vec<Value> = of.try_iter()?.collect();
    Ok((0..times).flat_map(|_| items.iter().cloned()).collect())
}

/// `a % b`: the remainder with the divisor's sign, or Python's formatting.
fn rem(state: &mut State, a: &Value, b: &Value) -> Outcome {
    if let Some(text) = a.as_str() {
        let args: Vec<Value> = if b.is_tuple() { b.try_iter()?.collect() } else { vec![b.clone()] };
        return methods::format(state, minijinja::formatting::FormatStyle::Printf, text, &args);
    }
    let ints = |x: i128, y: i128| {
        let rem = x.checked_rem(y)?;
        if rem != 0 && (rem < 0) != (y < 0) { rem.checked_add(y) } else { Some(rem) }
    };
    arithmetic((a, b), "%", ints, |x, y| x - y * (x / y).floor())
}

/// An operand of a comparison, paid for.
fn work(state: &mut State, value: Value) -> Outcome {
    match value.as_str() {
        Some(text) => spend(state, text.len())?,
        None => walk(state, &value, 0, false)?,
    }
    Ok(value)
}

/// `value in container`
fn contains(state: &mut State, value: &Value, container: &Value) -> Result<bool, Error> {
    if let Some(text) = container.as_str() {
        spend(state, text.len())?;
        let part = value.as_str().ok_or_else(|| invalid("only a text can be in a text"))?;
        return Ok(text.contains(part));
    }
    match container.kind() {
        ValueKind::Undefined => Ok(false),
        ValueKind::Map => Ok(container.get_item(value).is_ok_and(|v| !v.is_undefined())),
        ValueKind::Seq | ValueKind::Iterable => {
            if value.as_str().is_none() {
                walk(state, container, 0, false)?;
            }
            let each = value.as_str().map_or(1, |t| 1 + t.len());
            spend(state, container.len().unwrap_or(1).saturating_mul(each))?;
            Ok(container.try_iter()?.any(|item| item == *value))
        }
        other => Err(invalid(format!("nothing can be in a value that is {other}"))),
    }
}

/// What a loop runs over.
fn iterate(state: &mut State, value: Value) -> Outcome {
    if value.kind() == ValueKind::Map && is_namespace(&value) {
        return Err(invalid("a namespace cannot be iterated"));
    }
    if let Some(text) = value.as_str() {
        // Letters as a list, so that the loop knows their number.
        spend(state, text.len().saturating_mul(ELEMENT))?;
        return Ok(text.chars().map(|c| Value::from(c.encode_utf8(&mut [0; 4]) as &str)).collect());
    }
    spend(state, shallow(&value))?;
    Ok(value)
}

/// A value that is given a name. No lazy ones are kept, and none that nest too deep.
fn keep(state: &mut State, value: Value) -> Outcome {
    if is_namespace(&value) {
        walk(state, &value, 0, false)?;
    } else {
        walk(state, &value, 0, true)?;
    }
    Ok(value)
}

/// `value[key]`
fn item(state: &mut State, value: &Value, key: &Value) -> Outcome {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    if value.as_str().is_some() || value.kind() == ValueKind::Iterable {
        spend(state, shallow(value))?;
    }
    value.get_item(key)
}

/// `value[start:stop:step]`
fn slice(state: &mut State, value: &Value, start: &Value, stop: &Value, step: &Value) -> Outcome {
    let bound = |v: &Value| match v {
        v if v.is_none() => Ok(None),
        v => v.as_i64().map(Some).ok_or_else(|| invalid("a slice's bounds must be whole numbers")),
    };
    let (start, stop, step) = (bound(start)?, bound(stop)?, bound(step)?.unwrap_or(1));
    if step == 0 {
        return Err(invalid("a slice's step cannot be 0"));
    }
    if let Some(text) = value.as_str() {
        // Five times for the letters as an array.
        spend(state, text.len().saturating_mul(5))?;
        let chars: Vec<char> = text.chars().collect();
        return Ok(Value::from(indices(chars.len(), start, stop, step).map(|i| chars[i]).collect::<String>()));
    }
    spend(state, shallow(value))?;
    if !is_list(value) {
        return Err(invalid(format!("a value that is {} cannot be sliced", value.kind())));
    }
    let items: Vec<Value> = value.try_iter()?.collect();
    let picked = indices(items.len(), start, stop, step).map(|i| items[i].clone());
    Ok(if value.is_tuple() { Value::from(Tuple::from(picked.collect::<Vec<_>>())) } else { picked.collect() })
}

/// The indices that a Python slice of a sequence of `len` takes.
fn indices(len: usize, start: Option<i64>, stop: Option<i64>, step: i64) -> impl Iterator<Item = usize> {
    let len = i128::try_from(len).unwrap_or(0);
    let (low, high) = if step < 0 { (-1, len - 1) } else { (0, len) };
    let clamp = |bound: i64| {
        let bound = i128::from(bound);
        (if bound < 0 { bound + len } else { bound }).clamp(low, high)
    };
    let (first, end) = if step < 0 { (high, low) } else { (low, high) };
    let (first, end) = (start.map_or(first, clamp), stop.map_or(end, clamp));
    let step = i128::from(step);
    let inside = move |i: &i128| if step < 0 { *i > end } else { *i < end };
    std::iter::successors(Some(first), move |i| Some(i + step)).take_while(inside).map(|i| i as usize)
}

/// `value | name(arguments)`, as `ir_filter(name, value, arguments)`.
fn filter(state: &mut State, name: &str, input: &Value, args: Rest<Value>, options: Kwargs) -> Outcome {
    let mut all = vec![input.clone()];
    all.extend(args.iter().cloned());
    if options.args().next().is_some() {
        all.push(options.into());
    }
    if SHALLOW.contains(&name) {
        spend(state, shallow(input))?;
    } else {
        walk(state, input, 0, false)?;
    }
    let result = state.apply_filter(name, &all)?;
    let result = if result.kind() == ValueKind::Iterable { result.try_iter()?.collect() } else { result };
    spend_text(state, shallow(&result))?;
    Ok(result)
}

/// A filter around a block's text.
fn filter_block(state: &mut State, text: Value, name: &str, args: Rest<Value>, options: Kwargs) -> Outcome {
    filter(state, name, &text, args, options)
}
