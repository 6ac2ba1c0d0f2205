"""Frameworks of Python: each runs a tool that the model calls for and goes on with its result, and reads an answer into a type."""

import asyncio
import os

import instructor
import pytest
from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool
from conftest import HELLO, NOWHERE
from langchain.agents import create_agent
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel as PydanticResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from scripted import call

os.environ |= {"OPENAI_AGENTS_DISABLE_TRACING": "1", "LANGSMITH_TRACING": "false", "NO_PROXY": "127.0.0.1"}
os.environ |= {"HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE}

ASK = "What is the weather in Paris?"
WEATHER = "clouds-over-Paris"
TOLD = f"It says {WEATHER}, so take a coat."


class City(BaseModel):
    """A city."""

    name: str
    people: int


PARIS = City(name="Paris", people=2)


@pytest.fixture()
def teller(model):
    """A model that asks for the weather, and tells of it."""
    wanted = "'weather' in asked and ',get_weather,' in offered"
    return model((f"'{WEATHER}' in results", TOLD), (wanted, call("get_weather", city="Paris")))


def weather(city: str) -> str:
    """The weather in a city.

    Args:
        city: its name.
    """
    return f"clouds-over-{city}"


weather.__name__ = "get_weather"


@pytest.mark.parametrize("kind", [OpenAIChatCompletionsModel, OpenAIResponsesModel])
@pytest.mark.parametrize("stored", [True, False])
def test_openai_agents(server, teller, asked, kind, stored):
    client = AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    model = kind(model=teller, openai_client=client)
    agent = Agent(name="a", instructions="Help.", model=model, tools=[function_tool(weather)])
    agent.model_settings = ModelSettings(store=stored)

    async def talk():
        first = await Runner.run(agent, ASK)
        turns = [*first.to_input_list(), {"role": "user", "content": "Thanks"}]
        return first, await Runner.run(agent, turns)

    first, second = asyncio.run(talk())
    assert (first.final_output, second.final_output) == (TOLD, TOLD) and len(asked()) == 3


def test_openai_agents_go_on_from_a_stored_response(server, teller, asked):
    client = AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    model = OpenAIResponsesModel(model=teller, openai_client=client)
    agent = Agent(name="a", instructions="Help.", model=model, tools=[function_tool(weather)])

    async def talk():
        first = Runner.run_streamed(agent, ASK, auto_previous_response_id=True)
        kinds = [event.type async for event in first.stream_events()]
        second = await Runner.run(agent, "Thanks", previous_response_id=first.last_response_id)
        return kinds, first, second

    kinds, first, second = asyncio.run(talk())
    assert (first.final_output, second.final_output) == (TOLD, TOLD) and "run_item_stream_event" in kinds
    assert asked() == ["/v1/responses"] * 3


def test_openai_with_store(server, teller, asked):
    client = OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools = [{"type": "function", "name": "get_weather", "parameters": parameters, "strict": False}]
    first = client.responses.create(model=teller, input=ASK, tools=tools, store=True)
    (called,) = first.output
    result = {"type": "function_call_output", "call_id": called.call_id, "output": weather("Paris")}
    second = client.responses.create(model=teller, input=[result], tools=tools, previous_response_id=first.id, store=True)
    assert second.output_text == TOLD
    assert client.responses.retrieve(second.id).output_text == TOLD
    assert len(client.responses.input_items.list(second.id).data) >= 1
    client.responses.delete(first.id)
    chat = client.chat.completions.create(model=teller, messages=[{"role": "user", "content": "Hi"}], store=True)
    assert chat.choices[0].message.content == HELLO and len(asked()) == 6


@pytest.mark.parametrize("kind", ["chat", "responses", "ollama"])
@pytest.mark.parametrize("stream", [False, True])
def test_langchain(server, teller, asked, kind, stream):
    if kind == "ollama":
        model = ChatOllama(model=teller, base_url=server.url)
    else:
        options = {"use_responses_api": kind == "responses", "api_key": "none", "base_url": f"{server.url}/v1"}
        model = ChatOpenAI(model=teller, max_retries=0, **options)
    agent = create_agent(model, tools=[weather], system_prompt="Help.")
    turns = [{"role": "user", "content": ASK}]
    if stream:
        *_, state = agent.stream({"messages": turns}, stream_mode="values")
    else:
        state = agent.invoke({"messages": turns})
    assert state["messages"][-1].text == TOLD
    again = agent.invoke({"messages": [*state["messages"], {"role": "user", "content": "Thanks"}]})
    assert again["messages"][-1].text == TOLD and len(asked()) >= 3


@pytest.mark.parametrize("kind", ["chat", "responses", "messages"])
def test_pydantic_ai(server, teller, model, asked, kind):
    if kind == "messages":
        made = AnthropicModel(teller, provider=AnthropicProvider(base_url=server.url, api_key="none"))
    else:
        form = OpenAIChatModel if kind == "chat" else PydanticResponsesModel
        made = form(teller, provider=OpenAIProvider(base_url=f"{server.url}/v1", api_key="none"))
    agent = PydanticAgent(made, tools=[weather], instructions="Help.")
    first = agent.run_sync(ASK)
    assert first.output == TOLD
    assert agent.run_sync("Thanks", message_history=first.all_messages()).output == TOLD
    # A type is asked for as a call of a tool.
    model(("',final_result,' in offered", call("final_result", **PARIS.model_dump())))
    assert PydanticAgent(made, output_type=City).run_sync("Paris?").output == PARIS
    assert len(asked()) == 4


@pytest.mark.parametrize("mode", [instructor.Mode.TOOLS, instructor.Mode.JSON, instructor.Mode.JSON_SCHEMA])
def test_instructor(server, model, asked, mode):
    text = PARIS.model_dump_json()
    name = model(("',City,' in offered", call("City", **PARIS.model_dump())), ("not tools", text))
    client = instructor.from_openai(OpenAI(base_url=f"{server.url}/v1", api_key="none"), mode=mode)
    wanted = {"model": name, "messages": [{"role": "user", "content": "Paris?"}], "response_model": City}
    assert client.chat.completions.create(max_retries=0, **wanted).model_dump() == PARIS.model_dump()
    assert len(asked()) == 1


def test_smolagents(server, model, asked):
    from smolagents import CodeAgent, OpenAIServerModel, ToolCallingAgent, tool

    code = "Thought: ask.\n<code>\nfinal_answer(get_weather('Paris') + '!')\n</code>"
    name = model(
        (f"'{WEATHER}' in results or '{WEATHER}' in asked", call("final_answer", answer=TOLD)),
        ("',get_weather,' in offered", call("get_weather", city="Paris")),
        ("not tools", code),
    )
    made = OpenAIServerModel(name, api_base=f"{server.url}/v1", api_key="none")
    assert ToolCallingAgent([tool(weather)], made).run(ASK, max_steps=4) == TOLD
    assert CodeAgent([tool(weather)], made).run(ASK, max_steps=4) == f"{WEATHER}!"
    assert len(asked()) >= 3
