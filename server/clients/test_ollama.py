"""The ollama package against the server: generation, chats, tools, schemas, embeddings, models, errors, cancelling."""

import asyncio
import json

import ollama
import pytest
from conftest import chats, check_arguments, golden_call, post, schema_tool, wait_until_idle
from pydantic import BaseModel

GREEDY = {"temperature": 0}
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = "The capital of France is Paris."


@pytest.fixture(scope="module")
def client(url):
    return ollama.Client(host=url)


@pytest.mark.parametrize("chat", chats(tools=False), ids=lambda c: c["messages"][-1]["content"][:30])
def test_golden_chats(client, model, chat):
    answer = client.chat(model, chat["messages"], options=GREEDY)
    assert (answer.message.content, answer.done_reason) == (chat["reply"], "stop")
    assert (answer.prompt_eval_count, answer.eval_count) == (len(chat["prompt_ids"]), len(chat["reply_ids"]))
    assert answer.total_duration >= answer.eval_duration > 0


def test_generation_whole_and_streamed(client, model):
    prompt = QUESTION[0]["content"]
    whole = client.generate(model, prompt, options=GREEDY)
    assert whole.response == ANSWER and whole.context
    pieces = list(client.generate(model, prompt, options=GREEDY, stream=True))
    # How many pieces an answer comes in depends on how fast it is read: one at least, and the end.
    assert "".join(p.response for p in pieces) == ANSWER and len(pieces) > 1
    assert pieces[-1].done and not any(p.done for p in pieces[:-1])
    short = client.generate(model, prompt, options={**GREEDY, "num_predict": 2})
    assert (short.done_reason, short.eval_count) == ("length", 2)


def test_a_context_goes_on(client, model):
    first = client.generate(model, "My name is Mia.", options=GREEDY)
    second = client.generate(model, "What is my name?", context=first.context, options=GREEDY)
    assert second.response == "Your name is Mia."


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("chat", chats(tools=True), ids=lambda c: c["messages"][-1]["content"][:30])
def test_golden_tools(client, model, chat, stream):
    answer = client.chat(model, chat["messages"], tools=chat["tools"], options=GREEDY, stream=stream)
    parts = list(answer) if stream else [answer]
    calls = [(c.function.name, dict(c.function.arguments)) for p in parts for c in p.message.tool_calls or []]
    text = "".join(p.message.content or "" for p in parts)
    call = golden_call(chat)
    assert (text, calls) == (("", [call]) if call else (chat["reply"], []))


def test_functions_as_tools(client, model):
    def set_timer(minutes: int) -> str:
        """Set a timer

        Args:
            minutes: How long
        """
        return f"{minutes} minutes"

    asked = [{"role": "user", "content": "Set a timer for 17 minutes."}]
    answer = client.chat(model, asked, tools=[set_timer], options=GREEDY)
    (call,) = answer.message.tool_calls
    assert set_timer(**call.function.arguments) == "17 minutes"
    turns = [*asked, answer.message, {"role": "tool", "tool_name": "set_timer", "content": "done"}]
    assert client.chat(model, turns, tools=[set_timer], options=GREEDY).message.content


class Person(BaseModel):
    name: str
    age: int


def test_a_schema_becomes_a_model(client, model):
    asked = [{"role": "user", "content": "Give me JSON with name Tom and age 7."}]
    answer = client.chat(model, asked, format=Person.model_json_schema(), options=GREEDY)
    assert Person.model_validate_json(answer.message.content) == Person(name="Tom", age=7)
    parameters = schema_tool()["function"]["parameters"]
    answer = client.generate(model, "Hello!", format=parameters, options=GREEDY)
    check_arguments(json.loads(answer.response))
    answer = client.generate(model, "Give me JSON with name Tom and age 7.", format="json", options=GREEDY)
    assert json.loads(answer.response) == {"name": "Tom", "age": 7}


def test_log_probabilities(client, model):
    answer = client.chat(model, QUESTION, options=GREEDY, logprobs=True, top_logprobs=2)
    assert "".join(t.token for t in answer.logprobs).startswith(ANSWER)
    assert all(len(t.top_logprobs) == 2 and t.top_logprobs[0].token == t.token for t in answer.logprobs)


def test_embeddings(client, model):
    answer = client.embed(model, ["a fox", "a drum"])
    assert len(answer.embeddings) == 2 and answer.prompt_eval_count > 0
    for vector in answer.embeddings:
        assert sum(v * v for v in vector) == pytest.approx(1, abs=1e-4)
    short = client.embed(model, "a fox", dimensions=16).embeddings[0]
    assert len(short) == 16 and sum(v * v for v in short) == pytest.approx(1, abs=1e-4)
    old = client.embeddings(model, "a fox").embedding
    assert len(old) == len(answer.embeddings[0])


def test_models(client, model):
    assert model in [m.model for m in client.list().models]
    shown = client.show(model)
    assert {"completion", "tools"} <= set(shown.capabilities) and shown.modelinfo["general.architecture"]
    client.generate(model, "Hello!", options={"num_predict": 1}, keep_alive="10m")
    (running,) = [m for m in client.ps().models if m.model == model]
    assert running.context_length > 0 and running.size > 0


def test_loading_and_unloading(client, model):
    assert client.generate(model).done_reason == "load"
    assert client.generate(model, keep_alive=0).done_reason == "unload"
    assert model not in [m.model for m in client.ps().models]


def test_errors(client, model, url):
    with pytest.raises(ollama.ResponseError) as missing:
        client.chat("nope", QUESTION)
    assert missing.value.status_code == 404 and "model 'nope' not found" in missing.value.error
    with pytest.raises(ollama.ResponseError, match="does not support vision"):
        client.generate(model, "x", images=[b"\x89PNG\r\n\x1a\n"])
    with pytest.raises(ollama.ResponseError, match="does not support thinking"):
        client.chat(model, QUESTION, think=True)
    with pytest.raises(ollama.ResponseError, match="is in this program"):
        client.delete(model)
    status, answer = post(url, "/api/chat", b"{")
    assert status == 400 and isinstance(answer["error"], str)


def test_leaving_a_stream_cancels_it(model, url):
    async def leave():
        client = ollama.AsyncClient(host=url)
        stream = await client.generate(model, "Tell me a story.", raw=True, stream=True, options={"num_predict": 900})
        async for _ in stream:
            break
        await stream.aclose()

    async def all_of_them():
        await asyncio.gather(*(leave() for _ in range(8)))

    asyncio.run(all_of_them())
    wait_until_idle(url)
