//! The budget of a rendering and the filters that draw on it, which `paid` puts into a template's tree. Those that stand
//! for an operator have Python's meaning.

use minijinja::value::{Tuple, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::super::json::MAX_DEPTH;
use super::{filters, methods};

/// A text that a template builds may be this long, in bytes; the prompt as well.
pub(in super::super) const MAX_TEXT: usize = 16 << 20;

/// Bytes that one rendering may copy and compare, all in all.
const BUDGET: usize = 256 << 20;

/// What it costs to copy an element of a list or a map, or to look at it.
const ELEMENT: usize = 32;

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
    // They can grow their input without bound, and Jinja has none of them.
    for name in ["chain", "zip", "pprint", "lines"] {
        env.remove_filter(name);
    }
    env.remove_global("debug");
    env.add_filter("ir_pay", pay);
    env.add_filter("ir_work", work);
    env.add_filter("ir_text", text);
    env.add_filter("ir_in", contains);
    env.add_filter("ir_slice", slice);
    env.add_filter("ir_holder", holder);
    env.add_filter("ir_made", made);
    env.add_filter("ir_iter", iterate);
    env.add_filter("ir_keep", keep);
    env.add_filter("ir_mul", mul);
    env.add_filter("ir_rem", rem);
    env.set_unknown_method_callback(methods::call);
    methods::install(env);
    filters::install(env);
}

/// What minijinja makes of two values that are no texts and no lists.
fn native(state: &State, operation: &'static str, a: &Value, b: &Value) -> Outcome {
    state.env().compile_expression(operation)?.eval(Value::from_pairs([("a", a.clone()), ("b", b.clone())]))
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

/// `a * b`, texts and lists repeated included.
fn mul(state: &mut State, a: &Value, b: &Value) -> Outcome {
    let (times, of) = if a.as_str().is_some() || is_list(a) { (b, a) } else { (a, b) };
    if of.as_str().is_none() && !is_list(of) {
        return native(state, "a * b", a, b);
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

/// `a % b`: the remainder, or Python's formatting.
fn rem(state: &mut State, a: &Value, b: &Value) -> Outcome {
    let Some(text) = a.as_str() else { return native(state, "a % b", a, b) };
    let args: Vec<Value> = if b.is_tuple() { b.try_iter()?.collect() } else { vec![b.clone()] };
    methods::format(state, minijinja::formatting::FormatStyle::Printf, text, &args)
}

/// A value that is copied or walked at its first level.
fn pay(state: &mut State, value: Value) -> Outcome {
    spend(state, shallow(&value))?;
    Ok(value)
}

/// A value that is walked to its ends.
fn work(state: &mut State, value: Value) -> Outcome {
    walk(state, &value, 0, false)?;
    Ok(value)
}

/// An operand of `~`, as Python writes it.
fn text(state: &mut State, value: Value) -> Outcome {
    if let Some(text) = value.as_str() {
        spend_text(state, text.len())?;
        return Ok(value);
    }
    methods::text_of(state, &value).map(Value::from)
}

/// `value in container`
fn contains(state: &mut State, value: Value, container: Value) -> Result<bool, Error> {
    match container.kind() {
        ValueKind::String if value.as_str().is_none() => return Err(invalid("only a text can be in a text")),
        ValueKind::Undefined | ValueKind::String | ValueKind::Map | ValueKind::Seq | ValueKind::Iterable => {}
        other => return Err(invalid(format!("nothing can be in a value that is {other}"))),
    }
    // Keys of a map are found without a walk.
    if container.kind() != ValueKind::Map {
        walk(state, &value, 0, false)?;
        walk(state, &container, 0, false)?;
    }
    state.perform_test("in", &[value, container])
}

/// What an item is taken from: only texts and what is made on the way are walked for it.
fn holder(state: &mut State, value: Value) -> Outcome {
    if value.as_str().is_some() || value.kind() == ValueKind::Iterable { pay(state, value) } else { Ok(value) }
}

/// What an operation gave: what would be made anew at each look is made once.
pub(super) fn made(state: &mut State, value: Value) -> Outcome {
    let value = if value.kind() == ValueKind::Iterable { value.try_iter()?.collect() } else { value };
    spend_text(state, shallow(&value))?;
    Ok(value)
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

/// `value[start:stop:step]`
fn slice(state: &mut State, value: &Value, start: Value, stop: Value, step: Value) -> Outcome {
    let bound = |v: &Value| match v {
        v if v.is_none() => Ok(None),
        v => v.as_i64().map(Some).ok_or_else(|| invalid("a slice's bounds must be whole numbers")),
    };
    let (start, stop, step) = (bound(&start)?, bound(&stop)?, bound(&step)?.unwrap_or(1));
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
