"""The usual code of blocking programs: ``session.post`` under tenacity, in a ThreadPoolExecutor."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Iterator, Optional

from ..answer import MODEL
from . import Answerer, Target, body_of

__all__ = ["requests_tenacity"]


@contextmanager
def requests_tenacity(target: Target) -> Iterator[Answerer]:
    """One session with a connection per thread; the recipe's retry policy.

    Each call has a ``Retrying`` of its own: tenacity's decorator keeps (from 9.2 on) one dict of statistics for all
    threads, and now and then one of them raises KeyError because another is emptying it.
    """
    import requests
    from requests.adapters import HTTPAdapter
    from tenacity import RetryError, Retrying, stop_after_attempt, wait_fixed, wait_random_exponential

    wait = wait_fixed(target.wait_fixed) if target.wait_fixed else wait_random_exponential(min=1, max=60)
    url, headers = target.url, {"Authorization": "Bearer key"}
    with requests.Session() as session, ThreadPoolExecutor(target.workers) as executor:
        session.verify = target.ca or True
        for prefix in ("http://", "https://"):
            session.mount(prefix, HTTPAdapter(pool_maxsize=target.workers))

        def post(prompt: str) -> str:
            response = session.post(url, json=body_of(prompt, MODEL), headers=headers, timeout=60)
            response.raise_for_status()
            return str(response.json()["choices"][0]["message"]["content"])

        def ask(prompt: str) -> Optional[str]:
            try:
                return Retrying(wait=wait, stop=stop_after_attempt(20))(post, prompt)
            except RetryError:
                return None

        yield lambda prompts: list(executor.map(ask, prompts))
