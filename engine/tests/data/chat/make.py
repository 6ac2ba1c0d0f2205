#!/usr/bin/env python3
"""Makes expected.json: what Jinja2 3.1.6, set up as Hugging Face's transformers does it, renders of every template in
templates/ with every chat of cases.json, and of every line of snippets.txt. An error is recorded as `raised` where
the template raised it. Usage: python3 make.py [DIR]. The templates are written for this project."""
import copy, datetime, json, os, sys

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2024, 12, 31, 0, 0, 0, tzinfo=datetime.timezone.utc)


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class Raised(Exception):
    pass


def raise_exception(message):
    raise Raised(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
env.filters["tojson"] = tojson
env.globals["raise_exception"] = raise_exception
env.globals["strftime_now"] = lambda f: NOW.strftime(f)


def variables(case, plain):
    """What a template sees. `plain` is the second try that the engine makes where the first fails on a chat with tool
    calls or without content: arguments as text, no content as empty."""
    messages = []
    for m in copy.deepcopy(case.get("messages", [])):
        m = {"content": None, **m}
        m = {"role": m.pop("role"), **m}
        if plain:
            m["content"] = m["content"] or ""
            for call in m.get("tool_calls", []):
                call["function"]["arguments"] = tojson(call["function"]["arguments"])
        if "reasoning_content" in m:
            m["thinking"] = m["reasoning_content"]
        messages.append(m)
    out = dict(messages=messages, tools=case.get("tools"), documents=None, bos_token="<s>", eos_token="</s>",
               add_generation_prompt=case.get("add_generation_prompt", True))
    if "think" in case:
        out |= dict(enable_thinking=case["think"], thinking=case["think"])
    return out | case.get("kwargs", {})


def render(source, case, plain=False):
    try:
        return {"text": env.from_string(source).render(**variables(case, plain))}
    except Exception as e:
        if not plain and any("tool_calls" in m or "content" not in m for m in case["messages"]):
            again = render(source, case, True)
            if "text" in again:
                return again
        return {"raised": str(e)} if isinstance(e, Raised) else {"error": f"{type(e).__name__}: {e}"}


here = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
cases = json.load(open(f"{here}/cases.json"))
out = {"made_by": f"make.py with Jinja2 {jinja2.__version__}", "templates": {}, "snippets": []}
for name in sorted(os.listdir(f"{here}/templates")):
    source = open(f"{here}/templates/{name}").read()
    out["templates"][name] = {"source": source, "cases": {k: render(source, c) for k, c in cases.items()}}
for line in open(f"{here}/snippets.txt"):
    if line.strip() and not line.startswith("##"):
        source = json.loads('"' + line.rstrip("\n").replace('"', '\\"') + '"')
        out["snippets"].append({"source": source, **render(source, cases["snippets"])})
json.dump(out, open(f"{here}/expected.json", "w"), ensure_ascii=False, indent=1)
