"""The clients that are compared, each written the way its users would write it."""

from __future__ import annotations

import importlib
from typing import Any, Callable, ContextManager, Dict, List, Mapping, NamedTuple, Sequence

__all__ = ["BASELINE", "CONTENDERS", "Answerer", "Contender", "Target"]

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
    """

    title: str
    where: str
    share: float = 1.0
    orjson: bool = False

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
    "chatpool+orjson": Contender("**chatpool** `pool.map`, orjson installed", "pool:chatpool_map", orjson=True),
    "aiohttp": Contender("the recipe: aiohttp + tenacity", "recipe:aiohttp_tenacity"),
    "requests": Contender("requests + tenacity, the usual way", "usual:requests_tenacity", share=0.5),
    "openai": Contender("openai SDK in threads", "sdk:openai_threads", share=0.3),
    "openai async": Contender("openai SDK, async", "sdk:openai_async", share=0.3),
}


def body_of(prompt: str, model: str) -> Dict[str, Any]:
    """The request body that all contenders send."""
    return {"messages": [{"role": "user", "content": prompt}], "model": model}
