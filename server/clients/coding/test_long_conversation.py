"""A long conversation of Claude Code's shape: turn 20 at 30,000 tokens computes what is new, and so does the turn after a restart
of the server. It prints what was reused and how long the first token took."""

import json
import struct
import time
import urllib.request

import pytest
from conftest import Server
from gguf_edit import TINY, edit

CONTEXT = 65536
REUSED = 0.95
TURNS = 20
# About 5,000 tokens of directions, 5,000 of tools, and 1,000 of every result.
RULE = "Read a file before you change it, and say in one sentence what was changed and why it was. "
LINE = "{n}: the fox looked into the wood and saw that the drum was there\n"


def longer(meta):
    """A change of metadata: a context that such a conversation fits into."""
    meta["llama.context_length"] = struct.pack("<I", CONTEXT)


def tool(i):
    properties = {"color": {"type": "string", "enum": ["red", "green"]}, "count": {"type": "integer", "enum": [1, 2]}}
    schema = {"type": "object", "properties": properties, "required": ["color", "count"], "additionalProperties": False}
    return {"name": f"tool_{i}", "description": RULE * 12, "input_schema": schema}


class Talk:
    """The conversation, as the client keeps it: it sends all of it each time."""

    def __init__(self):
        self.messages, self.sent = [], 0
        self.user([{"type": "text", "text": "<system-reminder>\nBe brief.\n</system-reminder>"}, {"type": "text", "text": "Go on."}])
        self.messages.append({"role": "system", "content": [{"type": "text", "text": RULE * 20}]})

    def user(self, content):
        self.messages.append({"role": "user", "content": content})

    def body(self):
        """What is sent next. A line of the client's own about itself is another each time, and the last block is marked."""
        self.sent += 1
        billing = f"x-anthropic-billing-header: cc_version=2.1.332; cc_entrypoint=sdk-cli; cch={self.sent:05x};"
        marked = {"cache_control": {"type": "ephemeral"}}
        system = [{"type": "text", "text": billing}, {"type": "text", "text": RULE * 150, **marked}]
        messages = json.loads(json.dumps(self.messages))
        messages[-1]["content"][-1] |= marked
        return {
            "model": "long",
            "max_tokens": 64,
            "temperature": 0,
            "stream": True,
            "system": system,
            "tools": [tool(i) for i in range(12)],
            "tool_choice": {"type": "any"},
            "messages": messages,
        }

    def turn(self, server):
        """Asks, and takes in the call and its result. Tokens of the prompt, how many were found, and seconds to the first token."""
        usage, first, call = events(server.url, self.body())
        self.messages.append({"role": "assistant", "content": [call]})
        lines = "".join(LINE.format(n=n) for n in range(45))
        self.user([{"type": "tool_result", "tool_use_id": call["id"], "content": [{"type": "text", "text": f"{self.sent}\n{lines}"}]}])
        found = usage["cache_read_input_tokens"]
        return found + usage["input_tokens"], found, first


def events(url, body):
    """Usage, seconds to the first block and the call of a streamed answer."""
    request = urllib.request.Request(f"{url}/v1/messages?beta=true", json.dumps(body).encode())
    usage, first, call, written = {}, None, None, ""
    begun = time.monotonic()
    with urllib.request.urlopen(request, timeout=300) as answer:
        for line in answer:
            if not line.startswith(b"data: "):
                continue
            event = json.loads(line[6:])
            if event["type"] == "content_block_start":
                first, call = time.monotonic() - begun, event["content_block"]
            if event["type"] == "content_block_delta":
                written += event["delta"].get("partial_json", "")
            if event["type"] == "message_delta":
                usage = event["usage"]
    assert call["type"] == "tool_use", call
    return usage, first, {**call, "input": json.loads(written)}


@pytest.fixture()
def started(tmp_path):
    """A function that starts a server on a folder that outlives it."""
    running = []

    def start():
        server = Server(tmp_path, "--cache-dir", str(tmp_path / "cache"))
        (server.models / "long.gguf").write_bytes(edit(TINY.read_bytes(), longer))
        running.append(server)
        return server

    yield start
    for server in running:
        server.process.kill()


def test_a_turn_computes_what_is_new(started, capsys):
    talk, server = Talk(), started()
    seen = {}
    for n in range(1, TURNS + 1):
        seen[f"turn {n}"] = talk.turn(server)
    server.end()
    server = started()
    seen["after a restart"] = talk.turn(server)
    server.end()
    with capsys.disabled():
        for name in ("turn 1", f"turn {TURNS}", "after a restart"):
            prompt, found, first = seen[name]
            print(f"\n{name}: {found} of {prompt} tokens reused, first token after {first:.2f} s", end="")
    for name in (f"turn {TURNS}", "after a restart"):
        prompt, found, _ = seen[name]
        assert prompt > 30_000 and found >= REUSED * prompt, (name, seen[name])
