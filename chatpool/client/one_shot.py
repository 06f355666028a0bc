"""A pool for one call of ``map``."""

from __future__ import annotations

import inspect
from typing import Any, Iterable, Optional

from ..reentrancy import runs_user_code
from ..types import Results
from .pool import ChatPool

__all__ = ["map"]

_OF_THE_POOL = frozenset(inspect.signature(ChatPool).parameters)


@runs_user_code
def map(  # noqa: A001 - the name says what it does, as in concurrent.futures
    items: Iterable[Any], *, model: Optional[str] = None, max_workers: int = 16, **keywords: Any
) -> Results:
    """Answer many items with a pool that is made for it and closed after it.

    Args:
        items: as in :meth:`ChatPool.map`.
        model, max_workers: as in :class:`ChatPool`.
        keywords: any other argument of :class:`ChatPool`, of :meth:`ChatPool.map`, or a body field.

    Returns:
        What :meth:`ChatPool.map` returns.
    """
    of_the_pool = {name: value for name, value in keywords.items() if name in _OF_THE_POOL}
    of_the_run = {name: value for name, value in keywords.items() if name not in _OF_THE_POOL}
    with ChatPool(model, max_workers=max_workers, **of_the_pool) as pool:
        return pool.map(items, **of_the_run)
