"""The floor: threads that take work from one shared iterator, and nothing around the exchange but JSON."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from typing import Any, Callable, Iterator, List, Sequence

from ..answer import MODEL
from . import Answerer, Target, body_of

__all__ = ["transport_threads", "urllib3_threads"]


@contextmanager
def urllib3_threads(target: Target) -> Iterator[Answerer]:
    """A urllib3 PoolManager with as many connections as threads."""
    import urllib3

    url = target.url
    with urllib3.PoolManager(maxsize=target.workers, ca_certs=target.ca or None) as http:
        headers = {"Authorization": "Bearer key", "Content-Type": "application/json", "Accept": "application/json"}

        def ask(prompt: str) -> str:
            body = json.dumps(body_of(prompt, MODEL)).encode()
            response = http.request("POST", url, body=body, headers=headers, retries=False, timeout=60.0)
            return str(json.loads(response.data)["choices"][0]["message"]["content"])

        yield lambda prompts: in_threads(ask, prompts, target.workers)


@contextmanager
def transport_threads(target: Target) -> Iterator[Answerer]:
    """chatpool's transport without the pool around it."""
    from chatpool import ChatRequest, Timeout
    from chatpool._transport import CancelToken, KeyAuth, Transport, TransportSettings

    settings = TransportSettings(target.base_url, KeyAuth("key"), max_workers=target.workers, verify=target.ca or None)
    transport, timeout, request = Transport(settings), Timeout(), ChatRequest({})

    def ask(prompt: str) -> str:
        body = json.dumps(body_of(prompt, MODEL)).encode()
        reply = transport.exchange(request, body, timeout=timeout, cancel=CancelToken())
        return str(json.loads(reply.content)["choices"][0]["message"]["content"])

    try:
        yield lambda prompts: in_threads(ask, prompts, target.workers)
    finally:
        transport.close()


def in_threads(ask: Callable[[str], str], prompts: Sequence[str], workers: int) -> List[Any]:
    """Answers in order; each thread takes the next prompt when it is free."""
    answers: List[Any] = [None] * len(prompts)
    shared = enumerate(prompts)

    def work() -> None:
        for index, prompt in shared:
            answers[index] = ask(prompt)

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers
