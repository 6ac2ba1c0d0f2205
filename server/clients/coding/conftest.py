"""What the tests with coding clients share: a server of their own, models that say what a test wants, and clients in an emptied
environment.

IR_BIN names the program `ir`, IR_CODING_CLIENTS the folders with the clients' programs (as PATH does).
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import pytest

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent), str(pathlib.Path(__file__).resolve().parents[1])]

import scripted as models  # noqa: E402

SYSTEM = "/usr/local/bin:/usr/bin:/bin"
# Nothing but this machine can be reached by it.
NOWHERE = "http://127.0.0.1:9"

# What the tool of a client is made to do, and what the model says when it has read the result.
COMMAND = "echo marker-$((3+4)) | tee made.txt"
MARK = "marker-7"
TOLD = f"The tool wrote {MARK}, and that is all."
HELLO = "Nothing was asked for."


class Server:
    """`ir serve` on a free port, with a folder of models and one of its own files."""

    def __init__(self, folder, *flags):
        self.models, self.log = folder / "models", folder / "log"
        self.models.mkdir(exist_ok=True)
        command = [os.environ["IR_BIN"], "serve", "--addr", "127.0.0.1:0", "--models", str(self.models), "--log", "info"]
        command += ["--hub", NOWHERE, "--registry", NOWHERE, *flags]
        env = {"HOME": str(folder), "PATH": SYSTEM}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=log)
        self.url = self._address()

    def _address(self):
        for _ in range(300):
            if found := re.search(r"http://127\.0\.0\.1:\d+", self.log.read_text()):
                return found[0]
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)
        raise AssertionError("the server did not start")

    def requests(self):
        """Path and status of every request that was answered so far."""
        lines = re.findall(r'answered method="\w+" path="([^"?]*)[^"]*" status=(\d+)', self.log.read_text())
        return [(path, int(status)) for path, status in lines]

    def end(self):
        self.process.terminate()
        assert self.process.wait(timeout=60) == 0
        assert "panicked" not in self.log.read_text()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The server that clients ask."""
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.end()


@pytest.fixture()
def asked(server):
    """A function that tells which addresses a test asked, and fails where one of them was answered with an error."""
    before = len(server.requests())

    def asked():
        new = server.requests()[before:]
        assert all(status < 400 for _, status in new), new
        return [path for path, _ in new]

    return asked


@pytest.fixture()
def model(server, request):
    """A function that makes a model of the test's name; it takes pairs of a condition and an answer, and whether it reasons."""

    def make(*answers, reasons=False):
        name = re.sub(r"\W+", "-", request.node.name).strip("-")
        models.write(server.models / f"{name}.gguf", [*answers, ("true", HELLO)], reasons)
        return name

    return make


@pytest.fixture()
def caller(model):
    """A function that makes a model that calls a tool when it is asked to make something, and then tells of the result; one that
    reasons wants its thoughts back."""

    def make(tool, reasons=False, **arguments):
        wanted = f"'Make' in asked and ',{tool},' in offered"
        back = f"'{MARK}' in results" + (f" and '{models.THOUGHT}' in thoughts" if reasons else "")
        return model((back, TOLD), (wanted, models.call(tool, **arguments)), reasons=reasons)

    return make


class Workspace:
    """A folder to work in and a home, both empty, and the programs of clients."""

    def __init__(self, folder):
        self.home, self.folder = folder / "home", folder / "work"
        self.home.mkdir()
        self.folder.mkdir()

    def run(self, *command, seconds=300, **env):
        """What a client writes, which ends well within the time."""
        path = f"{os.environ['IR_CODING_CLIENTS']}:{SYSTEM}"
        if not shutil.which(command[0], path=path):
            pytest.skip(f"{command[0]} is not on this machine")
        away = {f"{scheme}_proxy": NOWHERE for scheme in ("http", "https")}
        base = {"HOME": str(self.home), "PATH": path, "TERM": "dumb", "LANG": "C.UTF-8", "NO_PROXY": "127.0.0.1", **away}
        base |= {name.upper(): value for name, value in away.items()} | env
        given = {"cwd": self.folder, "env": base, "stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
        ran = subprocess.run([str(word) for word in command], timeout=seconds, check=False, **given)
        assert ran.returncode == 0, f"{command[0]} ended with {ran.returncode}\n{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}"
        return ran.stdout

    def made(self):
        """Whether the tool of a client ran."""
        return (self.folder / "made.txt").read_text().strip() == MARK


@pytest.fixture()
def workspace(tmp_path):
    return Workspace(tmp_path)


@pytest.fixture()
def launch(workspace, server):
    """A function that starts a client through `ir launch`."""

    def launch(client, model, *words, **env):
        flags = ["--yes", "--model", model, "--addr", server.url.removeprefix("http://")]
        return workspace.run(os.environ["IR_BIN"], "launch", client, *flags, "--", *words, **env)

    return launch
