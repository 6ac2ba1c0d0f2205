"""The openai package's responses against the server: whole and streamed, tools, schemas, errors."""

import json

import openai
import pytest
from conftest import chats, check_arguments, golden_call, schema_tool
from pydantic import BaseModel


@pytest.fixture(scope="module")
def client(url):
    return openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)


def flat(tool):
    """A chat's tool in the form of responses."""
    return {"type": "function", "strict": False, **tool["function"]}


def test_text(client, model):
    answer = client.responses.create(model=model, input="What is the capital of France?", temperature=0)
    assert answer.output_text == "The capital of France is Paris."
    assert (answer.status, answer.output[0].type, answer.error) == ("completed", "message", None)
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    short = client.responses.create(model=model, input="Tell me a story.", temperature=0, max_output_tokens=4)
    assert (short.status, short.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_every_event_of_a_stream(client, model):
    stream = client.responses.create(model=model, input="What is the capital of France?", temperature=0, stream=True)
    events = list(stream)
    assert [e.sequence_number for e in events] == list(range(len(events)))
    kinds = [e.type.removeprefix("response.") for e in events if e.type != "response.output_text.delta"]
    assert kinds == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == events[-1].response.output_text == "The capital of France is Paris."


def test_the_streams_helper(client, model):
    with client.responses.stream(model=model, input="Hello!", temperature=0) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == "Hello! How can I help you?"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("chat", chats(tools=True), ids=lambda c: c["messages"][-1]["content"][:30])
def test_golden_tools(client, model, chat, stream):
    tools = [flat(t) for t in chat["tools"]]
    answer = client.responses.create(model=model, input=chat["messages"], tools=tools, temperature=0, stream=stream)
    if stream:
        answer = list(answer)[-1].response
    found = [(i.name, json.loads(i.arguments)) for i in answer.output if i.type == "function_call"]
    call = golden_call(chat)
    assert found == ([call] if call else [])
    assert answer.output_text == ("" if call else chat["reply"])


def test_forced_tools_and_their_results(client, model):
    tools = [flat(schema_tool())]
    named = {"type": "function", "name": "pick_color"}
    for choice in ("required", named):
        answer = client.responses.create(model=model, input="Hello!", tools=tools, tool_choice=choice, temperature=0)
        (call,) = [i for i in answer.output if i.type == "function_call"]
        check_arguments(json.loads(call.arguments))
    turns = [{"role": "user", "content": "Hello!"}, *[i.model_dump(exclude_none=True) for i in answer.output]]
    turns.append({"type": "function_call_output", "call_id": call.call_id, "output": "red"})
    assert client.responses.create(model=model, input=turns, tools=tools, temperature=0).output_text


class Person(BaseModel):
    name: str
    age: int


def test_a_schema_becomes_a_model(client, model):
    answer = client.responses.parse(
        model=model, input="Give me JSON with name Tom and age 7.", text_format=Person, temperature=0
    )
    assert answer.output_parsed == Person(name="Tom", age=7)


def test_errors(client, model):
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="nope", input="x")
    with pytest.raises(openai.NotFoundError, match="resp_x"):
        client.responses.create(model=model, input="x", previous_response_id="resp_x")
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model=model, input="x", tools=[{"type": "web_search"}], tool_choice="required")


def test_responses_are_kept_and_gone_on_from(client, model):
    first = client.responses.create(model=model, input="What is the capital of France?", temperature=0)
    assert client.responses.retrieve(first.id).output_text == first.output_text
    second = client.responses.create(model=model, input="More", previous_response_id=first.id, max_output_tokens=5)
    assert second.previous_response_id == first.id
    whole = [{"role": "user", "content": "What is the capital of France?"}, *first.output, {"role": "user", "content": "More"}]
    whole = [item if isinstance(item, dict) else item.model_dump() for item in whole]
    answer = client.responses.create(model=model, input=whole, max_output_tokens=5)
    assert answer.usage.input_tokens == second.usage.input_tokens
    assert client.responses.input_tokens.count(model=model, input=whole).input_tokens == second.usage.input_tokens
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    tools = [{"type": "web_search"}, {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}]
    assert client.responses.create(model=model, input="x", tools=tools, max_output_tokens=5).id
