"""Clients that read streams over connections: each asks for one, and yields the texts of its chunks."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any, Callable, Iterator, Mapping, Optional
from urllib.parse import urlencode

from .answer import MODEL

__all__ = ["STREAM_CLIENTS", "StreamClient"]

StreamClient = Callable[[str], Iterator[Optional[str]]]
"""Asks for the stream of a prompt, and yields the text of each chunk; its methods may be called from any thread."""


def _urllib3(base_url: str, query: Mapping[str, str], at_once: int, stack: ExitStack) -> StreamClient:
    """The least a program can do: a pooled connection, lines, json."""
    import urllib3

    pool = stack.enter_context(urllib3.PoolManager(maxsize=at_once))
    headers = {"Content-Type": "application/json", "Authorization": "Bearer k"}
    url = f"{base_url}/chat/completions?{urlencode(query)}"

    def ask(prompt: str) -> Iterator[Optional[str]]:
        body = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], "stream": True}
        response: Any = pool.request("POST", url, body=json.dumps(body), headers=headers, preload_content=False)
        rest = b""
        for data in response.stream(1 << 16):
            *events, rest = (rest + data).split(b"\n\n")
            for event in events:
                if event != b"data: [DONE]":
                    yield json.loads(event[6:])["choices"][0]["delta"].get("content")
        response.release_conn()

    return ask


def _chatpool(base_url: str, query: Mapping[str, str], at_once: int, stack: ExitStack) -> StreamClient:
    from chatpool import ChatPool

    pool = stack.enter_context(ChatPool(MODEL, api_key="k", base_url=base_url, query=query, max_workers=at_once))
    return lambda prompt: (chunk.text for chunk in pool.stream(prompt))


def _openai(base_url: str, query: Mapping[str, str], at_once: int, stack: ExitStack) -> StreamClient:
    from openai import OpenAI

    client = stack.enter_context(OpenAI(api_key="k", base_url=base_url, default_query=query))

    def ask(prompt: str) -> Iterator[Optional[str]]:
        messages: Any = [{"role": "user", "content": prompt}]
        for chunk in client.chat.completions.create(model=MODEL, messages=messages, stream=True):
            yield chunk.choices[0].delta.content

    return ask


STREAM_CLIENTS: Mapping[str, Callable[[str, Mapping[str, str], int, ExitStack], StreamClient]] = {
    "urllib3": _urllib3,
    "chatpool": _chatpool,
    "openai": _openai,
}
"""Each takes the API's root, what goes into the URL, the number of streams at once, and a stack that ends it."""
