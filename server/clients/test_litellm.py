"""The litellm package against the server, by each of the APIs that it speaks."""

import json
import os

# Prices and limits of models come with the package: nothing is fetched.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
import pytest
from conftest import chats, check_arguments, golden_call, schema_tool

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = "The capital of France is Paris."
APIS = ["openai", "ollama_chat", "anthropic"]


@pytest.fixture(params=APIS)
def api(request, url, model):
    """The arguments that lead to the server by one of the APIs."""
    base = url + "/v1" if request.param == "openai" else url
    return dict(model=f"{request.param}/{model}", api_base=base, api_key="none", max_retries=0, max_tokens=200)


def test_chat(api):
    answer = litellm.completion(messages=QUESTION, temperature=0, **api)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (ANSWER, "stop")
    assert answer.usage.total_tokens > 0


def test_streams(api):
    stream = litellm.completion(messages=QUESTION, temperature=0, stream=True, **api)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == ANSWER


@pytest.mark.parametrize("chat", chats(tools=True), ids=lambda c: c["messages"][-1]["content"][:30])
def test_golden_tools(api, chat):
    answer = litellm.completion(messages=chat["messages"], tools=chat["tools"], temperature=0, **api)
    message = answer.choices[0].message
    found = [(c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls or []]
    call = golden_call(chat)
    assert found == ([call] if call else [])
    assert (message.content or "") == ("" if call else chat["reply"])


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_forced_tools(url, model, name):
    base = url + "/v1" if name == "openai" else url
    answer = litellm.completion(
        model=f"{name}/{model}",
        api_base=base,
        api_key="none",
        messages=[{"role": "user", "content": "Hello!"}],
        tools=[schema_tool()],
        tool_choice="required",
        temperature=0,
        max_tokens=200,
    )
    (call,) = answer.choices[0].message.tool_calls
    check_arguments(json.loads(call.function.arguments))


def test_schemas(url, model):
    schema = schema_tool()["function"]["parameters"]
    format = {"type": "json_schema", "json_schema": {"name": "color", "schema": schema, "strict": True}}
    for name, base in (("openai", url + "/v1"), ("ollama_chat", url)):
        answer = litellm.completion(
            model=f"{name}/{model}",
            api_base=base,
            api_key="none",
            messages=[{"role": "user", "content": "Hello!"}],
            response_format=format,
            temperature=0,
        )
        check_arguments(json.loads(answer.choices[0].message.content))


def test_embeddings(url, model):
    for name, base in (("openai", url + "/v1"), ("ollama", url)):
        answer = litellm.embedding(model=f"{name}/{model}", input=["a fox", "a drum"], api_base=base, api_key="none")
        assert len(answer.data) == 2 and len(answer.data[0]["embedding"]) == len(answer.data[1]["embedding"])


def test_errors(api):
    api = {**api, "model": api["model"].rsplit("/", 1)[0] + "/nope"}
    with pytest.raises((litellm.NotFoundError, litellm.APIConnectionError)) as missing:
        litellm.completion(messages=QUESTION, **api)
    assert "not found" in str(missing.value)
