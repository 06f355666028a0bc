"""The clients that are compared, each written the way its users would write it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any, Callable, ContextManager, Dict, Iterable, List, Mapping, NamedTuple, Sequence

__all__ = ["BASELINE", "CONTENDERS", "RIVALS", "Answerer", "Contender", "Target", "installed"]

Answerer = Callable[[Sequence[str]], List[Any]]
"""Answers prompts in order; None for one that was lost."""


class Target(NamedTuple):
    """The options of a contender.

    Attributes:
        base_url: where the API is.
        workers: calls in flight at most.
        ca: path of the CA bundle for https.
        query: appended to each URL, as ``name=value``; empty for none.
        wait_fixed: seconds between attempts; 0 for the contender's usual back-off.
        retries: how many of them where the contender has an option for it; 0 for its usual number.
    """

    base_url: str
    workers: int
    ca: str = ""
    query: str = ""
    wait_fixed: float = 0.0
    retries: int = 0

    @property
    def url(self) -> str:
        """Of chat completions."""
        return f"{self.base_url}/chat/completions" + (f"?{self.query}" if self.query else "")


class Contender(NamedTuple):
    """One client.

    Attributes:
        title: how the report calls it.
        where: module and function (below this package) that makes a context manager, which gives an Answerer.
        share: the part of the calls it makes: slow ones need fewer for the same precision.
        orjson: whether it may use orjson; the others are kept from finding it.
        needs: the module that it imports; empty where chatpool needs it too.
        pauses: whether it starts no call for half a minute or more after a 429, and leaves the machine idle meanwhile.
    """

    title: str
    where: str
    share: float = 1.0
    orjson: bool = False
    needs: str = ""
    pauses: bool = False

    def open(self, target: Target) -> ContextManager[Answerer]:
        """Connects to ``target``."""
        module, name = self.where.split(":")
        opened: ContextManager[Answerer] = getattr(importlib.import_module(f"{__name__}.{module}"), name)(target)
        return opened


BASELINE = "urllib3"

CONTENDERS: Mapping[str, Contender] = {
    BASELINE: Contender("urllib3 PoolManager in threads, bare", "bare:urllib3_threads"),
    "transport": Contender("chatpool's transport alone, in threads", "bare:transport_threads"),
    "chatpool": Contender("**chatpool** `pool.map`", "pool:chatpool_map"),
    "chatpool+orjson": Contender(
        "**chatpool** `pool.map`, orjson installed", "pool:chatpool_map", orjson=True, needs="orjson"
    ),
    "aiohttp": Contender("the recipe: aiohttp + tenacity", "recipe:aiohttp_tenacity", needs="aiohttp"),
    "requests": Contender("requests + tenacity, the usual way", "usual:requests_tenacity", share=0.5),
    "openai": Contender("openai SDK in threads", "sdk:openai_threads", share=0.3, needs="openai"),
    "openai async": Contender("openai SDK, async", "sdk:openai_async", share=0.3, needs="openai"),
    "async-batch-llm": Contender(
        "async-batch-llm (3 attempts, cooldown 300 s)",
        "rivals:async_batch_llm_usual",
        needs="async_batch_llm",
        pauses=True,
    ),
    "async-batch-llm, patient": Contender(
        "async-batch-llm, 9 attempts, cooldown 30 s",
        "rivals:async_batch_llm_patient",
        needs="async_batch_llm",
        pauses=True,
    ),
    "flexllm": Contender("flexllm (3 attempts)", "rivals:flexllm_usual", needs="flexllm"),
    "flexllm, patient": Contender("flexllm, 9 attempts", "rivals:flexllm_patient", needs="flexllm"),
}

RIVALS = ("async-batch-llm", "async-batch-llm, patient", "flexllm", "flexllm, patient")
"""Libraries for the same work.  They are compared where servers refuse, and take no part in the cost of a call."""


def installed(names: Iterable[str]) -> List[str]:
    """Return those of ``names`` that can run here; says which of them cannot."""
    needed = {name: CONTENDERS[name].needs for name in names}
    missing = sorted(name for name, module in needed.items() if module and not importlib.util.find_spec(module))
    if missing:
        print(f"not installed, left out: {'; '.join(missing)}", file=sys.stderr)
    return [name for name in needed if name not in missing]


def body_of(prompt: str, model: str) -> Dict[str, Any]:
    """The request body that all contenders send."""
    return {"messages": [{"role": "user", "content": prompt}], "model": model}
