"""How fast a server answers many at once: tokens per second of all streams together, prompts' time counted in; the same from
each stream's first token on, as benchmarks of engines count; and the time to the first token. Speaks `/v1/completions`, so that `ir serve` and llama-server are measured by the same requests; Python's standard library only.

Usage: bench.py URL MODEL [--streams 1,16] [--tokens 128] [--words 32] [--rounds 3]
"""

import argparse
import asyncio
import json
import re
import statistics
import time
from urllib.parse import urlsplit

WORDS = "fox drum hen river moon bear song boat tree stone rain light hill door road cloud".split()


async def stream(at, model, i, tokens, words):
    """Seconds to the first token, tokens, when the last one came, and tokens per second after the first."""
    prompt = " ".join(WORDS[(i * 7 + k * (i + 3)) % len(WORDS)] for k in range(words))
    body = {"model": model, "prompt": f"{i} {prompt}", "max_tokens": tokens, "stream": True, "temperature": 0.8,
            "seed": i, "ignore_eos": True, "stream_options": {"include_usage": True}}
    text = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" \
           f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    start, first, n = time.monotonic(), None, 0
    writer.write(head.encode() + text)
    # Only the last piece is parsed: what measures must not take the processor from what is measured.
    tail = b""
    while piece := await reader.read(1 << 16):
        if first is None and b"data: {" in piece:
            first = time.monotonic() - start
        tail = tail[-4096:] + piece
    counts = re.findall(rb'"completion_tokens": ?(\d+)', tail)
    n = int(counts[-1]) if counts else 0
    writer.close()
    if first is None or not n:
        raise SystemExit(f"stream {i} gave no tokens: does the server know {model!r}?")
    end = time.monotonic()
    return first, n, end, (n - 1) / (end - start - first)


async def measure(at, args, n_streams, offset):
    begin = time.monotonic()
    every = await asyncio.gather(
        *(stream(at, args.model, offset + i, args.tokens, args.words) for i in range(n_streams)))
    total = sum(n for _, n, _, _ in every) / (max(end for _, _, end, _ in every) - begin)
    return total, sum(rate for *_, rate in every), [first for first, *_ in every]


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--streams", default="1,16")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--words", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    at, offset, totals = urlsplit(args.url), 1, {}
    await measure(at, args, 1, 0)
    print("| streams | tokens/s together | after the first token | first token p50 | p99 |\n|---|---|---|---|---|")
    for n in map(int, args.streams.split(",")):
        rates, afters, firsts = [], [], []
        for _ in range(args.rounds):
            rate, after, some = await measure(at, args, n, offset)
            offset += n
            rates.append(rate)
            afters.append(after)
            firsts += some
        firsts.sort()
        totals[n] = statistics.median(rates)
        p99 = firsts[min(len(firsts) - 1, int(len(firsts) * 0.99))]
        after = statistics.median(afters)
        print(f"| {n} | {totals[n]:.1f} | {after:.1f} | {statistics.median(firsts) * 1e3:.0f} ms | {p99 * 1e3:.0f} ms |", flush=True)
    least = min(totals)
    for n in totals:
        if n != least:
            print(f"{n} streams give {totals[n] / totals[least]:.2f} times what {least} gives")


asyncio.run(main())
