"""Models that say what a test wants: ir-tiny's vocabulary with one layer of weights whose next token follows from the last one
alone. A chat template picks the answer: each has a condition in Jinja, and the prompt ends in a token that stands for it.

So a client meets a model that calls its tool at the first turn and reads the tool's result at the second, and a test can tell
by the answer what the template was given.
"""

import json
import random
import struct

from gguf_edit import TEXT, TINY, packed, packed_text, read

UINT32, INT32, FLOAT32, ARRAY = 4, 5, 6, 9
CONTROL = 3
WIDTH, INNER, HEAD = 64, 32, 32
# How far the wanted token is ahead of all others before the softmax.
CERTAIN = 24.0

# What conditions can name: the turns (`messages`), `asked` (the last text of the user), `results` (those of tools), `thoughts`
# (those of earlier answers), and `offered` (the names of the tools, each between commas).
TEMPLATE = """\
{%- set ns = namespace(asked='', results='', thoughts='', offered=',') -%}
{%- for m in messages -%}
{%- if m.role == 'user' -%}{%- set ns.asked = m.content -%}{%- endif -%}
{%- if m.role == 'tool' -%}{%- set ns.results = ns.results + m.content -%}{%- endif -%}
THOUGHTS
{%- endfor -%}
{%- for t in tools or [] -%}{%- set ns.offered = ns.offered + t.function.name + ',' -%}{%- endfor -%}
{%- set asked = ns.asked -%}{%- set results = ns.results -%}{%- set thoughts = ns.thoughts -%}{%- set offered = ns.offered -%}
{%- if tools -%}
{{- '<|im_start|>system\\n' -}}
{%- for t in tools -%}{{- (t | tojson) + '\\n' -}}{%- endfor -%}
{{- 'Call one as <tool_call>{"name": NAME, "arguments": ARGUMENTS}</tool_call>.<|im_end|>\\n' -}}
{%- endif -%}
{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '\\n' -}}WRITTEN{{- m.content or '' -}}
{%- for c in m.tool_calls or [] -%}{{- '<tool_call>\\n' + (c.function | tojson) + '\\n</tool_call>' -}}{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}CLOSEDCHOICE{%- endif -%}
"""

# What a model's template has beside that where it reasons, and what each answer begins with.
THOUGHT = "One step at a time."
REASONS = {
    "THOUGHTS": "{%- if m.reasoning_content -%}{%- set ns.thoughts = ns.thoughts + m.reasoning_content -%}{%- endif -%}",
    "WRITTEN": "{%- if m.reasoning_content -%}{{- '<think>\\n' + m.reasoning_content + '\\n</think>\\n\\n' -}}{%- endif -%}",
    "CLOSED": "{%- if enable_thinking is defined and not enable_thinking -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}",
}
BEFORE = f"<think>\n{THOUGHT}\n</think>\n\n"


def pieces(text, taken):
    """The text in short pieces, none of which is in `taken`: a token can have one successor only."""
    found, start = [], 0
    while start < len(text):
        end = min(start + 6, len(text))
        while text[start:end] in taken and end < len(text):
            end += 1
        while text[start:end] in taken:
            # Its end was taken before, so the piece before it takes it in.
            start -= len(found.pop())
        found.append(text[start:end])
        taken.add(found[-1])
        start = end
    return found


def letters(text):
    """The text as byte-level vocabularies write it."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    written = {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(others)}
    return "".join(written[b] for b in text.encode()).encode()


def template(answers, reasons):
    """The template; its end is a token for each answer, by its condition."""
    tests = [f"{{%- {'elif' if i else 'if'} {condition} -%}}<|say-{i}|>" for i, (condition, _) in enumerate(answers)]
    text = TEMPLATE.replace("CHOICE", "".join(tests) + "{%- endif -%}")
    for place, part in REASONS.items():
        text = text.replace(place, part if reasons else "")
    return text.encode()


class Vocabulary:
    """ir-tiny's tokens and those of the answers."""

    def __init__(self, meta, answers):
        self.tokens = list(meta["tokenizer.ggml.tokens"])
        # An array's head has 12 bytes, and each type 4.
        self.types = list(struct.unpack(f"<{len(self.tokens)}i", meta["tokenizer.ggml.token_type"][12:]))
        self.end = struct.unpack("<I", meta["tokenizer.ggml.eos_token_id"])[0]
        taken, self.chains = {t.decode() for t in self.tokens}, []
        for i, (_, text) in enumerate(answers):
            start = self.add(f"<|say-{i}|>".encode(), CONTROL)
            self.chains.append([start, *(self.add(letters(p), 1) for p in pieces(text, taken)), self.end])

    def add(self, token, kind):
        self.tokens.append(token)
        self.types.append(kind)
        return len(self.tokens) - 1


def weights(vocabulary, seed=7):
    """Rows of the embedding, and rows of the output that lead from each token of a chain to the next."""
    chance, n = random.Random(seed), len(vocabulary.tokens)
    rows = []
    for _ in range(n):
        row = [chance.gauss(0, 1) for _ in range(WIDTH)]
        size = (sum(x * x for x in row) / WIDTH) ** 0.5
        rows.append([x / size for x in row])
    out = [[0.0] * WIDTH for _ in range(n)]
    # All answers end alike: what leads to the end is one direction.
    ends = [chain[-2] for chain in vocabulary.chains]
    for end in ends[1:]:
        rows[end] = rows[ends[0]]
    for chain in vocabulary.chains:
        for before, after in zip(chain, chain[1:]):
            out[after] = [x * CERTAIN / WIDTH for x in rows[before]]
    return rows, out


def tensors(rows, out):
    """Name, shape (rows first) and bytes of every tensor: the layer adds nothing."""

    def halves(name, matrix):
        return name, (len(matrix), len(matrix[0])), b"".join(struct.pack(f"<{len(r)}f", *r) for r in matrix)

    def zeros(name, n, width):
        return name, (n, width), bytes(4 * n * width)

    ones = struct.pack(f"<{WIDTH}f", *[1.0] * WIDTH)
    yield halves("token_embd.weight", rows)
    yield halves("output.weight", out)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        yield f"{name}.weight", (WIDTH,), ones
    for name in ("attn_q", "attn_k", "attn_v"):
        yield zeros(f"blk.0.{name}.weight", HEAD, WIDTH)
    yield zeros("blk.0.attn_output.weight", WIDTH, HEAD)
    yield zeros("blk.0.ffn_gate.weight", INNER, WIDTH)
    yield zeros("blk.0.ffn_up.weight", INNER, WIDTH)
    yield zeros("blk.0.ffn_down.weight", WIDTH, INNER)


def metadata(vocabulary, tiny, chat, context):
    """Keys, kinds and values."""

    def number(n):
        return UINT32, struct.pack("<I", n)

    yield "general.architecture", TEXT, b"llama"
    yield "general.name", TEXT, b"scripted"
    for key, n in {
        "context_length": context,
        "embedding_length": WIDTH,
        "block_count": 1,
        "feed_forward_length": INNER,
        "attention.head_count": 1,
        "attention.head_count_kv": 1,
        "attention.key_length": HEAD,
        "attention.value_length": HEAD,
        "rope.dimension_count": HEAD,
    }.items():
        yield f"llama.{key}", *number(n)
    yield "llama.attention.layer_norm_rms_epsilon", FLOAT32, struct.pack("<f", 1e-5)
    for key in ("tokenizer.ggml.model", "tokenizer.ggml.pre"):
        yield key, TEXT, tiny[key]
    yield "tokenizer.ggml.tokens", ARRAY, vocabulary.tokens
    kinds = struct.pack(f"<{len(vocabulary.types)}i", *vocabulary.types)
    yield "tokenizer.ggml.token_type", ARRAY, struct.pack("<IQ", INT32, len(vocabulary.types)) + kinds
    yield "tokenizer.ggml.merges", ARRAY, tiny["tokenizer.ggml.merges"]
    yield "tokenizer.ggml.eos_token_id", *number(vocabulary.end)
    yield "tokenizer.ggml.add_bos_token", 7, bytes(1)
    yield "tokenizer.chat_template", TEXT, chat


def write(path, answers, reasons=False, context=131072):
    """Writes such a model. `answers` are pairs of a condition and a text; the first that holds is said."""
    if reasons:
        answers = [(condition, BEFORE + text) for condition, text in answers]
    tiny = read(TINY.read_bytes())
    vocabulary = Vocabulary(tiny, answers)
    keys = list(metadata(vocabulary, tiny, template(answers, reasons), context))
    parts = list(tensors(*weights(vocabulary)))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(parts), len(keys))
    for key, kind, value in keys:
        head += packed_text(key.encode()) + struct.pack("<I", kind) + packed(kind, value)
    body = b""
    for name, shape, data in parts:
        head += packed_text(name.encode()) + struct.pack("<I", len(shape))
        head += b"".join(struct.pack("<Q", n) for n in reversed(shape))
        head += struct.pack("<IQ", 0, len(body))
        body += data + bytes(-len(data) % 32)
    path.write_bytes(head + bytes(-len(head) % 32) + body)


def call(name, /, **arguments):
    """The text of a tool call."""
    return "<tool_call>\n" + json.dumps({"name": name, "arguments": arguments}) + "\n</tool_call>"
