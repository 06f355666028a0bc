"""A WSGI application whose module makes a pool and uses it, which gunicorn --preload does before it forks."""

from __future__ import annotations

import os
from urllib.parse import unquote

import chatpool

pool = chatpool.ChatPool("m", base_url=os.environ["CHAT_URL"], max_workers=4, timeout=chatpool.Timeout(total=30))


def use(name: str) -> None:
    """Calls whose answers must be their own."""
    prompts = [f"{name}-{number}" for number in range(20)]
    assert [str(answer) for answer in pool.map(prompts)] == prompts


use("preload")


def application(environ, start_response):
    """Answers with the process and with what the model says to the query."""
    answer = pool.chat(unquote(environ["QUERY_STRING"])).text
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {answer}".encode()]
