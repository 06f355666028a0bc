"""One client against a live server, in a process of its own: ``python -m benchmarks.pacing.live_client SPEC``."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Callable, Dict, List, Mapping

from ..answer import MODEL, prompts
from .scenarios import SCENARIOS, Scenario, tokens_of

__all__ = ["run"]

Ask = Callable[[List[str]], int]
"""Makes a call per prompt; returns how many were lost."""


def run(spec: Mapping[str, Any]) -> Dict[str, Any]:
    """Make a pool's share of the scenario's calls; returns seconds of wall and of CPU, and how many were lost."""
    scenario = SCENARIOS[spec["scenario"]]
    asked = prompts(scenario.calls // spec["pools"])
    client = _CLIENTS[spec["client"]]
    cpu, started = time.process_time(), time.perf_counter()
    lost = client(spec["base_url"], scenario, asked)
    return {"wall": time.perf_counter() - started, "cpu": time.process_time() - cpu, "lost": lost}


def _chatpool(base_url: str, scenario: Scenario, asked: List[str], configured: bool = False) -> int:
    from chatpool import ChatPool, Limits

    limits = Limits(**scenario.limits) if configured and scenario.limits else None
    items: List[Any] = list(asked)
    if scenario.tokens:
        sizes = tokens_of(scenario.calls)
        items = [
            {"messages": [{"role": "user", "content": prompt}], "max_tokens": size}
            for prompt, size in zip(asked, sizes)
        ]
    with ChatPool(MODEL, api_key="key", base_url=base_url, max_workers=scenario.workers, limits=limits) as pool:
        return sum(answer is None for answer in pool.map(items, progress=False))


def _configured(base_url: str, scenario: Scenario, asked: List[str]) -> int:
    return _chatpool(base_url, scenario, asked, configured=True)


def _recipe(base_url: str, scenario: Scenario, asked: List[str]) -> int:
    from ..contenders import CONTENDERS, Target

    with CONTENDERS["aiohttp"].open(Target(base_url, scenario.workers)) as answer_all:
        return sum(answer is None for answer in answer_all(asked))


def _openai(retries: int) -> Callable[[str, Scenario, List[str]], int]:
    def ask_all(base_url: str, scenario: Scenario, asked: List[str]) -> int:
        from concurrent.futures import ThreadPoolExecutor

        import openai

        client = openai.OpenAI(api_key="key", base_url=base_url, max_retries=retries)

        def lost(prompt: str) -> bool:
            try:
                client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": prompt}])
            except openai.OpenAIError:
                return True
            return False

        with client, ThreadPoolExecutor(scenario.workers) as executor:
            return sum(executor.map(lost, asked))

    return ask_all


_CLIENTS: Mapping[str, Callable[[str, Scenario, List[str]], int]] = {
    "chatpool": _chatpool,
    "chatpool, limits configured": _configured,
    "the recipe: aiohttp + tenacity": _recipe,
    "openai SDK, 2 retries": _openai(2),
    "openai SDK, 10 retries": _openai(10),
}


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
