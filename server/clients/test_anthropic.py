"""The anthropic package against the server: messages, streams, tools, counts, errors."""

import anthropic
import pytest
from conftest import chats, check_arguments, golden_call, schema_tool, wait_until_idle

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
# The package has no argument for it any more; the address still knows it.
GREEDY = {"temperature": 0}
ANSWER = "The capital of France is Paris."


@pytest.fixture(scope="module")
def client(url):
    return anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)


def tool_of(tool):
    """A chat's tool in Anthropic's form."""
    function = tool["function"]
    more = {"description": function["description"]} if "description" in function else {}
    return {"name": function["name"], "input_schema": function["parameters"], **more}


def asked(chat):
    """A golden chat's turns, with the system's apart."""
    system = [m["content"] for m in chat["messages"] if m["role"] == "system"]
    turns = [m for m in chat["messages"] if m["role"] != "system"]
    return {"messages": turns, **({"system": system[0]} if system else {})}


@pytest.mark.parametrize("chat", chats(tools=False), ids=lambda c: c["messages"][-1]["content"][:30])
def test_golden_chats(client, model, chat):
    answer = client.messages.create(model=model, max_tokens=200, extra_body=GREEDY, **asked(chat))
    assert (answer.content[0].text, answer.stop_reason) == (chat["reply"], "end_turn")
    usage = answer.usage
    assert usage.input_tokens + usage.cache_read_input_tokens == len(chat["prompt_ids"])


def test_a_stream(client, model):
    with client.messages.stream(model=model, max_tokens=50, extra_body=GREEDY, messages=QUESTION) as stream:
        assert "".join(stream.text_stream) == ANSWER
        final = stream.get_final_message()
    assert (final.stop_reason, final.content[0].text) == ("end_turn", ANSWER) and final.usage.output_tokens > 0
    raw = client.messages.create(model=model, max_tokens=50, extra_body=GREEDY, messages=QUESTION, stream=True)
    kinds = [event.type for event in raw]
    assert kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 1


def test_stops_and_limits(client, model):
    stopped = client.messages.create(
        model=model, max_tokens=50, extra_body=GREEDY, messages=QUESTION, stop_sequences=["nowhere", " of"]
    )
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", " of")
    assert stopped.content[0].text == ANSWER.split(" of")[0]
    short = client.messages.create(model=model, max_tokens=3, extra_body=GREEDY, messages=QUESTION)
    assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 3)


def test_systems_and_prefills(client, model):
    system = [{"type": "text", "text": "You are ir-tiny.", "cache_control": {"type": "ephemeral"}}]
    turns = QUESTION + [{"role": "assistant", "content": "The capital of"}]
    answer = client.messages.create(model=model, max_tokens=50, extra_body=GREEDY, messages=turns, system=system)
    assert "The capital of" + answer.content[0].text == ANSWER


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("chat", chats(tools=True), ids=lambda c: c["messages"][-1]["content"][:30])
def test_golden_tools(client, model, chat, stream):
    wanted = dict(model=model, max_tokens=200, extra_body=GREEDY, tools=[tool_of(t) for t in chat["tools"]], **asked(chat))
    if stream:
        with client.messages.stream(**wanted) as events:
            answer = events.get_final_message()
    else:
        answer = client.messages.create(**wanted)
    call = golden_call(chat)
    if call is None:
        assert (answer.content[0].text, answer.stop_reason) == (chat["reply"], "end_turn")
    else:
        (block,) = answer.content
        assert (block.type, block.name, block.input, answer.stop_reason) == ("tool_use", *call, "tool_use")


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "pick_color"}])
def test_forced_tools_and_their_results(client, model, choice):
    tools = [tool_of(schema_tool())]
    turns = [{"role": "user", "content": "Hello!"}]
    common = dict(model=model, max_tokens=200, extra_body=GREEDY, tools=tools)
    answer = client.messages.create(messages=turns, tool_choice=choice, **common)
    (block,) = answer.content
    check_arguments(block.input)
    result = {"type": "tool_result", "tool_use_id": block.id, "content": "red"}
    turns += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    assert client.messages.create(messages=turns, tool_choice={"type": "none"}, **common).content[0].type == "text"


def test_counts(client, model):
    (chat,) = [c for c in chats(tools=False) if c["messages"] == QUESTION]
    assert client.messages.count_tokens(model=model, messages=QUESTION).input_tokens == len(chat["prompt_ids"])


def test_errors(client, model):
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.messages.create(model="nope", max_tokens=5, messages=QUESTION)
    assert missing.value.body["error"]["type"] == "not_found_error"
    image = [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}]
    with pytest.raises(anthropic.BadRequestError, match="does not support vision"):
        client.messages.create(model=model, max_tokens=5, messages=[{"role": "user", "content": image}])
    with pytest.raises(anthropic.BadRequestError, match="at least one message"):
        client.messages.create(model=model, max_tokens=5, messages=[])
    with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > \d+ maximum"):
        client.messages.create(model=model, max_tokens=5, messages=[{"role": "user", "content": "word " * 5000}])


def test_wishes_and_histories_that_a_model_cannot_follow_are_passed_over(client, model):
    thinking = {"type": "enabled", "budget_tokens": 1024}
    web = {"type": "web_search_20250305", "name": "web_search", "max_uses": 2}
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    history = [
        *QUESTION,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [image]}]},
    ]
    for more in ({"thinking": thinking}, {"tools": [web]}, {"messages": history}):
        answer = client.messages.create(**{"model": model, "max_tokens": 2048, "messages": QUESTION, **more})
        again = [*QUESTION, {"role": "assistant", "content": answer.content}, {"role": "user", "content": "More"}]
        assert client.messages.create(model=model, max_tokens=5, messages=again).content


def test_leaving_a_stream_cancels_it(client, model, url):
    story = [{"role": "user", "content": "Tell me a story."}]
    for _ in range(4):
        stream = client.messages.create(model=model, max_tokens=900, messages=story, stream=True)
        next(iter(stream))
        stream.close()
    wait_until_idle(url)
