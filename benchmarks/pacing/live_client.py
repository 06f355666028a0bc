"""One client against a live server, in a process of its own: ``python -m benchmarks.pacing.live_client SPEC``."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Callable, ContextManager, Dict, Iterator, List, Mapping

from ..answer import MODEL, prompts
from ..contenders import CONTENDERS, RIVALS, Target
from .scenarios import SCENARIOS, Scenario, tokens_of

__all__ = ["run"]

Ask = Callable[[List[str]], int]
"""Makes a call per prompt; returns how many were lost."""

Client = Callable[[str, Scenario], ContextManager[Ask]]
"""Connects to the server with this URL."""


def run(spec: Mapping[str, Any]) -> Dict[str, Any]:
    """Make a pool's share of the scenario's calls; returns seconds of wall and of CPU, and how many were lost.

    What a client imports, before its first call, is no part of it: that takes some a tenth of a second, others two.
    """
    scenario = SCENARIOS[spec["scenario"]]
    asked = prompts(scenario.calls // spec["pools"])
    with _CLIENTS[spec["client"]](spec["base_url"], scenario) as ask:
        cpu, started = time.process_time(), time.perf_counter()
        lost = ask(asked)
        return {"wall": time.perf_counter() - started, "cpu": time.process_time() - cpu, "lost": lost}


@contextmanager
def _chatpool(base_url: str, scenario: Scenario, configured: bool = False) -> Iterator[Ask]:
    from chatpool import ChatPool, Limits

    limits = Limits(**scenario.limits) if configured and scenario.limits else None

    def ask(asked: List[str]) -> int:
        items: List[Any] = list(asked)
        if scenario.tokens:
            sizes = tokens_of(scenario.calls)
            items = [
                {"messages": [{"role": "user", "content": prompt}], "max_tokens": size}
                for prompt, size in zip(asked, sizes)
            ]
        return sum(answer is None for answer in pool.map(items, progress=False))

    with ChatPool(MODEL, api_key="key", base_url=base_url, max_workers=scenario.workers, limits=limits) as pool:
        yield ask


def _configured(base_url: str, scenario: Scenario) -> ContextManager[Ask]:
    return _chatpool(base_url, scenario, configured=True)


def _contender(name: str) -> Client:
    @contextmanager
    def connect(base_url: str, scenario: Scenario) -> Iterator[Ask]:
        with CONTENDERS[name].open(Target(base_url, scenario.workers)) as answer_all:
            yield lambda asked: sum(answer is None for answer in answer_all(asked))

    return connect


def _openai(retries: int) -> Client:
    @contextmanager
    def connect(base_url: str, scenario: Scenario) -> Iterator[Ask]:
        import openai

        client = openai.OpenAI(api_key="key", base_url=base_url, max_retries=retries)

        def lost(prompt: str) -> bool:
            try:
                client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": prompt}])
            except openai.OpenAIError:
                return True
            return False

        with client, ThreadPoolExecutor(scenario.workers) as executor:
            yield lambda asked: sum(executor.map(lost, asked))

    return connect


_CLIENTS: Mapping[str, Client] = {
    "chatpool": _chatpool,
    "chatpool, limits configured": _configured,
    "openai SDK, 2 retries": _openai(2),
    "openai SDK, 10 retries": _openai(10),
    **{CONTENDERS[name].title: _contender(name) for name in ("aiohttp", *RIVALS)},
}


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
