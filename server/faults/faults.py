"""What must not bring a server down: slow readers, half-open connections, huge and hostile bodies, clients that leave, blocks
and fields that nobody knows, and its own end. Talks to a running `ir serve` over loopback with sockets of its own; Python's standard library only.

Usage: faults.py URL PID [--full]     The server is told to end at the end.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import time
from urllib.parse import urlsplit

QUESTION = "Tell me a story about a fox and a drum"
# Memory that allocators keep and caches legitimately hold, in MiB.
SLACK = 48
# What the second half of many like requests may add to it.
STEADY = 16
# How much slower a short request may be while others misbehave: they share two cores with this script.
SLOWER = 4.0


def post(path, body):
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    return head.encode() + text


def short():
    return {"model": "ir-tiny", "prompt": QUESTION, "stream": False, "options": {"num_predict": 8, "temperature": 0}}


def endless():
    schema = {"type": "string", "minLength": 20000}
    return {"model": "ir-tiny", "prompt": QUESTION, "raw": True, "format": schema, "options": {"num_predict": -1}}


class Server:
    def __init__(self, url, pid):
        at = urlsplit(url)
        self.host, self.port, self.pid = at.hostname, at.port, pid

    async def connect(self):
        return await asyncio.open_connection(self.host, self.port)

    async def ask(self, request, limit=60):
        """Status and body."""
        reader, writer = await self.connect()
        try:
            writer.write(request)
            await writer.drain()
            answer = await asyncio.wait_for(reader.read(-1), limit)
        finally:
            writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 "), f"no answer: {answer[:200]!r}"
        return int(head.split()[1]), body

    async def get(self, path):
        return await self.ask(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())

    async def metric(self, name):
        _, page = await self.get("/metrics")
        for line in page.decode().splitlines():
            if line.startswith(name + " "):
                return float(line.rsplit(" ", 1)[1])
        raise AssertionError(f"/metrics has no {name}")

    async def latency(self, n=9):
        """Median seconds of a short request."""
        times = []
        for _ in range(n):
            start = time.monotonic()
            status, body = await self.ask(post("/api/generate", short()))
            assert status == 200, (status, body[:300])
            times.append(time.monotonic() - start)
        return statistics.median(times)

    async def idle(self, seconds=60):
        until = time.monotonic() + seconds
        while await self.metric("ir_places_used") > 0:
            assert time.monotonic() < until, "requests of clients that are gone still run"
            await asyncio.sleep(0.05)

    def memory(self):
        """MiB in use that are the process's own: mapped files come and go."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024


async def start(server, body):
    """A stream whose first bytes have come."""
    reader, writer = await server.connect()
    writer.write(post("/api/generate", body))
    await writer.drain()
    first = await asyncio.wait_for(reader.read(64), 60)
    assert first.startswith(b"HTTP/1.1 200"), first
    return reader, writer


async def slow_readers(server, calm, seconds):
    streams = [await start(server, endless()) for _ in range(2)]
    until, slowest = time.monotonic() + seconds, 0.0
    while time.monotonic() < until:
        for reader, _ in streams:
            await asyncio.wait_for(reader.read(1), 10)
        slowest = max(slowest, await server.latency(3))
    for _, writer in streams:
        writer.close()
    return f"a short request takes {slowest * 1e3:.0f} ms at worst beside two of them, {calm * 1e3:.0f} ms alone"


async def half_open(server, calm):
    held = []
    for i in range(200):
        _, writer = await server.connect()
        # Some say nothing, some stop within the headers, some within the body.
        part = [b"", b"POST /api/chat HTTP/1.1\r\nHost: local", post("/api/chat", short())[:-20]][i % 3]
        writer.write(part)
        held.append(writer)
    beside = await server.latency()
    assert beside < calm * SLOWER + 0.2, f"{beside:.3f} s beside 200 half-open connections, {calm:.3f} s alone"
    for writer in held:
        writer.close()
    return f"a short request takes {beside * 1e3:.0f} ms beside them, {calm * 1e3:.0f} ms alone"


async def huge_body(server):
    reader, writer = await server.connect()
    size = 100 << 20
    writer.write(f"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode())
    sent = 0
    try:
        while sent < size:
            writer.write(b" " * (1 << 20))
            await writer.drain()
            sent += 1 << 20
    except ConnectionError:
        pass
    try:
        answer = await asyncio.wait_for(reader.read(400), 60)
    except ConnectionError:
        answer = b""
    writer.close()
    assert not answer or b" 413 " in answer.split(b"\r\n")[0], answer[:200]
    return f"refused after {sent >> 20} MiB of 100"


async def brackets(server):
    for path in ["/api/chat", "/api/generate", "/v1/chat/completions", "/tokenize"]:
        for body in [b"[" * (1 << 20), b'{"messages": ' + b'{"a":' * 200_000]:
            status, _ = await server.ask(post(path, body))
            assert status in (400, 404), f"{path}: {status}"
    deep = {"model": "ir-tiny", "prompt": "x", "format": nested(100)}
    status, body = await server.ask(post("/api/generate", deep))
    assert status in (200, 400), (status, body[:200])
    return "refused"


def nested(depth):
    schema = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


async def leaving(server, n):
    before = await server.metric('ir_requests_total{model="ir-tiny",end="cancelled"}')

    async def one(i):
        reader, writer = await start(server, endless())
        if i % 2:
            await asyncio.wait_for(reader.read(200), 30)
        # Half say goodbye, half are gone.
        writer.close() if i % 3 else writer.transport.abort()

    for i in range(0, n, 20):
        await asyncio.gather(*(one(k) for k in range(i, min(i + 20, n))))
    await server.idle()
    gone = await server.metric('ir_requests_total{model="ir-tiny",end="cancelled"}') - before
    assert gone >= n * 0.9, f"of {n} that left {gone} were cancelled"
    return f"{n} left, {gone:.0f} of them before their end"


def foreign(i):
    """A request of one of the APIs, with blocks and fields that nobody here knows: each time others."""
    text, block = "x" * (i % 7 * 40), {"type": f"block_{i}", "text": QUESTION, "data": {"n": i}}
    asked = {"role": "user", "content": [block, {"type": "text", "text": "Go"}]}
    said = {"role": "assistant", "content": [{"type": f"used_{i}_use", "id": f"u{i}", "input": text}], f"more_{i}": text}
    turns, field = [asked, said, {"role": "user", "content": "More"}], {f"field_{i}": [text, {"a": None}]}
    bodies = [
        ("/v1/messages", {"messages": turns, "max_tokens": 1}),
        ("/v1/chat/completions", {"messages": turns, "max_tokens": 1}),
        ("/v1/responses", {"input": [*turns, {"type": f"item_{i}", "x": text}], "max_output_tokens": 16, "store": False}),
        ("/api/chat", {"messages": [{**said, "content": text}], "stream": False, "options": {"num_predict": 1, f"option_{i}": i}}),
    ]
    path, body = bodies[i % len(bodies)]
    return path, {"model": "ir-tiny", "temperature": 0, **body, **field}


async def unknown_blocks(server, n):
    """Answered each, and nothing stays of them: the second half of the requests needs no memory."""
    seen, done, at_once = [server.memory()], 0, 8

    async def one(i):
        path, body = foreign(i)
        status, answer = await server.ask(post(path, body))
        assert status == 200, f"{path}: {status} {answer[:300]!r}"

    while done < n:
        await asyncio.gather(*(one(i) for i in range(done, min(done + at_once, n))))
        done += at_once
        if len(seen) == 1 and done >= n / 2:
            seen.append(server.memory())
    seen.append(server.memory())
    start, middle, end = seen
    assert end < middle + STEADY, f"{start:.0f} MiB, {middle:.0f} after half of {n} requests, {end:.0f} at the end"
    return f"{n} requests, {start:.0f} MiB at the start, {middle:.0f} in the middle, {end:.0f} at the end"


async def full_queue(server):
    answers = await asyncio.gather(*(server.ask(post("/api/generate", short())) for _ in range(64)))
    statuses = sorted({status for status, _ in answers})
    assert set(statuses) <= {200, 503}, statuses
    return f"64 at once: {statuses}"


async def the_end(server):
    streams = [await start(server, endless()) for _ in range(6)]
    begin = time.monotonic()
    os.kill(server.pid, signal.SIGTERM)
    told = 0
    for reader, writer in streams:
        rest = (await asyncio.wait_for(reader.read(-1), 30)).decode(errors="replace")
        last = [line for line in rest.splitlines() if line.startswith("{")][-1]
        record = json.loads(last)
        assert "error" in record or record.get("done"), f"a stream ended without a last record: {last[:200]}"
        told += "error" in record
        writer.close()
    while alive(server.pid):
        assert time.monotonic() - begin < 30, "it does not end"
        await asyncio.sleep(0.05)
    try:
        await server.connect()
        raise AssertionError("something still listens there")
    except ConnectionRefusedError:
        pass
    return f"ended in {time.monotonic() - begin:.1f} s; {told} of 6 streams were told, the others finished"


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("pid", type=int)
    parser.add_argument("--full", action="store_true")
    args = parser.parse_args()
    server = Server(args.url, args.pid)
    # Everything once, so that what is measured afterwards is warm.
    await server.latency()
    await leaving(server, 20)
    calm, before = await server.latency(), server.memory()
    tests = [
        ("slow readers", slow_readers(server, calm, 60 if args.full else 5)),
        ("half-open connections", half_open(server, calm)),
        ("a body of 100 MB", huge_body(server)),
        ("a million brackets", brackets(server)),
        ("clients that leave", leaving(server, 1000 if args.full else 100)),
        ("many at once", full_queue(server)),
        ("blocks that nobody knows", unknown_blocks(server, 10_000 if args.full else 400)),
    ]
    for name, test in tests:
        print(f"{name}: {await test}", flush=True)
        await server.idle()
    after, still = server.memory(), await server.latency()
    print(f"memory: {before:.0f} MiB before, {after:.0f} MiB after; a short request: {still * 1e3:.0f} ms", flush=True)
    assert after < before + SLACK, "memory was not given back"
    assert still < calm * SLOWER + 0.2, "it became slow"
    print(f"SIGTERM: {await the_end(server)}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
    sys.exit(0)
