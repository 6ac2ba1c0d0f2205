"""The ollama package and the models of the store: pull, list, show, copy, create, delete, push, files that are sent; and what
other programs keep, found in place. IR_HUB_URL says where the small hub and registry is that the server was started with,
IR_HF_CACHE and IR_OLLAMA_STORE are folders that it was told of."""

import hashlib
import json
import os
import pathlib
import shutil

import ollama
import pytest

TINY = pathlib.Path(__file__).resolve().parents[2] / "engine" / "models" / "ir-tiny" / "ir-tiny-q4_0.gguf"

pytestmark = pytest.mark.skipif("IR_HUB_URL" not in os.environ, reason="the server knows no hub on this machine")


@pytest.fixture(scope="module")
def client(url):
    return ollama.Client(host=url)


@pytest.fixture()
def fox(client):
    client.pull("fox")
    yield "fox"
    for model in client.list().models:
        if model.model.startswith(("fox", "reynard", "sent", "127.0.0.1")):
            client.delete(model.model)


def names(client):
    return [m.model for m in client.list().models]


def test_a_model_is_pulled_with_its_progress(client):
    steps = list(client.pull("fox", stream=True))
    assert (steps[0].status, steps[-1].status) == ("pulling manifest", "success")
    moving = [s for s in steps if s.digest and s.total]
    assert moving and moving[-1].completed == moving[-1].total
    assert client.pull("fox").status == "success"
    client.delete("fox")
    assert "fox:latest" not in names(client)
    with pytest.raises(ollama.ResponseError) as gone:
        client.delete("fox")
    assert gone.value.status_code == 404


def test_it_is_listed_shown_and_asked(client, fox):
    (listed,) = [m for m in client.list().models if m.model == "fox:latest"]
    assert listed.size > TINY.stat().st_size and len(listed.digest) == 64 and listed.modified_at
    assert listed.details.family and listed.details.parameter_size
    shown = client.show(fox)
    assert shown.parameters.split() == ["top_k", "7"] and "FROM fox" in shown.modelfile
    assert {"completion", "tools"} <= set(shown.capabilities) and shown.modelinfo["general.architecture"]
    answer = client.chat(fox, [{"role": "user", "content": "Hello!"}], options={"temperature": 0, "num_predict": 4})
    assert answer.eval_count > 0
    assert "fox:latest" in [m.model for m in client.ps().models]


def test_it_is_copied_and_made_into_others(client, fox):
    client.copy(fox, "reynard")
    assert "reynard:latest" in names(client)
    made = client.create(
        "reynard:sly",
        from_=fox,
        system="You are sly.",
        parameters={"temperature": 0, "num_predict": 3},
        messages=[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ahoy"}],
        license="MIT",
    )
    assert made.status == "success"
    shown = client.show("reynard:sly")
    assert shown.license == "MIT" and "SYSTEM You are sly." in shown.modelfile
    # Its own limit holds where the client sets none.
    assert client.generate("reynard:sly", "Tell me a story.").eval_count <= 3
    with pytest.raises(ollama.ResponseError, match="nosuch"):
        client.create("x", from_="nosuch")


def test_a_file_is_sent_and_made_into_a_model(client, fox):
    digest = client.create_blob(TINY)
    assert digest == "sha256:" + hashlib.sha256(TINY.read_bytes()).hexdigest()
    steps = list(client.create("sent", files={"tiny.gguf": digest}, stream=True))
    assert steps[-1].status == "success"
    assert client.generate("sent", "Hello!", options={"num_predict": 2}).eval_count


def test_weights_are_quantised(client, fox):
    steps = [step.status for step in client.create("wide", from_=fox, quantize="q8_0", stream=True)]
    assert steps[-1] == "success" and any(step.startswith("quantizing") for step in steps)
    assert client.show("wide").details.quantization_level == "Q8_0"
    assert client.generate("wide", "Hello!", options={"num_predict": 2}).eval_count


def test_it_is_pushed(client, fox):
    name = os.environ["IR_HUB_URL"].removeprefix("http://") + "/me/fox"
    client.copy(fox, name)
    assert list(client.push(name, stream=True))[-1].status == "success"


def test_a_repository_by_its_quantisation(client, fox):
    name = "hf.co/me/fox:Q4_K_M"
    assert client.pull(name).status == "success"
    assert client.generate(name, "Hello!", options={"num_predict": 2}).eval_count
    client.delete(name)


def test_what_is_not_there_says_so(client):
    with pytest.raises(ollama.ResponseError, match="nosuch"):
        client.pull("nosuch")
    with pytest.raises(ollama.ResponseError, match="nosuch"):
        list(client.pull("nosuch", stream=True))


def test_the_hubs_own_cache_is_found_in_place(client):
    hub = pytest.importorskip("huggingface_hub")
    cache = os.environ["IR_HF_CACHE"]
    path = hub.hf_hub_download("me/fox", "fox-Q4_K_M.gguf", endpoint=os.environ["IR_HUB_URL"], cache_dir=cache)
    name = "hf.co/me/fox:fox-Q4_K_M.gguf"
    before = {p: p.stat().st_mtime_ns for p in pathlib.Path(cache).rglob("*")}
    assert name in names(client)
    assert client.generate(name, "Hello!", options={"num_predict": 2}).eval_count
    # Nothing in it was changed, and it is not the server's to remove.
    with pytest.raises(ollama.ResponseError, match="only read"):
        client.delete(name)
    assert before == {p: p.stat().st_mtime_ns for p in pathlib.Path(cache).rglob("*")}
    assert pathlib.Path(path).exists()
    client.generate(name, keep_alive=0)
    shutil.rmtree(cache)
    assert name not in names(client)


def test_ollamas_own_store_is_found_in_place(client):
    root = pathlib.Path(os.environ["IR_OLLAMA_STORE"])

    def blob(data):
        digest = hashlib.sha256(data).hexdigest()
        path = root / "blobs" / f"sha256-{digest}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    kind = "application/vnd.ollama.image."
    layers = [{"mediaType": kind + "model", **blob(TINY.read_bytes())}, {"mediaType": kind + "system", **blob(b"Old.")}]
    config = {"mediaType": "application/vnd.docker.container.image.v1+json", **blob(b"{}")}
    manifest = root / "manifests" / "registry.ollama.ai" / "library" / "old" / "7b"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"schemaVersion": 2, "config": config, "layers": layers}))
    assert "old:7b" in names(client)
    assert "SYSTEM Old." in client.show("old:7b").modelfile
    assert client.generate("old:7b", "Hello!", options={"num_predict": 2}).eval_count
    with pytest.raises(ollama.ResponseError, match="only read"):
        client.delete("old:7b")
    assert manifest.exists()
    client.generate("old:7b", keep_alive=0)
    shutil.rmtree(root)
