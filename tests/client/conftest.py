"""Servers and pools for the tests of the public pool."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from chatpool import ChatPool
from chatpool.testing import FakeServer


@pytest.fixture
def serve():
    """A function that makes a FakeServer and a pool for it; both end with the test."""
    with ExitStack() as stack:

        def make(*script, max_workers=4, latency=0.0, faults=None, **options):
            server = stack.enter_context(FakeServer(list(script) or None, latency=latency, faults=faults))
            pool = ChatPool(options.pop("model", "m"), base_url=server.base_url, max_workers=max_workers, **options)
            stack.callback(pool.abort)
            return server, pool

        yield make


@pytest.fixture
def always():
    """Like ``serve``, for a server that does the same thing with every request."""
    with ExitStack() as stack:

        def make(step, max_workers=4, **options):
            server = stack.enter_context(FakeServer(lambda request: step))
            pool = ChatPool("m", base_url=server.base_url, max_workers=max_workers, **options)
            stack.callback(pool.abort)
            return server, pool

        yield make


@pytest.fixture
def within():
    """``within(seconds, function)``: what the function returns or raises; fails the test if that takes longer."""

    def call(seconds, function, *arguments):
        ended = []

        def run():
            try:
                ended.append((function(*arguments), None))
            except BaseException as error:
                ended.append((None, error))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(seconds)
        assert ended, f"it hangs for {seconds} s"
        value, error = ended[0]
        if error is not None:
            raise error
        return value

    return call
