"""Codex, without its questions: text, a command that it runs, an image that its model cannot see, and its way through
`ir launch`."""

import pytest
from conftest import COMMAND, HELLO, TOLD
from images import DOT
from scripted import call

EXEC = ["exec", "--skip-git-repo-check", "--sandbox", "danger-full-access"]


def codex(workspace, server, model, *words):
    settings = {
        "model_provider": "ir",
        "model_providers.ir.name": "ir",
        "model_providers.ir.base_url": f"{server.url}/v1",
        "model_providers.ir.wire_api": "responses",
        "model_providers.ir.env_key": "IR_API_KEY",
    }
    flags = [word for key, value in settings.items() for word in ("-c", f'{key}="{value}"')]
    return workspace.run("codex", *EXEC, *flags, "--model", model, *words, IR_API_KEY="none")


def test_text(workspace, server, model, asked):
    assert codex(workspace, server, model(), "Say something").strip() == HELLO
    assert asked() == ["/v1/responses"]


@pytest.mark.parametrize("reasons", [False, True])
def test_a_command_runs_and_its_result_comes_back(workspace, server, caller, asked, reasons):
    name = caller("exec_command", reasons, cmd=COMMAND)
    assert codex(workspace, server, name, "Make it").strip() == TOLD
    assert workspace.made() and asked() == ["/v1/responses"] * 2
    # The session goes on with all that it holds.
    assert codex(workspace, server, name, "resume", "--last", "More").strip() == TOLD


def test_an_image_of_a_tool_is_a_line(workspace, server, model, asked):
    (workspace.folder / "dot.png").write_bytes(DOT)
    looks = ("',view_image,' in offered", call("view_image", path="dot.png"))
    name = model(("'image left out' in results", "I cannot see it."), looks)
    assert codex(workspace, server, name, "Look at dot.png").strip() == "I cannot see it."
    assert asked() == ["/v1/responses"] * 2


def test_launch(workspace, launch, caller):
    name = caller("exec_command", cmd=COMMAND)
    assert launch("codex", name, *EXEC, "Make it").strip() == TOLD
    assert workspace.made()
