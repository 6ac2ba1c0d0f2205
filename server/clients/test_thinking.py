"""Reasoning models with real clients: reasoning apart from the answer, switched on and off, and schemas that hold only the
answer.

No model that reasons is small enough to be at hand, so ir-tiny is made one: two of its tokens are renamed, so that the
first word of an answer opens the reasoning and the first word of its second sentence closes it.
"""

import json

import anthropic
import ollama
import openai
import pytest
from conftest import check_arguments, post, schema_tool
from gguf_edit import TINY, edit, renamed

# What ir-tiny answers is: Type `ir serve`. It listens on 127.0.0.1:11434 and has an Ollama-style API ...
TEXTS = {"Type": "<think>", "\u0120It": "</think>"}
QUESTION = [{"role": "user", "content": "How do I start the server?"}]
THOUGHT = "`ir serve`."
ANSWER = "listens on 127.0.0.1:11434 and has an Ollama-style API under /api and an OpenAI-style API under /v1."

ASKS = "{{- '<|im_start|>assistant\\n' -}}"
CLOSED = "{{- '<think>\\n\\n</think>\\n\\n' -}}"
# As Qwen 3's: the model opens its reasoning itself, and an empty one in the prompt keeps it from that.
CHOOSES = "{%- if enable_thinking is defined and not enable_thinking -%}" + CLOSED + "{%- endif -%}"
# As DeepSeek R1's: the prompt ends within the reasoning.
OPENS = CHOOSES.replace("{%- endif", "{%- else -%}{{- '<think>' -}}{%- endif")
# As gpt-oss's: the system message says how much.
LEVELS = "{%- if reasoning_effort is defined -%}{{- '\\nReasoning: ' + reasoning_effort -}}{%- endif -%}"

SCHEMA = schema_tool()["function"]["parameters"]
GREEDY = {"temperature": 0, "num_predict": 120}


@pytest.fixture(scope="module", params=["chooses", "opens"])
def thinker(request, tmp_path_factory):
    """The path of a model that reasons: programs on the server's machine may name one by its path."""

    def change(meta):
        renamed(TEXTS)(meta)
        template = meta["tokenizer.chat_template"].decode()
        assert ASKS in template and "+ system -}}" in template
        template = template.replace(ASKS, ASKS + (OPENS if request.param == "opens" else CHOOSES))
        meta["tokenizer.chat_template"] = template.replace("+ system -}}", "+ system -}}" + LEVELS).encode()

    path = tmp_path_factory.mktemp("models") / f"{request.param}.gguf"
    path.write_bytes(edit(TINY.read_bytes(), change))
    return str(path)


@pytest.fixture(scope="module")
def client(url):
    return ollama.Client(host=url)


@pytest.fixture(scope="module")
def openai_client(url):
    return openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)


def told(parts):
    """Reasoning and answer of streamed pieces (pairs); fails where reasoning comes behind the answer's first piece, which
    may hold the reasoning's end: pieces are joined where a client lags."""
    parts = [(thinking or "", text or "") for thinking, text in parts]
    begun = [bool(text) for _, text in parts].index(True) if any(text for _, text in parts) else len(parts)
    assert not any(thinking for thinking, _ in parts[begun + 1 :]), parts
    return "".join(t for t, _ in parts), "".join(t for _, t in parts)


def chat(client, model, stream, **more):
    """Reasoning and answer of a chat."""
    answer = client.chat(model, QUESTION, options=GREEDY, stream=stream, **more)
    if not stream:
        return answer.message.thinking, answer.message.content
    return told((p.message.thinking, p.message.content) for p in answer)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("think", [None, True])
def test_ollama_parts_reasoning_from_the_answer(client, thinker, think, stream):
    assert chat(client, thinker, stream, think=think) == (THOUGHT, ANSWER)


def test_ollama_generates_with_reasoning(client, thinker):
    whole = client.generate(thinker, QUESTION[0]["content"], options=GREEDY, think=True)
    assert (whole.thinking, whole.response) == (THOUGHT, ANSWER)
    pieces = client.generate(thinker, QUESTION[0]["content"], options=GREEDY, think=True, stream=True)
    assert told((p.thinking, p.response) for p in pieces) == (THOUGHT, ANSWER)


def test_ollama_without_reasoning(client, thinker):
    answer = client.chat(thinker, QUESTION, options=GREEDY, think=False)
    assert not answer.message.thinking and answer.message.content
    for piece in client.chat(thinker, QUESTION, options=GREEDY, think=False, stream=True):
        assert not piece.message.thinking


def test_ollama_levels_reach_the_template(client, thinker, url):
    counts = {}
    for level in ("low", "medium", "high"):
        answer = client.chat(thinker, QUESTION, options=GREEDY, think=level)
        assert answer.message.thinking
        counts[level] = answer.prompt_eval_count
    plain = client.chat(thinker, QUESTION, options=GREEDY, think=True).prompt_eval_count
    assert all(count > plain for count in counts.values()), (plain, counts)
    body = {"model": thinker, "messages": QUESTION, "stream": False, "options": {"num_predict": 1}}
    assert post(url, "/api/chat", {**body, "think": "max"})[0] == 200
    status, answer = post(url, "/api/chat", {**body, "think": "enormous"})
    assert status == 400 and "think must be a boolean" in answer["error"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("think", [None, True])
def test_ollama_schemas_begin_behind_the_reasoning(client, thinker, think, stream):
    thought, text = chat(client, thinker, stream, think=think, format=SCHEMA)
    assert thought == THOUGHT
    check_arguments(json.loads(text))


def test_ollama_schemas_hold_at_once_without_reasoning(client, thinker):
    answer = client.chat(thinker, QUESTION, options=GREEDY, think=False, format=SCHEMA)
    assert not answer.message.thinking
    check_arguments(json.loads(answer.message.content))


def test_ollama_knows_that_it_thinks(client, thinker):
    assert {"completion", "tools", "thinking"} <= set(client.show(thinker).capabilities)


def openai_chat(client, model, stream, **more):
    """Reasoning and answer of a chat; both names of the reasoning must agree."""
    answer = client.chat.completions.create(
        model=model, messages=QUESTION, temperature=0, max_tokens=120, stream=stream, **more
    )
    if not stream:
        message = answer.choices[0].message
        extra = message.model_extra
        assert extra.get("reasoning") == extra.get("reasoning_content")
        return extra.get("reasoning"), message.content
    deltas = [c.choices[0].delta for c in answer if c.choices]
    assert all(d.model_extra.get("reasoning") == d.model_extra.get("reasoning_content") for d in deltas)
    return told((d.model_extra.get("reasoning"), d.content) for d in deltas)


@pytest.mark.parametrize("stream", [False, True])
def test_openai_parts_reasoning_from_the_answer(openai_client, thinker, stream):
    assert openai_chat(openai_client, thinker, stream) == (THOUGHT, ANSWER)


@pytest.mark.parametrize("stream", [False, True])
def test_openai_schemas_begin_behind_the_reasoning(openai_client, thinker, stream):
    json_schema = {"name": "pick", "strict": True, "schema": {**SCHEMA, "additionalProperties": False}}
    held = {"type": "json_schema", "json_schema": json_schema}
    thought, text = openai_chat(openai_client, thinker, stream, response_format=held)
    assert thought == THOUGHT
    check_arguments(json.loads(text))


@pytest.mark.parametrize("stream", [False, True])
def test_openai_forced_calls_come_behind_the_reasoning(openai_client, thinker, stream):
    answer = openai_client.chat.completions.create(
        model=thinker,
        messages=QUESTION,
        temperature=0,
        max_tokens=200,
        tools=[schema_tool()],
        tool_choice="required",
        stream=stream,
    )
    if stream:
        deltas = [c.choices[0].delta for c in answer if c.choices]
        thought = "".join(d.model_extra.get("reasoning") or "" for d in deltas)
        text = "".join(d.content or "" for d in deltas)
        arguments = "".join(c.function.arguments or "" for d in deltas for c in d.tool_calls or [] if c.index == 0)
    else:
        message = answer.choices[0].message
        thought, text = message.model_extra.get("reasoning"), message.content or ""
        arguments = message.tool_calls[0].function.arguments
    assert thought and not text.strip()
    check_arguments(json.loads(arguments))


def test_openai_efforts(openai_client, thinker):
    answer = openai_client.chat.completions.create(
        model=thinker, messages=QUESTION, temperature=0, max_tokens=120, reasoning_effort="high"
    )
    assert answer.choices[0].message.model_extra["reasoning"]
    assert answer.usage.completion_tokens_details.reasoning_tokens > 0
    none = openai_client.chat.completions.create(
        model=thinker, messages=QUESTION, temperature=0, max_tokens=120, reasoning_effort="none"
    )
    assert not none.choices[0].message.model_extra.get("reasoning") and none.choices[0].message.content
    assert none.usage.completion_tokens_details.reasoning_tokens == 0


def test_openai_responses(openai_client, thinker):
    asked = {"model": thinker, "input": QUESTION, "temperature": 0, "max_output_tokens": 120}
    whole = openai_client.responses.create(**asked)
    assert [item.type for item in whole.output] == ["reasoning", "message"]
    assert (whole.output[0].summary[0].text, whole.output_text) == (THOUGHT, ANSWER)
    events = list(openai_client.responses.create(**asked, stream=True))
    thought = "".join(e.delta for e in events if e.type == "response.reasoning_summary_text.delta")
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert (thought, text) == (THOUGHT, ANSWER)


def test_anthropic_blocks(url, thinker):
    client = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)
    asked = {"model": thinker, "messages": QUESTION, "max_tokens": 1200, "extra_body": {"temperature": 0}}
    thinking = {"type": "enabled", "budget_tokens": 1024}
    whole = client.messages.create(**asked, thinking=thinking)
    assert [block.type for block in whole.content] == ["thinking", "text"]
    assert (whole.content[0].thinking, whole.content[1].text) == (THOUGHT, ANSWER)
    with client.messages.stream(**asked, thinking=thinking) as stream:
        final = stream.get_final_message()
    assert [b.type for b in final.content] == ["thinking", "text"] and final.content[0].thinking == THOUGHT
