"""What the tests with real clients share: where the server is, ir-tiny's golden chats, what is running.

The server is given, not started here: IR_URL says where it is, IR_MODEL which model is asked (ir-tiny as a rule).
"""

import json
import os
import pathlib
import time
import urllib.request

import pytest

MODEL = os.environ.get("IR_MODEL", "ir-tiny")

# The gap between the two likeliest tokens from which on a 4-bit file agrees with the reference.
CLEAR = 0.3

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "engine" / "models" / "ir-tiny" / "golden.json"


@pytest.fixture(scope="session")
def url():
    """The server's address without a slash at its end."""
    return os.environ["IR_URL"].rstrip("/")


@pytest.fixture(scope="session")
def model():
    """The model's name."""
    return MODEL


def chats(tools):
    """Golden chats that are clear of near-ties: those with tools, or those without."""
    all_chats = json.loads(GOLDEN.read_text())["chats"]
    return [c for c in all_chats if c["min_margin"] > CLEAR and bool(c.get("tools")) == tools]


def golden_call(chat):
    """The call in a golden answer: name and arguments; None if the answer is text.

    A call of a tool that is not there, as this small model makes them, is held to one that is.
    """
    reply = chat["reply"]
    if not reply.startswith("<tool_call>"):
        return None
    call = json.loads(reply.removeprefix("<tool_call>").removesuffix("</tool_call>"))
    names = [tool["function"]["name"] for tool in chat["tools"]]
    return call["name"] if call["name"] in names else names[0], call["arguments"]


def schema_tool(name="pick_color"):
    """A tool that ir-tiny never saw, with arguments that only a grammar makes it give."""
    color = {"type": "string", "enum": ["red", "green", "blue"]}
    parameters = {
        "type": "object",
        "properties": {"color": color, "count": {"type": "integer"}},
        "required": ["color", "count"],
    }
    return {"type": "function", "function": {"name": name, "description": "Picks", "parameters": parameters}}


def check_arguments(arguments):
    """Fails where arguments are not those of `schema_tool`."""
    assert set(arguments) == {"color", "count"}, arguments
    assert arguments["color"] in ("red", "green", "blue") and isinstance(arguments["count"], int), arguments


def post(url, path, body):
    """Status and JSON of a bare request."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data=data)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def wait_until_idle(url, seconds=60):
    """Fails where requests are still running after this time."""
    end = time.monotonic() + seconds
    while True:
        with urllib.request.urlopen(url + "/metrics", timeout=10) as response:
            text = response.read().decode()
        running = [line for line in text.splitlines() if line.startswith("llamacpp:requests_processing")]
        assert running, "no gauge of running requests among the metrics"
        if float(running[0].split()[-1]) == 0:
            return
        assert time.monotonic() < end, running
        time.sleep(0.1)
