"""The asynchronous recipe: aiohttp, gather, a semaphore inside the retried function, tenacity."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import contextmanager
from typing import Any, Iterator, List, Optional, Sequence

from ..answer import MODEL
from . import Answerer, Target, body_of

__all__ = ["aiohttp_tenacity"]


@contextmanager
def aiohttp_tenacity(target: Target) -> Iterator[Answerer]:
    """One client session; a call that backs off holds no place of the semaphore."""
    import aiohttp
    from tenacity import RetryError, retry, stop_after_attempt, wait_fixed, wait_random_exponential

    wait = wait_fixed(target.wait_fixed) if target.wait_fixed else wait_random_exponential(min=1, max=60)
    url, headers = target.url, {"Authorization": "Bearer key"}
    timeout = aiohttp.ClientTimeout(total=60)
    loop = asyncio.new_event_loop()

    async def connect() -> Any:
        # aiohttp's own limit is 100 connections, fewer than the semaphore admits.
        trust = ssl.create_default_context(cafile=target.ca) if target.ca else True
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=target.workers, ssl=trust))

    session = loop.run_until_complete(connect())

    async def answer_all(prompts: Sequence[str]) -> List[Any]:
        semaphore = asyncio.Semaphore(target.workers)

        @retry(wait=wait, stop=stop_after_attempt(20))
        async def ask(prompt: str) -> str:
            body = body_of(prompt, MODEL)
            async with semaphore, session.post(url, json=body, headers=headers, timeout=timeout) as response:
                response.raise_for_status()
                payload = await response.json()
            return str(payload["choices"][0]["message"]["content"])

        async def ask_or_lose(prompt: str) -> Optional[str]:
            try:
                return await ask(prompt)
            except RetryError:
                return None

        return list(await asyncio.gather(*map(ask_or_lose, prompts)))

    try:
        yield lambda prompts: loop.run_until_complete(answer_all(prompts))
    finally:
        loop.run_until_complete(session.close())
        loop.close()
