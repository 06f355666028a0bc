"""chatpool."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Dict, Iterator

from ..answer import MODEL
from . import Answerer, Target

__all__ = ["chatpool_map"]


@contextmanager
def chatpool_map(target: Target) -> Iterator[Answerer]:
    """``pool.map``."""
    from tenacity import wait_fixed

    from chatpool import ChatPool, RetryPolicy

    query = dict([target.query.split("=")]) if target.query else None
    options: Dict[str, Any] = {"retry": RetryPolicy(wait=wait_fixed(target.wait_fixed))} if target.wait_fixed else {}
    pool = ChatPool(
        MODEL,
        api_key="key",
        base_url=target.base_url,
        max_workers=target.workers,
        verify=target.ca or None,
        query=query,
        **options,
    )
    with pool:
        yield lambda prompts: [None if answer is None else answer.text for answer in pool.map(prompts, progress=False)]
