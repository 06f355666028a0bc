"""Fixtures for pytest.  Opt in from a ``conftest.py`` at the root of the tests::

    pytest_plugins = ["chatpool.testing.plugin"]

or for one run with ``pytest -p chatpool.testing.plugin``.  Then a test asks for what it needs::

    from chatpool.testing import RateLimited

    def test_a_refused_call_is_made_again(chatpool_server, chatpool_pool, instant_waits):
        chatpool_server.enqueue(RateLimited(60))
        assert chatpool_pool.chat("ping").text == "ping"
        assert len(chatpool_server.requests) == 2

This module alone needs pytest.  PYTEST_DONT_REWRITE (there are no assertions in it, and without the mark pytest
warns where something has imported it before).
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Callable, Iterator

import pytest

from .._client.pool import ChatPool
from ..clock import install_clock
from .clocks import InstantClock
from .server import FakeServer

__all__ = ["chatpool_pool", "chatpool_server", "chatpool_server_factory", "instant_waits"]


@pytest.fixture
def chatpool_server_factory() -> Iterator[Callable[..., FakeServer]]:
    """A function that makes a :class:`FakeServer` out of its arguments; all of them are closed after the test.

    Example::

        def test_a_key_that_is_refused(chatpool_server_factory):
            server = chatpool_server_factory(script=Error(401))
            ...
    """
    with ExitStack() as servers:
        yield lambda *args, **options: servers.enter_context(FakeServer(*args, **options))


@pytest.fixture
def chatpool_server(chatpool_server_factory: Callable[..., FakeServer]) -> FakeServer:
    """A :class:`FakeServer` that echoes, closed after the test; ``enqueue`` and ``set_script`` tell it otherwise."""
    return chatpool_server_factory()


@pytest.fixture
def chatpool_pool(request: pytest.FixtureRequest) -> Iterator[ChatPool]:
    """A :class:`chatpool.ChatPool` whose server is the fixture ``chatpool_server``; aborted after the test.

    With ``instant_waits`` in the same test, its waits are instant, in whatever order the two are named.
    """
    if "instant_waits" in request.fixturenames:
        # The clock has to be there before the pool reads it.
        request.getfixturevalue("instant_waits")
    server: Any = request.getfixturevalue("chatpool_server")
    pool = ChatPool("fake-model", api_key="fake-key", base_url=server.base_url)
    try:
        yield pool
    finally:
        # Not close(), which would wait for calls that a test has left at a stalled server.
        pool.abort()


@pytest.fixture
def instant_waits() -> Iterator[InstantClock]:
    """Pools that are made in this test do not really wait before a retry: see :class:`InstantClock`, which it gives.

    The clock that was there before is put back after the test.
    """
    clock = InstantClock()
    previous = install_clock(clock)
    try:
        yield clock
    finally:
        install_clock(previous)
