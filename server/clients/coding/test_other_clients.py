"""Other coding clients, without their questions: each runs a command that the model calls for, and sends its result back."""

import json

import pytest
from conftest import COMMAND, HELLO, TOLD

CHAT = "/v1/chat/completions"


def test_opencode(workspace, server, caller, asked):
    name = caller("bash", command=COMMAND)
    options = {"baseURL": f"{server.url}/v1", "apiKey": "none"}
    models = {name: {"name": name, "limit": {"context": 131072, "output": 4096}}}
    provider = {"npm": "@ai-sdk/openai-compatible", "name": "ir", "options": options, "models": models}
    config = json.dumps({"model": f"ir/{name}", "provider": {"ir": provider}})
    env = {"OPENCODE_CONFIG_CONTENT": config, "OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1"}
    assert TOLD in workspace.run("opencode", "run", "Make it", **env)
    assert workspace.made() and asked().count(CHAT) >= 2


def test_cline(workspace, server, caller, asked):
    name = caller("run_commands", commands=[COMMAND])
    auth = ["-p", "openai-compatible", "-k", "none", "-m", name, "-b", f"{server.url}/v1"]
    workspace.run("cline", "auth", *auth)
    # No process of its own stays behind.
    assert TOLD in workspace.run("cline", "Make it", CLINE_SESSION_BACKEND_MODE="local")
    assert workspace.made() and asked().count(CHAT) >= 2


def test_continue(workspace, server, caller, asked):
    name = caller("Bash", command=COMMAND)
    entry = {"name": name, "provider": "openai", "model": name, "apiBase": f"{server.url}/v1", "apiKey": "none"}
    entry |= {"roles": ["chat", "edit", "apply"], "capabilities": ["tool_use"]}
    config = workspace.home / "config.yaml"
    # JSON is YAML too.
    config.write_text(json.dumps({"name": "ir", "version": "1.0.0", "schema": "v1", "models": [entry]}))
    said = workspace.run("cn", "--config", config, "--auto", "-p", "Make it", CONTINUE_TELEMETRY_ENABLED="0")
    assert TOLD in said and workspace.made() and asked().count(CHAT) >= 2


@pytest.mark.parametrize(
    ("base", "more", "path"),
    [
        ("/v1", {}, CHAT),
        ("/v1", {"COPILOT_PROVIDER_WIRE_API": "responses"}, "/v1/responses"),
        ("", {"COPILOT_PROVIDER_TYPE": "anthropic"}, "/v1/messages"),
    ],
    ids=["chat", "responses", "messages"],
)
def test_copilot_with_a_key_of_its_own(workspace, server, caller, asked, base, more, path):
    name = caller("bash", command=COMMAND, description="Makes a file")
    env = {"COPILOT_PROVIDER_BASE_URL": server.url + base, "COPILOT_PROVIDER_API_KEY": "none", "COPILOT_MODEL": name}
    said = workspace.run("copilot", "-p", "Make it", "--allow-all-tools", COPILOT_OFFLINE="true", **env, **more)
    assert TOLD in said and workspace.made() and asked().count(path) >= 2


def test_qwen_code(workspace, server, caller, asked):
    name = caller("run_shell_command", command=COMMAND, is_background=False)
    env = {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": "none", "OPENAI_MODEL": name}
    assert TOLD in workspace.run("qwen", "--auth-type", "openai", "--yolo", "-p", "Make it", **env)
    assert workspace.made() and asked().count(CHAT) >= 2


def test_aider(workspace, server, model, asked):
    # It knows no tools: files come as text.
    name = model(("'Make' in asked", "Here it is.\n\nmade.txt\n```\nmarker-7\n```\n"))
    env = {"OPENAI_API_BASE": f"{server.url}/v1", "OPENAI_API_KEY": "none", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    quiet = ["--no-check-update", "--no-show-model-warnings", "--no-git", "--yes-always", "--no-analytics"]
    for words, said in (("Make it", "Here it is."), ("Say something", HELLO)):
        assert said in workspace.run("aider", "--model", f"openai/{name}", *quiet, "--message", words, **env)
    assert workspace.made() and asked().count(CHAT) >= 2


BASH = {"command": COMMAND}
# By the name that `ir launch` knows: the tool, its arguments, the words that ask, and what keeps the client to itself.
LAUNCHED = {
    "cline": ("run_commands", {"commands": [COMMAND]}, ["Make it"], {"CLINE_SESSION_BACKEND_MODE": "local"}),
    "continue": ("Bash", BASH, ["--auto", "-p", "Make it"], {"CONTINUE_TELEMETRY_ENABLED": "0"}),
    "copilot": ("bash", {**BASH, "description": "Makes a file"}, ["-p", "Make it", "--allow-all-tools"], {}),
    "opencode": ("bash", BASH, ["run", "Make it"], {"OPENCODE_DISABLE_MODELS_FETCH": "1"}),
    "qwen": ("run_shell_command", {**BASH, "is_background": False}, ["--yolo", "-p", "Make it"], {}),
}


@pytest.mark.parametrize("client", LAUNCHED)
def test_launch(workspace, launch, caller, asked, client):
    tool, arguments, words, env = LAUNCHED[client]
    assert TOLD in launch(client, caller(tool, **arguments), *words, **env)
    assert workspace.made() and asked().count(CHAT) >= 2


def test_launch_of_aider(launch, model):
    quiet = ["--no-check-update", "--no-show-model-warnings", "--no-git", "--yes-always", "--no-analytics"]
    assert HELLO in launch("aider", model(), *quiet, "--message", "Say something")
