//! Hostile chat templates: each ends in an error sentence, soon, on a small stack and in bounded memory.

use std::time::{Duration, Instant};

use crate::common::{alone, skipped};
use ir_engine::text::chat::{ChatTemplate, Message, RenderInput};

/// What one template may take, on any machine: an idle one takes a hundredth. A hang would take for ever.
const MAX_TIME: Duration = Duration::from_secs(60);

/// What all of them may take together, in bytes: the budget of one rendering and as much again.
const MAX_MEMORY: u64 = 1 << 30;

/// Less than a browser's main stack (1 MiB) and any thread's default.
const STACK: usize = 768 << 10;

/// Loops, growth and recursion that only show when rendered.
fn running() -> Vec<(&'static str, String)> {
    let ns = |body: &str| format!("{{% set ns = namespace(x='aaaaaaaa', l=[1]) %}}{body}");
    let often = |body: &str| ns(&format!("{{% for i in range(1000) %}}{body}{{% endfor %}}"));
    let fixed = |text: &str| text.to_owned();
    vec![
        ("endless loop", fixed("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")),
        ("long output", fixed("{% for a in range(99999) %}{{ 'a' * 1000 }}{% endfor %}")),
        ("long raw output", format!("{{% for a in range(99999) %}}{}{{% endfor %}}", "a".repeat(1000))),
        (
            "long captured output",
            format!("{{% set x %}}{{% for a in range(99999) %}}{}{{% endfor %}}{{% endset %}}", "a".repeat(10_000)),
        ),
        ("repeated text", fixed("{{ 'a' * 10**12 }}")),
        ("repeated text, below minijinja's limit", fixed("{{ ('a' * 90000000)|length }}")),
        ("many repeated texts", often("{% set y = ns.l + ['a' * 15000000] %}{% set ns.l = y %}")),
        ("repeated list", fixed("{{ [1] * 10**9 }}")),
        ("huge range", fixed("{{ range(10**9)|list }}")),
        ("doubling by ~", often("{% set ns.x = ns.x ~ ns.x %}")),
        ("doubling by +", often("{% set ns.x = ns.x + ns.x %}")),
        ("doubling lists", often("{% set ns.l = ns.l + ns.l %}")),
        ("doubling by join", often("{% set ns.x = [ns.x, ns.x]|join %}")),
        ("doubling by method join", often("{% set ns.x = ns.x.join([ns.x, ns.x]) %}")),
        ("doubling by replace", often("{% set ns.x = ns.x.replace('a', 'aa') %}")),
        ("doubling by filter replace", often("{% set ns.x = ns.x|replace('a', 'aa') %}")),
        ("doubling by format", often("{% set ns.x = '{}{}'.format(ns.x, ns.x) %}")),
        ("doubling by %", often("{% set ns.x = '%s%s' % (ns.x, ns.x) %}")),
        ("doubling by tojson", often("{% set ns.x = [ns.x, ns.x]|tojson %}")),
        ("doubling by string", often("{% set ns.x = [ns.x, ns.x]|string %}")),
        ("doubling by a set block", often("{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}")),
        ("doubling by a macro", fixed("{% macro m(x) %}{{ m(x ~ x) }}{% endmacro %}{{ m('aaaaaaaaaaaaaaaa') }}")),
        (
            "doubling by a macro's output",
            fixed(
                "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% else %}aaaaaaaa{% endif %}{% endmacro %}{{ m(60) }}",
            ),
        ),
        ("doubling by map", often("{% set ns.l = ns.l|map('string')|list + ns.l|map('string')|list %}")),
        ("doubling by dictionaries", often("{% set ns.x = {'a': ns.x, 'b': ns.x} %}")),
        ("doubling by nested lists", often("{% set ns.x = [ns.x, ns.x] %}")),
        (
            "a list of large texts",
            ns(
                "{% set x = 'a' * 15000000 %}{% set ns.l = [] %}{% for i in range(9999) %}{% set ns.l = ns.l + [x[1:]] %}{% endfor %}",
            ),
        ),
        (
            "a list literal of large texts",
            format!("{{% set x = 'a' * 15000000 %}}{{% set y = [{}] %}}", "x[1:], ".repeat(900)),
        ),
        ("large upper case", format!("{{% set x = 'a' * 15000000 %}}{{% set y = [{}] %}}", "x|upper, ".repeat(900))),
        ("large methods", format!("{{% set x = 'a' * 15000000 %}}{{% set y = [{}] %}}", "x.upper(), ".repeat(900))),
        (
            "split into letters",
            fixed("{% set x = 'a ' * 8000000 %}{% for i in range(999) %}{% set y = x.split() %}{% endfor %}"),
        ),
        (
            "long comparisons",
            fixed(
                "{% set x = 'a' * 15000000 %}{% set y = x ~ '' %}{% for i in range(99999) %}{% if x == y %}{% endif %}{% endfor %}",
            ),
        ),
        (
            "long searches",
            fixed("{% set x = 'a' * 15000000 %}{% for i in range(99999) %}{% if 'b' in x %}{% endif %}{% endfor %}"),
        ),
        ("long searches in lists", fixed("{% set x = 'a' * 15000000 %}{% set l = [x] * 9999 %}{{ (x ~ 'b') in l }}")),
        (
            "long letters",
            fixed("{% set x = 'a' * 15000000 %}{% for i in range(99999) %}{% set y = x[14999999] %}{% endfor %}"),
        ),
        ("long sorting", fixed("{% set x = 'a' * 15000000 %}{{ ([x] * 9999)|sort|length }}")),
        ("much in the place of a letter", fixed("{{ ('a' * 40000)|replace('a', 'b' * 100000)|length }}")),
        ("the same by method", fixed("{{ ('a' * 40000).replace('a', 'b' * 100000)|length }}")),
        ("long separators", fixed("{{ range(9999)|join('a' * 1000000)|length }}")),
        ("the same by method join", fixed("{{ ('a' * 1000000).join(range(9999)|list)|length }}")),
        ("a batch filled up", fixed("{{ [1]|batch(100000000, 'x')|list|length }}")),
        ("many slices", fixed("{{ [1]|slice(100000000, 'x')|list|length }}")),
        ("wide centre", fixed("{{ 'a'|center(1000000000)|length }}{{ 'a'.center(1000000000)|length }}")),
        (
            "constants that the compiler could compute",
            fixed(
                "{% if 0 %}{{ ['a' * 90000000, 'b' * 90000000, 'c' * 90000000, 'd' * 90000000] }}{% endif %}{{ 1 / 0 }}",
            ),
        ),
        ("wide format", fixed("{{ '%1000000000d' % 1 }}")),
        ("wide format by filter", fixed("{{ '%1000000000d'|format(1) }}")),
        ("wide format by argument", fixed("{{ '%*d' % (1000000000, 1) }}")),
        ("precise format", fixed("{{ '%.1000000000f' % 1.5 }}")),
        ("wide str.format", fixed("{{ '{:>1000000000}'.format('x') }}")),
        ("wide str.format by argument", fixed("{{ '{:>{}}'.format('x', 1000000000) }}")),
        ("wide indent", fixed("{{ 'a\\nb'|indent(1000000000) }}")),
        (
            "wide JSON",
            often("{{ messages|tojson(indent=1000000000) }}{{ ns.l|tojson(separators=['a' * 15000000, 'b']) }}"),
        ),
        ("huge numbers", often("{% set ns.y = (ns.y or 9) ** 99 %}")),
        ("macro that calls itself", fixed("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}")),
        ("macros that call each other", fixed("{% macro a(f) %}{{ f(f) }}{% endmacro %}{{ a(a) }}")),
        (
            "call blocks within themselves",
            fixed(
                "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{{ caller() }}{% endmacro %}{% call m() %}x{% endcall %}",
            ),
        ),
        ("a recursive loop", fixed("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}")),
        ("a namespace in itself", ns("{% set ns.x = ns %}{{ ns }}")),
        ("a namespace in a list in itself", ns("{% set ns.x = [ns] %}{{ ns.x }}")),
        (
            "namespaces in each other",
            fixed("{% set a = namespace() %}{% set b = namespace(a=a) %}{% set a.b = b %}{{ a|tojson }}"),
        ),
        (
            "a namespace in a macro",
            fixed("{% set a = namespace() %}{% macro m(x) %}{% set a.b = x %}{% endmacro %}{{ m({'k': [a]}) }}{{ a }}"),
        ),
        ("lists nested by lines", format!("{{% set x = [] %}}{}{{{{ x }}}}", "{% set x = [x] %}".repeat(50_000))),
        ("lists nested by a loop", often("{% set ns.x = [ns.x] %}")),
        ("dictionaries nested by a loop", often("{% set ns.x = dict(a=ns.x) %}")),
        ("namespaces nested by lines", format!("{{% set x = 1 %}}{}", "{% set x = namespace(a=x) %}".repeat(30_000))),
        (
            "lazy lists nested by a loop",
            often("{% set ns.l = (ns.l|map('string'))[::-1]|reverse %}{% set ns.l = [ns.l] %}"),
        ),
        ("many arguments", fixed("{% macro m() %}{% endmacro %}{{ m(*range(99999)) }}")),
        ("raised text", fixed("{{ raise_exception('a' * 15000000) }}")),
        ("long date", fixed("{{ strftime_now('%c' * 7000000) ~ 1 / 0 }}")),
    ]
}

/// Sources that are too much for a parser.
fn parsing() -> Vec<(&'static str, String)> {
    let n = 100_000;
    let around = |a: &str, b: &str, c: &str| format!("{{{{ {}{b}{} }}}}", a.repeat(n), c.repeat(n));
    vec![
        ("too long", "a".repeat((1 << 20) + 1)),
        ("one long line", "{#".to_owned() + &"a".repeat(70_000) + "#}"),
        ("many lines", "\n".repeat(70_000)),
        ("brackets", around("(", "1", ")")),
        ("lists", around("[", "1", "]")),
        ("dictionaries", around("{1:", "1", "}")),
        ("subscripts within subscripts", around("x[", "1", "]")),
        ("calls within calls", around("f(", "1", ")")),
        ("open brackets", around("(", "", "")),
        ("minus signs", around("-", "1", "")),
        ("plus signs", around("+", "1", "")),
        ("nots", around("not ", "1", "")),
        ("attributes", around("", "x", ".a")),
        ("subscripts", around("", "x", "[0]")),
        ("calls", around("", "x", "()")),
        ("filters", around("", "x", "|upper")),
        ("tests", around("", "x", " is string")),
        ("sums", around("", "1", " + 1")),
        ("differences", around("", "1", " - 1")),
        ("products", around("", "1", " * 1")),
        ("powers", around("", "1", " ** 1")),
        ("joined texts", around("", "1", " ~ 1")),
        ("ands", around("", "1", " and 1")),
        ("ors", around("", "1", " or 1")),
        ("comparisons", around("", "1", " < 1")),
        ("choices", around("", "1", " if 1 else 1")),
        ("choices without else", around("", "1", " if 1")),
        ("texts in a row", around("", "1", " 'a'")),
        ("ifs", "{% if x %}".repeat(50_000)),
        ("closed ifs", "{% if x %}".repeat(30_000) + &"{% endif %}".repeat(30_000)),
        ("elifs", "{% if x %}".to_owned() + &"{% elif x %}".repeat(50_000) + "{% endif %}"),
        ("fors", "{% for x in y %}".repeat(30_000) + &"{% endfor %}".repeat(30_000)),
        ("macros in macros", "{% macro x() %}".repeat(30_000) + &"{% endmacro %}".repeat(30_000)),
        ("set blocks", "{% set x %}".repeat(50_000)),
        ("many targets", format!("{{% set {}x = 1 %}}", "x, ".repeat(n))),
        ("bracketed targets", format!("{{% for {}x{} in y %}}{{% endfor %}}", "(".repeat(900), ")".repeat(900))),
        ("an open tag", "{{".repeat(n)),
        ("an open comment", "{#".repeat(n)),
        ("an open raw block", "{% raw %}{%".repeat(n)),
        ("an open text", "{{ 'aaa".to_owned()),
        ("a lone escape", "{{ '\\".to_owned()),
        ("a long number", format!("{{{{ {} }}}}", "9".repeat(n))),
        ("an inclusion", "{% include 'x' %}".to_owned()),
        ("an import", "{% import 'x' as x %}{% extends 'x' %}".to_owned()),
        ("a stray end", "{% endfor %}".to_owned()),
        ("a wrong end", "{% if x %}{% endfor %}".to_owned()),
    ]
}

fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[test]
fn hostile_templates_end_in_an_error() {
    if !alone(module_path!(), "hostile_templates_end_in_an_error") {
        return;
    }
    let messages = [Message::new("user", "hello")];
    let judge = move |name: &str, source: &str| {
        let start = Instant::now();
        let input = RenderInput { messages: &messages, ..RenderInput::default() };
        let result = ChatTemplate::new(source, None).and_then(|t| t.render(&input).map(|r| r.text.len()));
        let took = start.elapsed();
        let sentence = match result {
            Ok(len) => return Err(format!("{name}: rendered {len} bytes in {took:?}")),
            Err(error) => error.to_string(),
        };
        println!("{took:>12.1?}  {name}: {sentence}");
        if took > MAX_TIME || sentence.len() > 1200 {
            return Err(format!("{name}: {took:?}, a sentence of {} bytes", sentence.len()));
        }
        Ok(())
    };
    let work = move || {
        let cases = parsing().into_iter().chain(running());
        cases.filter_map(|(name, source)| judge(name, &source).err()).collect::<Vec<_>>()
    };
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(work).unwrap();
    let wrong = thread.join().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    match peak_memory() {
        Some(peak) => assert!(peak < MAX_MEMORY, "{} MiB at the peak", peak >> 20),
        None => skipped("peak memory is only known on Linux"),
    }
}

/// Pieces of templates, in any order: most do not parse, none may panic or take long.
#[test]
fn scrambled_templates_do_no_harm() {
    const PIECES: [&str; 64] = [
        "{{",
        "}}",
        "{%",
        "%}",
        "{%-",
        "-%}",
        "{#",
        "#}",
        "if ",
        "else ",
        "elif ",
        "endif",
        "for ",
        "in ",
        "endfor",
        "set ",
        "endset",
        "macro ",
        "endmacro",
        "call ",
        "m",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ":",
        ",",
        ".",
        "|",
        "~",
        "+",
        "-",
        "*",
        "**",
        "//",
        "%",
        "=",
        "==",
        "<",
        "not ",
        "and ",
        "is ",
        "defined ",
        "string ",
        "messages",
        "x",
        "ns",
        "loop",
        "namespace(a=x)",
        "raise_exception('r')",
        "tojson",
        "join(',')",
        "map('upper')",
        "split()",
        "[::-1]",
        "[0]",
        "'a'",
        "\"\\n\"",
        "1",
        "2.5",
        "none ",
        "\n",
    ];
    // Whole tags, so that a good part parses.
    const TAGS: [&str; 16] = [
        "{% for x in messages %}",
        "{% endfor %}",
        "{% if x %}",
        "{% endif %}",
        "{% else %}",
        "{% set ns = namespace(a=1) %}",
        "{% set ns.a = ns.a + 1 %}",
        "{{ ns.a }}",
        "{% macro m(x, y=2) %}",
        "{% endmacro %}",
        "{{ m(1) }}",
        "{{ x|tojson }}",
        "{% set x = [x, ns] %}",
        "{{ x.role }}",
        "{% break %}",
        "{{ loop.index }}",
    ];
    let messages = [Message::new("user", "hello"), Message::new("assistant", "hi")];
    let mut seed = 1u64;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as usize % below
    };
    let (mut parsed, mut rendered) = (0, 0);
    for round in 0..20_000 {
        let mut source = String::new();
        for _ in 0..random(24) + 1 {
            let (tag, piece) = (TAGS[random(TAGS.len())], PIECES[random(PIECES.len())]);
            match round % 4 {
                0 => source += piece,
                1 => source += tag,
                2 => source += if random(8) > 0 { tag } else { piece },
                _ => {
                    let words = (0..random(6)).map(|_| PIECES[20 + random(PIECES.len() - 20)]);
                    source += &format!("{{{{ {} }}}}", words.collect::<String>());
                }
            }
        }
        let Ok(template) = ChatTemplate::new(&source, None) else { continue };
        parsed += 1;
        rendered +=
            usize::from(template.render(&RenderInput { messages: &messages, ..RenderInput::default() }).is_ok());
    }
    println!("of 20000 scrambled templates {parsed} parsed and {rendered} rendered");
    assert!(parsed > 1000 && rendered > 500, "{parsed} parsed, {rendered} rendered: the pieces say too little");
}
