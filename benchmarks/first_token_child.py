"""Streams over a connection, by several clients in turn: ``python -m benchmarks.first_token_child SPEC``."""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
from contextlib import ExitStack
from typing import Any, Callable, Dict, Iterator, List, Mapping

from .answer import MODEL, prompts

__all__ = ["run"]

Client = Callable[[str], Iterator[Any]]
"""Asks for a stream, and yields its chunks, decoded."""


def run(spec: Mapping[str, Any]) -> Dict[str, Any]:
    """Read ``spec["streams"]`` streams of ``spec["chunks"]`` chunks with each of ``spec["clients"]``, in turn.

    Returns:
        Per client: ``first``, the median of the seconds to the first chunk, ``slow``, their 95th percentile,
        and ``cpu`` and ``wall``, the seconds for all chunks together.
    """
    sys.modules["orjson"] = None  # type: ignore[assignment]  # what import makes of None is an ImportError
    with ExitStack() as stack:
        clients = {name: _CLIENTS[name](spec["base_url"], spec["chunks"], stack) for name in spec["clients"]}
        for client in clients.values():
            _read(client, "warm up", spec["chunks"])
        gc.collect()
        gc.freeze()
        taken: Dict[str, List[Dict[str, float]]] = {name: [] for name in clients}
        for prompt in prompts(spec["streams"]):
            for name, client in clients.items():
                taken[name].append(_read(client, prompt, spec["chunks"]))
    return {name: _summary(each) for name, each in taken.items()}


def _read(client: Client, prompt: str, expected: int) -> Dict[str, float]:
    cpu, started = time.process_time(), time.perf_counter()
    chunks = client(prompt)
    next(chunks)
    first = time.perf_counter() - started
    found = 1 + sum(1 for _ in chunks)
    used = {"first": first, "wall": time.perf_counter() - started, "cpu": time.process_time() - cpu}
    if found < expected:
        raise RuntimeError(f"{found} of {expected} chunks came")
    return used


def _summary(taken: List[Dict[str, float]]) -> Dict[str, float]:
    first = sorted(each["first"] for each in taken)
    return {
        "first": statistics.median(first),
        "slow": first[int(0.95 * len(first))],
        "wall": sum(each["wall"] for each in taken),
        "cpu": sum(each["cpu"] for each in taken),
    }


def _urllib3(base_url: str, chunks: int, stack: ExitStack) -> Client:
    """The least a program can do: a pooled connection, lines, json."""
    import urllib3

    pool = stack.enter_context(urllib3.PoolManager())
    headers = {"Content-Type": "application/json", "Authorization": "Bearer k"}

    def ask(prompt: str) -> Iterator[Any]:
        body = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], "stream": True}
        url = f"{base_url}/chat/completions?n={chunks}"
        response: Any = pool.request("POST", url, body=json.dumps(body), headers=headers, preload_content=False)
        rest = b""
        for data in response.stream(1 << 16):
            *events, rest = (rest + data).split(b"\n\n")
            for event in events:
                if event != b"data: [DONE]":
                    yield json.loads(event[6:])
        response.release_conn()

    return ask


def _chatpool(base_url: str, chunks: int, stack: ExitStack) -> Client:
    from chatpool import ChatPool

    pool = stack.enter_context(ChatPool(MODEL, api_key="k", base_url=base_url, query={"n": str(chunks)}))
    return pool.stream


def _openai(base_url: str, chunks: int, stack: ExitStack) -> Client:
    from openai import OpenAI

    client = stack.enter_context(OpenAI(api_key="k", base_url=base_url, default_query={"n": str(chunks)}))

    def ask(prompt: str) -> Iterator[Any]:
        messages: Any = [{"role": "user", "content": prompt}]
        return iter(client.chat.completions.create(model=MODEL, messages=messages, stream=True))

    return ask


_CLIENTS: Mapping[str, Callable[[str, int, ExitStack], Client]] = {
    "urllib3": _urllib3,
    "chatpool": _chatpool,
    "openai": _openai,
}

if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
