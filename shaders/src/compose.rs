//! The composer: `#import`, `#ifdef` / `#ifndef` / `#else` / `#endif`, numbers as `const` lines, and a scan of what a
//! kernel binds. It knows nothing of WGSL beyond the lines it reads, and it does nothing else.

use crate::{Composed, Error, STEP, Target};

/// How a kernel uses a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// `var<uniform>`
    Uniform,
    /// `var<storage, read>`
    Read,
    /// `var<storage, read_write>`
    ReadWrite,
}

/// One `@group(0) @binding(index) var<...> name: ...;` of a composed kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// How it is used.
    pub access: Access,
}

/// Deepest chain of imports; deeper ones go in circles.
const MAX_DEPTH: usize = 16;

/// Puts a kernel together. See [`crate::compose`].
pub(crate) fn compose(
    source: &str,
    library: &dyn Fn(&str) -> Option<&'static str>,
    features: &[&str],
    consts: &[(&str, u32)],
    target: Target,
) -> Result<Composed, Error> {
    let mut body = String::with_capacity(2 * source.len());
    expand(source, library, features, &mut Vec::new(), 0, &mut body)?;
    let mut wgsl = String::with_capacity(body.len() + 1024);
    if features.contains(&"F16") {
        wgsl.push_str("enable f16;\n");
    }
    if features.contains(&"COOPMAT") {
        wgsl.push_str("enable wgpu_cooperative_matrix;\n");
    }
    if target == Target::Tint && features.contains(&"SUBGROUPS") {
        wgsl.push_str("enable subgroups;\n");
    }
    if target == Target::Tint && features.contains(&"DOT4") {
        wgsl.push_str("requires packed_4x8_integer_dot_product;\n");
    }
    for (name, value) in consts.iter().chain(STEP) {
        wgsl.push_str(&format!("const {name}: u32 = {value}u;\n"));
    }
    wgsl.push_str(&body);
    let bindings = scan_bindings(&body)?;
    let params = scan_params(&body)?;
    Ok(Composed { wgsl, bindings, params })
}

/// Appends `source` with its imports, each library once.
fn expand(
    source: &str,
    library: &dyn Fn(&str) -> Option<&'static str>,
    features: &[&str],
    seen: &mut Vec<String>,
    depth: usize,
    out: &mut String,
) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error(format!("imports nest deeper than {MAX_DEPTH}: {}", seen.join(", "))));
    }
    // One entry per open #ifdef: whether its lines are taken.
    let mut open: Vec<bool> = Vec::new();
    for line in source.lines() {
        let (word, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let taken = open.iter().all(|t| *t);
        match word {
            "#ifdef" => open.push(features.contains(&rest.trim())),
            "#ifndef" => open.push(!features.contains(&rest.trim())),
            "#else" => {
                let last = open.last_mut().ok_or_else(|| Error("#else without #ifdef".into()))?;
                *last = !*last;
            }
            "#endif" => {
                open.pop().ok_or_else(|| Error("#endif without #ifdef".into()))?;
            }
            "#import" if taken => {
                let name = rest.split_whitespace().next().unwrap_or_default();
                let name = resolve(name, library, features)?;
                if !seen.contains(&name) {
                    let text = library(&name).ok_or_else(|| Error(format!("no library is named {name:?}")))?;
                    seen.push(name);
                    expand(text, library, features, seen, depth + 1, out)?;
                }
            }
            _ if taken && word.starts_with('#') => return Err(Error(format!("unknown directive {word}"))),
            _ if taken => {
                out.push_str(line);
                out.push('\n');
            }
            _ => {}
        }
    }
    if open.is_empty() { Ok(()) } else { Err(Error("#ifdef without #endif".into())) }
}

/// The name of what is imported: `NAME_*` is that `NAME_FEATURE` whose feature is asked for.
fn resolve(name: &str, library: &dyn Fn(&str) -> Option<&'static str>, features: &[&str]) -> Result<String, Error> {
    let Some(prefix) = name.strip_suffix('*') else { return Ok(name.to_owned()) };
    let mut named = features.iter().map(|feature| format!("{prefix}{feature}")).filter(|name| library(name).is_some());
    match (named.next(), named.next()) {
        (Some(name), None) => Ok(name),
        _ => Err(Error(format!("{name} stands for exactly one feature, not for one of {}", features.join(", ")))),
    }
}

fn scan_bindings(body: &str) -> Result<Vec<Binding>, Error> {
    let mut bindings = Vec::new();
    for line in body.lines() {
        let Some(rest) = line.trim().strip_prefix("@group(0) @binding(") else { continue };
        let parsed = rest.split_once(") var<").and_then(|(index, rest)| {
            let (space, rest) = rest.split_once("> ")?;
            let access = match space {
                "uniform" => Access::Uniform,
                "storage, read" => Access::Read,
                "storage, read_write" => Access::ReadWrite,
                _ => return None,
            };
            let name = rest.split_once(':')?.0.trim().to_owned();
            Some(Binding { index: index.parse().ok()?, name, access })
        });
        bindings.push(parsed.ok_or_else(|| Error(format!("cannot read the binding {line:?}")))?);
    }
    bindings.sort_by_key(|b: &Binding| b.index);
    if bindings.windows(2).any(|w| w[0].index == w[1].index) {
        return Err(Error("two bindings share a number".into()));
    }
    Ok(bindings)
}

/// The fields of `struct Params`, all of four bytes.
fn scan_params(body: &str) -> Result<Vec<String>, Error> {
    let Some((_, rest)) = body.split_once("struct Params {") else { return Ok(Vec::new()) };
    let (fields, _) = rest.split_once('}').ok_or_else(|| Error("struct Params does not end".into()))?;
    let lines = fields.lines().map(|l| l.split("//").next().unwrap_or_default().trim()).filter(|l| !l.is_empty());
    lines
        .map(|line| match line.trim_end_matches(',').split_once(": ") {
            Some((name, "u32" | "f32")) => Ok(name.to_owned()),
            _ => Err(Error(format!("a parameter must be u32 or f32: {line:?}"))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_compose(source: &str) -> Result<Composed, Error> {
        let library = |name: &str| match name {
            "a" => Some("#import b\nfn a() {}"),
            "b" => Some("#import a\nfn b() {}"),
            _ => None,
        };
        compose(source, &library, &["YES"], &[("N", 3)], Target::Naga)
    }

    #[test]
    fn lines_are_taken_as_features_say_and_imports_once() {
        let source = "#import a\n#import a\n#ifdef YES\nx\n#ifdef NO\ny\n#else\nz\n#endif\n#else\n#import c\n#endif";
        let wgsl = try_compose(source).unwrap().wgsl;
        assert!(wgsl.starts_with("const N: u32 = 3u;\n"));
        assert!(wgsl.ends_with("fn b() {}\nfn a() {}\nx\nz\n"), "{wgsl}");
    }

    #[test]
    fn mistakes_are_named() {
        for (source, what) in [
            ("#ifdef YES", "without #endif"),
            ("#else", "#else without"),
            ("#endif", "#endif without"),
            ("#include a", "#include"),
            ("#import c", "\"c\""),
            ("@group(0) @binding(x) var<uniform> p: P;", "cannot read"),
            ("struct Params {\n  a: vec2<f32>,\n}", "must be u32 or f32"),
        ] {
            let error = try_compose(source).unwrap_err().to_string();
            assert!(error.contains(what), "{source:?}: {error}");
        }
    }
}
