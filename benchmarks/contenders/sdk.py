"""OpenAI's SDK with its default client, blocking in threads, and asynchronous under a semaphore."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Iterator, List, Sequence

from ..answer import MODEL
from . import Answerer, Target

__all__ = ["openai_async", "openai_threads"]


@contextmanager
def openai_threads(target: Target) -> Iterator[Answerer]:
    """``OpenAI().chat.completions.create`` in a ThreadPoolExecutor."""
    import openai

    _trust(target)
    retries = target.retries or openai.DEFAULT_MAX_RETRIES
    client = openai.OpenAI(api_key="key", base_url=target.base_url, max_retries=retries)
    with client, ThreadPoolExecutor(target.workers) as executor:

        def ask(prompt: str) -> Any:
            try:
                answer = client.chat.completions.create(model=MODEL, messages=_messages(prompt))
            except openai.APIError:
                return None
            return answer.choices[0].message.content

        yield lambda prompts: list(executor.map(ask, prompts))


@contextmanager
def openai_async(target: Target) -> Iterator[Answerer]:
    """``AsyncOpenAI().chat.completions.create`` gathered under a semaphore."""
    import openai

    _trust(target)
    loop = asyncio.new_event_loop()
    client = openai.AsyncOpenAI(api_key="key", base_url=target.base_url)

    async def answer_all(prompts: Sequence[str]) -> List[Any]:
        semaphore = asyncio.Semaphore(target.workers)

        async def ask(prompt: str) -> Any:
            async with semaphore:
                answer = await client.chat.completions.create(model=MODEL, messages=_messages(prompt))
            return answer.choices[0].message.content

        return list(await asyncio.gather(*map(ask, prompts)))

    try:
        yield lambda prompts: loop.run_until_complete(answer_all(prompts))
    finally:
        loop.run_until_complete(client.close())
        loop.close()


def _messages(prompt: str) -> Any:
    return [{"role": "user", "content": prompt}]


def _trust(target: Target) -> None:
    if target.ca:
        os.environ["SSL_CERT_FILE"] = target.ca
