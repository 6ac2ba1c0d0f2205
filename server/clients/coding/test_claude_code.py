"""Claude Code, without its questions: text, a command that it runs, a conversation that goes on, an image that its model cannot
see, a search of the web that no host is there for, and its way through `ir launch`."""

import pytest
from conftest import COMMAND, HELLO, TOLD
from images import DOT
from scripted import call

# The tool that runs commands wants to be told what they do.
BASH = {"command": COMMAND, "description": "Makes a file"}


def claude(workspace, server, model, *words):
    kinds = {f"ANTHROPIC_DEFAULT_{kind}_MODEL": model for kind in ("OPUS", "SONNET", "HAIKU")}
    env = {
        "ANTHROPIC_BASE_URL": server.url,
        "ANTHROPIC_AUTH_TOKEN": "none",
        "ANTHROPIC_MODEL": model,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_CONTEXT_TOKENS": "131072",
    }
    return workspace.run("claude", *words, **env, **kinds).strip()


def test_text(workspace, server, model, asked):
    assert claude(workspace, server, model(), "-p", "Say something") == HELLO
    assert set(asked()) == {"/v1/messages"}


@pytest.mark.parametrize("reasons", [False, True])
def test_a_command_runs_and_its_result_comes_back(workspace, server, caller, asked, reasons):
    assert claude(workspace, server, caller("Bash", reasons, **BASH), "-p", "Make it", "--allowedTools", "Bash") == TOLD
    assert workspace.made() and asked().count("/v1/messages") >= 2


def test_a_conversation_goes_on(workspace, server, model, asked):
    earlier = "'More' in asked and 'Say something' in (messages | map(attribute='content') | join(' '))"
    name = model((earlier, "There was a turn before."))
    assert claude(workspace, server, name, "-p", "Say something") == HELLO
    assert claude(workspace, server, name, "-c", "-p", "More") == "There was a turn before."
    assert asked().count("/v1/messages") >= 2


def test_an_image_of_a_tool_is_a_line(workspace, server, model, asked):
    (workspace.folder / "dot.png").write_bytes(DOT)
    reads = ("',Read,' in offered", call("Read", file_path=str(workspace.folder / "dot.png")))
    name = model(("'image left out' in results", "I cannot see it."), reads)
    assert claude(workspace, server, name, "-p", "Look", "--allowedTools", "Read") == "I cannot see it."
    assert asked().count("/v1/messages") >= 2


def test_a_search_of_the_web_is_answered_as_text(workspace, server, model, asked):
    # The tool is offered when it has been looked for, and it asks the model itself, with a tool that the host would run.
    name = model(
        ("'Perform a web search' in asked", "There is nothing to search with."),
        ("'nothing to search with' in results", "I found nothing."),
        ("',WebSearch,' in offered", call("WebSearch", query="foxes")),
        ("',ToolSearch,' in offered", call("ToolSearch", query="select:WebSearch", max_results=3)),
    )
    said = claude(workspace, server, name, "-p", "Search", "--allowedTools", "WebSearch", "ToolSearch")
    assert said == "I found nothing." and asked().count("/v1/messages") >= 4


def test_launch(workspace, launch, caller):
    name = caller("Bash", **BASH)
    assert launch("claude", name, "-p", "Make it", "--allowedTools", "Bash").strip() == TOLD
    assert workspace.made()
