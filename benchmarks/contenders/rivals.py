"""Libraries for the same work, as their documentation shows them: async-batch-llm and flexllm.

Each runs twice: with its own defaults, and the way a user sets it who has seen calls lost.  None is told the limit of
the server, and what has nothing to do with the calls is off: progress, files of results, caches of answers.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import Any, ContextManager, Dict, Iterator, List, Sequence

from ..answer import MODEL
from . import Answerer, Target

__all__ = ["async_batch_llm_patient", "async_batch_llm_usual", "flexllm_patient", "flexllm_usual"]

_ATTEMPTS = 9  # of a patient user: as many as chatpool makes by default


def async_batch_llm_usual(target: Target) -> ContextManager[Answerer]:
    """``process_prompts`` with its defaults."""
    return _async_batch_llm(target)


def async_batch_llm_patient(target: Target) -> ContextManager[Answerer]:
    """The same with more attempts, and with the cooldown that its page on limits names for short quotas."""
    return _async_batch_llm(target, patient=True)


def flexllm_usual(target: Target) -> ContextManager[Answerer]:
    """``chat_batch`` with its defaults."""
    return _flexllm(target)


def flexllm_patient(target: Target) -> ContextManager[Answerer]:
    """The same with more attempts."""
    return _flexllm(target, patient=True)


@contextmanager
def _async_batch_llm(target: Target, patient: bool = False) -> Iterator[Answerer]:
    """``process_prompts`` with ``concurrency``: calls in flight, connections and workers.

    After a 429 no call is started for the cooldown, however short a wait the server asks for; 429s do not count as
    attempts.  Each 503 does.
    """
    from async_batch_llm import ProcessorConfig, RateLimitConfig, RetryConfig, llm, process_prompts

    options: Dict[str, Any] = {}
    if patient:
        options["retry"] = RetryConfig(max_attempts=_ATTEMPTS)
        options["rate_limit"] = RateLimitConfig(cooldown_seconds=30.0, max_cooldown_seconds=300.0)
    config = ProcessorConfig(concurrency=target.workers, **options)

    def answer_all(prompts: Sequence[str]) -> List[Any]:
        strategy = llm(f"openai-compatible:{MODEL}", base_url=target.base_url, api_key="key")
        batch = asyncio.run(process_prompts(strategy, prompts, config=config, preserve_order=True))
        return [result.output if result.success else None for result in batch.results]

    yield answer_all


@contextmanager
def _flexllm(target: Target, patient: bool = False) -> Iterator[Answerer]:
    """``LLMClient.chat_batch`` with ``concurrency_limit``; it knows ``Retry-After``, but not ``retry-after-ms``."""
    from flexllm import LLMClient

    options = {"retry_times": _ATTEMPTS} if patient else {}  # with the first attempt, whatever the name says

    async def answer(prompts: Sequence[str]) -> List[Any]:
        client = LLMClient(
            model=MODEL, base_url=target.base_url, api_key="key", concurrency_limit=target.workers, **options
        )
        async with client:
            results = await client.chat_batch(
                [[{"role": "user", "content": prompt}] for prompt in prompts], show_progress=False
            )
        return [result.content if result.ok else None for result in results]

    yield lambda prompts: asyncio.run(answer(prompts))
