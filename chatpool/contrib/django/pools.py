"""``pools[alias]`` and ``pool``: one pool per process and alias, made at its first use."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Any, Callable, Dict, Iterator, Mapping, NamedTuple, Optional, cast

from django.core.signals import setting_changed
from django.db import connections

from ... import ChatPool
from .conf import DEFAULT_ALIAS, InvalidPoolError, all_settings, pool_settings, valid_settings

__all__ = ["PoolHandler", "make_pool", "pool", "pools"]


class _Made(NamedTuple):
    """A pool, and the settings that it was made of; None where it was not made of settings."""

    pool: ChatPool
    options: Optional[Mapping[str, Any]]


class PoolHandler:
    """The pools of this process by alias, each made at its first use and the same one in all threads.

    When ``CHATPOOL`` is changed (``override_settings``), aliases with other settings get a new pool at their next use;
    calls under way in the old one still end there.
    """

    def __init__(self) -> None:
        self._pools: Dict[str, _Made] = {}
        self._after_fork()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        # Reentrant: importing a listener may ask for another pool.
        self._lock = threading.RLock()

    def __getitem__(self, alias: str) -> ChatPool:
        """Return the pool of ``alias``.

        Raises:
            InvalidPoolError: there is no such alias, or its settings cannot work.
        """
        made = self._pools.get(alias)
        if made is None:
            with self._lock:
                made = self._pools.get(alias)
                if made is None:
                    made = self._pools[alias] = _Made(make_pool(alias), all_settings()[alias])
        return made.pool

    def __iter__(self) -> Iterator[str]:
        """Iterate over the aliases."""
        return iter(all_settings())

    def close_all(self) -> None:
        """Finish what was submitted to the pools, and close them; what is used after that is made anew."""
        with self._lock:
            made, self._pools = self._pools, {}
        for one in made.values():
            one.pool.close()

    @contextlib.contextmanager
    def replaced(self, alias: str, pool: ChatPool) -> Iterator[ChatPool]:
        """Have ``alias`` stand for another pool in this block; whoever made that closes it."""
        with self._lock:
            before = self._pools.get(alias)
            self._pools[alias] = _Made(pool, None)
        try:
            yield pool
        finally:
            with self._lock:
                if before is None:
                    self._pools.pop(alias, None)
                else:
                    self._pools[alias] = before

    def settings_changed(self) -> None:
        """Forget the pools whose settings have changed; they end when their calls have."""
        with self._lock:
            found = valid_settings()
            old = {alias: made for alias, made in self._pools.items() if made.options is not None}
            old = {alias: made for alias, made in old.items() if made.options != found.get(alias)}
            for alias in old:
                del self._pools[alias]
        for made in old.values():
            made.pool.shutdown(wait=False)

    def __repr__(self) -> str:
        return f"<PoolHandler of {', '.join(map(repr, self._pools)) or 'no pool yet'}>"


def make_pool(alias: str, **changes: Any) -> ChatPool:
    """Return a new pool of the settings of ``alias``.

    Its workers give their database connections back when they have nothing to do, and when they end:
    ``close_old_connections`` would leave those that CONN_MAX_AGE keeps, one a worker.

    Args:
        changes: keywords over those of the settings.

    Raises:
        InvalidPoolError: the settings cannot work; the message names alias and key.
    """
    _, backend, options = pool_settings(alias)
    options.update(changes)
    for name in ("worker_idle", "worker_end"):
        options[name] = _giving_connections_back(options.get(name))
    try:
        return backend(**options)
    except (TypeError, ValueError) as error:
        raise InvalidPoolError(f"CHATPOOL[{alias!r}]: {error}") from error


def _giving_connections_back(hook: Optional[Callable[[], Any]]) -> Callable[[], Any]:
    if hook is None:
        return connections.close_all  # type: ignore[no-any-return]

    def run_both() -> None:
        try:
            hook()
        finally:
            connections.close_all()

    return run_both


class _DefaultPool:
    """The pool of the default alias, whichever it is at the moment."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what looks into a module asks for such names: that is no first use
            raise AttributeError(name)
        return getattr(pools[DEFAULT_ALIAS], name)

    def __repr__(self) -> str:
        return f"<pool of CHATPOOL[{DEFAULT_ALIAS!r}]>"


pools = PoolHandler()
pool = cast(ChatPool, _DefaultPool())


def _on_setting_changed(*, setting: str, **_: Any) -> None:
    if setting == "CHATPOOL":
        pools.settings_changed()


setting_changed.connect(_on_setting_changed, dispatch_uid="chatpool.contrib.django")
