"""Events to listeners."""

from __future__ import annotations

import logging

from chatpool._engine.dispatcher import Dispatcher
from chatpool.events import Event
from chatpool.testing import Error


def event(kind="succeeded"):
    return Event(kind, call_id=1, attempt=1, time=0.0)


def test_every_listener_gets_every_event():
    first, second = [], []
    dispatcher = Dispatcher([first.append, second.append])
    dispatcher.emit(event())
    assert first == second == [event()]


def test_a_listener_with_kinds_gets_only_those():
    class Failures(list):
        kinds = ("failed",)

        def __call__(self, heard):
            self.append(heard)

    failures = Failures()
    dispatcher = Dispatcher([failures])
    assert dispatcher.wants("failed")
    assert not dispatcher.wants("succeeded")
    dispatcher.emit(event("succeeded"))
    dispatcher.emit(event("failed"))
    assert failures == [event("failed")]


def test_a_listener_that_raises_is_logged_and_dropped_and_the_others_go_on(caplog):
    heard = []

    def broken(_):
        heard.append("broken")
        raise ValueError("no disk")

    dispatcher = Dispatcher([broken, heard.append])
    with caplog.at_level(logging.ERROR, logger="chatpool"):
        dispatcher.emit(event())
        dispatcher.emit(event())
    assert heard == ["broken", event(), event()]
    assert [record.exc_info[0] for record in caplog.records] == [ValueError]


def test_an_extended_dispatcher_shares_what_was_dropped():
    calls = []

    def broken(_):
        calls.append(1)
        raise ValueError

    dispatcher = Dispatcher([broken])
    dispatcher.emit(event())
    dispatcher.extended([calls.append]).emit(event())
    assert calls == [1, event()]


def test_a_handler_of_the_log_that_raises_costs_no_call(chatpool_pool, chatpool_server):
    class Raising(logging.Handler):
        def emit(self, record):
            raise RuntimeError("a handler of the user's own")

    logger, handler, level = logging.getLogger("chatpool"), Raising(), logging.getLogger("chatpool").level
    chatpool_server.enqueue(Error(503))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        assert [answer.text for answer in chatpool_pool.map(["a", "b"], progress=False)] == ["a", "b"]
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
