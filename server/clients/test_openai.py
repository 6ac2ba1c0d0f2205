"""The openai package against the server: chats, tools, schemas, completions, embeddings, errors, cancelling."""

import base64
import json
import struct
from typing import Annotated

import httpx
import openai
import pytest
from conftest import chats, check_arguments, golden_call, post, schema_tool, wait_until_idle
from pydantic import BaseModel, Field

PROMPT = "Tell me a story about a fox and a drum"


@pytest.fixture(scope="module")
def client(url):
    return openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)


def ask(client, model, text="What is the capital of France?", **more):
    messages = [{"role": "user", "content": text}]
    return client.chat.completions.create(model=model, messages=messages, temperature=0, **more)


def collect(stream):
    """Text, calls by their index and the last chunks' reason and usage."""
    text, calls, reason, usage, ids = "", {}, None, None, set()
    for chunk in stream:
        ids.add(chunk.id)
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
            for part in choice.delta.tool_calls or []:
                call = calls.setdefault(part.index, {"id": part.id, "name": "", "arguments": ""})
                call["name"] += part.function.name or ""
                call["arguments"] += part.function.arguments or ""
    assert len(ids) == 1
    return text, calls, reason, usage


@pytest.mark.parametrize("chat", chats(tools=False), ids=lambda c: c["messages"][-1]["content"][:30])
def test_golden_chats(client, model, chat):
    answer = client.chat.completions.create(model=model, messages=chat["messages"], temperature=0)
    assert answer.choices[0].message.content == chat["reply"]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens == len(chat["prompt_ids"])
    assert answer.usage.completion_tokens == len(chat["reply_ids"])


def test_a_stream_is_the_whole_answer_in_pieces(client, model):
    whole = ask(client, model)
    stream = ask(client, model, stream=True, stream_options={"include_usage": True})
    text, _, reason, usage = collect(stream)
    assert (text, reason) == (whole.choices[0].message.content, "stop")
    assert (usage.prompt_tokens, usage.completion_tokens) == (whole.usage.prompt_tokens, whole.usage.completion_tokens)
    assert whole.id.startswith("chatcmpl-") and whole.object == "chat.completion"


def test_several_choices_from_a_seed(client, model):
    messages = [{"role": "user", "content": "Tell me a story."}]
    make = lambda: client.chat.completions.create(model=model, messages=messages, n=3, seed=5, temperature=1.5, max_tokens=24)
    first, second = make(), make()
    texts = [c.message.content for c in first.choices]
    assert [c.index for c in first.choices] == [0, 1, 2] and len(set(texts)) > 1
    assert texts == [c.message.content for c in second.choices]
    assert first.usage.completion_tokens <= 3 * 24


def test_limits_and_stops(client, model):
    short = ask(client, model, PROMPT, max_completion_tokens=5)
    assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 5)
    whole = ask(client, model).choices[0].message.content
    stopped = ask(client, model, stop=[" of"])
    assert stopped.choices[0].message.content == whole.split(" of")[0]
    assert stopped.choices[0].finish_reason == "stop"


def test_log_probabilities(client, model):
    answer = ask(client, model, logprobs=True, top_logprobs=3)
    tokens = answer.choices[0].logprobs.content
    text = b"".join(bytes(t.bytes) for t in tokens).decode()
    assert text.startswith(answer.choices[0].message.content)
    for token in tokens:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3
        # Greedy: the chosen token is the likeliest.
        assert token.top_logprobs[0].token == token.token
    with_stream = ask(client, model, logprobs=True, stream=True)
    streamed = [t for chunk in with_stream for c in chunk.choices if c.logprobs for t in c.logprobs.content]
    assert [t.token for t in streamed] == [t.token for t in tokens]


def test_logit_bias_bans_and_forces(client, model, url):
    _, answer = post(url, "/tokenize", {"content": "The"})
    (the,) = answer["tokens"]
    assert ask(client, model).choices[0].message.content.startswith("The")
    assert not ask(client, model, logit_bias={str(the): -100}).choices[0].message.content.startswith("The")
    forced = ask(client, model, logit_bias={str(the): 100}, max_tokens=3)
    assert forced.choices[0].message.content == "TheTheThe"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("chat", chats(tools=True), ids=lambda c: c["messages"][-1]["content"][:30])
def test_golden_tools(client, model, chat, stream):
    answer = client.chat.completions.create(
        model=model, messages=chat["messages"], tools=chat["tools"], temperature=0, stream=stream
    )
    if stream:
        text, calls, reason, _ = collect(answer)
        found = [(c["name"], json.loads(c["arguments"])) for c in calls.values()]
    else:
        message, reason = answer.choices[0].message, answer.choices[0].finish_reason
        text = message.content or ""
        found = [(c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls or []]
    call = golden_call(chat)
    if call is None:
        assert (text, found, reason) == (chat["reply"], [], "stop")
    else:
        assert (text, found, reason) == ("", [call], "tool_calls")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "pick_color"}}])
def test_tools_are_forced(client, model, choice):
    answer = ask(client, model, "Hello!", tools=[schema_tool()], tool_choice=choice, max_tokens=200)
    (call,) = answer.choices[0].message.tool_calls
    assert (call.type, call.function.name) == ("function", "pick_color") and call.id
    check_arguments(json.loads(call.function.arguments))
    _, calls, _, _ = collect(ask(client, model, "Hello!", tools=[schema_tool()], tool_choice=choice, stream=True))
    check_arguments(json.loads(calls[0]["arguments"]))


def test_no_tools_where_none_are_wanted(client, model):
    (chat,) = [c for c in chats(tools=True) if "660" in c["messages"][-1]["content"]]
    answer = client.chat.completions.create(
        model=model, messages=chat["messages"], tools=chat["tools"], tool_choice="none", temperature=0, max_tokens=40
    )
    assert not answer.choices[0].message.tool_calls and answer.choices[0].message.content


def test_a_tools_result_goes_back(client, model):
    (chat,) = [c for c in chats(tools=True) if "660" in c["messages"][-1]["content"]]
    first = client.chat.completions.create(model=model, messages=chat["messages"], tools=chat["tools"], temperature=0)
    message = first.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "863"}
    turns = chat["messages"] + [message.model_dump(exclude_none=True), result]
    second = client.chat.completions.create(model=model, messages=turns, tools=chat["tools"], temperature=0)
    assert "863" in second.choices[0].message.content


class Person(BaseModel):
    """Every part is bounded: which text a small model writes differs by processor, that it ends must not."""

    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=150)
    tags: list[Annotated[str, Field(max_length=8)]] = Field(max_length=3)


def test_a_schema_becomes_a_model(client, model):
    messages = [{"role": "user", "content": "Give me JSON with name Tom and age 7."}]
    answer = client.chat.completions.parse(
        model=model, messages=messages, response_format=Person, temperature=0, max_tokens=300
    )
    assert isinstance(answer.choices[0].message.parsed, Person)
    plain = ask(client, model, "Hello!", response_format={"type": "json_object"}, max_tokens=300)
    if plain.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(plain.choices[0].message.content), dict)


def test_grammars_of_llama_server(client, model):
    body = {"grammar": 'root ::= "yes" | "no"'}
    assert ask(client, model, "Hello!", extra_body=body).choices[0].message.content in ("yes", "no")
    body = {"json_schema": {"type": "integer", "minimum": 5, "maximum": 7}}
    assert int(ask(client, model, "Hello!", extra_body=body).choices[0].message.content) in (5, 6, 7)


def test_roles_parts_and_prefills(client, model):
    parts = [{"type": "text", "text": "What is the capital of France?"}]
    messages = [{"role": "developer", "content": "You are ir-tiny."}, {"role": "user", "content": parts}]
    answer = client.chat.completions.create(model=model, messages=messages, temperature=0)
    assert answer.choices[0].message.content == ask(client, model).choices[0].message.content
    messages.append({"role": "assistant", "content": "The capital of"})
    rest = client.chat.completions.create(model=model, messages=messages, temperature=0)
    assert "The capital of" + rest.choices[0].message.content == answer.choices[0].message.content


def test_raw_responses_have_timings(client, model):
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": "Hello!"}], extra_body={"options": {"num_ctx": 512}}
    )
    assert raw.status_code == 200 and raw.headers["content-type"].startswith("application/json")
    body = json.loads(raw.text) if isinstance(raw.text, str) else json.loads(raw.text())
    assert body["timings"]["predicted_n"] == body["usage"]["completion_tokens"]
    assert raw.parse().choices[0].message.role == "assistant"


def test_completions(client, model):
    one = client.completions.create(model=model, prompt=PROMPT, max_tokens=8, temperature=0)
    assert one.id.startswith("cmpl-") and one.choices[0].finish_reason == "length"
    text = one.choices[0].text
    pieces = client.completions.create(model=model, prompt=PROMPT, max_tokens=8, temperature=0, stream=True)
    assert "".join(c.text for chunk in pieces for c in chunk.choices) == text
    echoed = client.completions.create(model=model, prompt=PROMPT, max_tokens=8, temperature=0, echo=True)
    assert echoed.choices[0].text == PROMPT + text
    two = client.completions.create(model=model, prompt=["Once upon", PROMPT], max_tokens=8, temperature=0)
    assert (two.choices[1].text, two.choices[1].index) == (text, 1)
    scored = client.completions.create(model=model, prompt=PROMPT, max_tokens=4, temperature=0, logprobs=2)
    logprobs = scored.choices[0].logprobs
    assert "".join(logprobs.tokens) == scored.choices[0].text and len(logprobs.top_logprobs[0]) == 2


def test_completions_of_token_ids(client, model, url):
    _, answer = post(url, "/tokenize", {"content": PROMPT, "add_special": True})
    by_text = client.completions.create(model=model, prompt=PROMPT, max_tokens=8, temperature=0)
    by_ids = client.completions.create(model=model, prompt=answer["tokens"], max_tokens=8, temperature=0)
    assert by_ids.choices[0].text == by_text.choices[0].text
    assert by_ids.usage.prompt_tokens == len(answer["tokens"])


def test_embeddings(client, model, url):
    # The package asks for base64 unless it is told otherwise.
    two = client.embeddings.create(model=model, input=["a fox", "a drum"])
    assert [d.index for d in two.data] == [0, 1] and two.usage.total_tokens > 0
    vector = two.data[0].embedding
    assert sum(v * v for v in vector) == pytest.approx(1, abs=1e-4)
    floats = client.embeddings.create(model=model, input="a fox", encoding_format="float")
    assert floats.data[0].embedding == pytest.approx(vector, abs=1e-6)
    _, raw = post(url, "/v1/embeddings", {"model": model, "input": "a fox", "encoding_format": "base64"})
    packed = base64.b64decode(raw["data"][0]["embedding"])
    assert struct.unpack(f"<{len(vector)}f", packed) == pytest.approx(vector, abs=1e-6)
    short = client.embeddings.create(model=model, input="a fox", dimensions=16).data[0].embedding
    assert len(short) == 16 and sum(v * v for v in short) == pytest.approx(1, abs=1e-4)
    _, tokens = post(url, "/tokenize", {"content": "a fox", "add_special": True})
    by_ids = client.embeddings.create(model=model, input=tokens["tokens"])
    assert by_ids.usage.prompt_tokens == floats.usage.prompt_tokens


def test_models(client, model):
    assert model in [m.id for m in client.models.list()]
    assert client.models.retrieve(model).owned_by == "library"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nope")


def test_errors_have_status_type_and_field(client, model):
    with pytest.raises(openai.NotFoundError) as missing:
        ask(client, "nope")
    assert missing.value.code == "model_not_found"
    for field, value in [("temperature", -1), ("top_p", "x"), ("n", 0), ("messages", []), ("tool_choice", "required")]:
        body = {"messages": [{"role": "user", "content": "x"}], field: value}
        with pytest.raises(openai.BadRequestError) as wrong:
            client.post("/chat/completions", cast_to=object, body={"model": model, **body})
        assert wrong.value.type == "invalid_request_error" and field in wrong.value.message
    image = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]
    with pytest.raises(openai.BadRequestError, match="does not support vision"):
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": image}])
    with pytest.raises(openai.BadRequestError, match="exceeds the context"):
        ask(client, model, "word " * 5000)


def test_unknown_fields_are_passed_over(client, model):
    extra = {"service_tier": "auto", "something_new": {"a": [1]}}
    assert ask(client, model, user="u", store=True, extra_body=extra).choices[0].message.content


def test_leaving_a_stream_cancels_it(client, model, url):
    for _ in range(8):
        stream = ask(client, model, PROMPT, stream=True, extra_body={"ignore_eos": True}, max_tokens=900)
        for _, _chunk in zip(range(3), stream):
            pass
        stream.close()
    wait_until_idle(url)
    with pytest.raises((openai.APITimeoutError, httpx.TimeoutException)):
        client.with_options(timeout=0.05).chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": PROMPT}],
            max_tokens=900,
            extra_body={"ignore_eos": True},
        )
    wait_until_idle(url)
