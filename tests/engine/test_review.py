"""What looks at answers before a call ends: whatever it does, the call ends once and the worker goes on."""

from __future__ import annotations

import dataclasses
import json
import threading

import pytest

from chatpool import ChatPool, ChatPoolError, ParseError, RetryPolicy
from chatpool._client.pool import _send
from chatpool._engine import Review
from chatpool.testing import Answer, Error
from chatpool.types import ChatRequest


@pytest.fixture
def pool(chatpool_server):
    with ChatPool("m", base_url=chatpool_server.base_url, max_workers=1) as pool:
        yield pool


@pytest.fixture
def ask(pool):
    """``ask(text, review)`` is the future of a call whose answer ``review(request, value, reasks)`` looks at."""

    def ask(text, review):
        options = dataclasses.replace(pool._call_options(), review=review)
        return _send(pool._core, text, ChatRequest({"messages": [{"role": "user", "content": text}]}), options)

    return ask


def question(text):
    return ChatRequest({"messages": [{"role": "user", "content": text}]})


def test_it_may_take_another_value(ask):
    assert ask("x", lambda request, value, reasks: Review(value.text * 2)).result(60) == "xx"


def test_it_may_ask_something_else_and_hears_how_often_it_did(ask, chatpool_server):
    heard = []

    def review(request, value, reasks):
        heard.append((request.body["messages"][0]["content"], value.text, reasks))
        return Review(value) if reasks == 2 else Review(request=question(value.text + "!"), reason="not yet")

    assert ask("x", review).result(60).text == "x!!"
    assert heard == [("x", "x", 0), ("x!", "x!", 1), ("x!!", "x!!", 2)]
    assert [request.prompt for request in chatpool_server.requests] == ["x", "x!", "x!!"]


def test_it_may_refuse_the_answer(ask, pool):
    error = ParseError("no")
    assert ask("x", lambda request, value, reasks: Review(error=error, reason="no")).exception(60) is error
    assert error.attempts == 1
    stats = pool.stats()
    assert (stats.failed, stats.usage.completion_tokens) == (1, 1)


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_one_that_raises_costs_its_own_call_only(ask, pool, kind, caplog):
    def review(request, value, reasks):
        raise kind("broken")

    error = ask("x", review).exception(60)
    assert isinstance(error, ChatPoolError)
    assert isinstance(error.__cause__, kind)
    assert "internal error" in caplog.text
    assert pool.chat("y").text == "y"


def test_a_request_that_cannot_be_sent_ends_the_call(ask, pool):
    def review(request, value, reasks):
        return Review(request=ChatRequest({"messages": {1, 2}}))

    assert "messages is a builtins.set" in str(ask("x", review).exception(60))
    assert pool.chat("y").text == "y"


def test_a_call_whose_answer_is_looked_at_is_in_flight(ask, pool):
    looked_at, go_on = threading.Event(), threading.Event()

    def review(request, value, reasks):
        looked_at.set()
        assert go_on.wait(60)
        return Review(value)

    future = ask("x", review)
    assert looked_at.wait(60)
    assert pool.stats().in_flight == 1  # its worker is not free
    go_on.set()
    assert future.result(60).text == "x"


def test_an_answer_lets_calls_out_that_were_held_before_it_is_looked_at(chatpool_server):
    """After an outage the first answer opens the gate: others do not wait for what is made of it."""
    chatpool_server.enqueue(*[Error(503)] * 6)
    retry = RetryPolicy(wait_initial=0.01)
    with ChatPool("m", base_url=chatpool_server.base_url, max_workers=2, retry=retry) as pool:
        others_ended = threading.Event()

        def review(request, value, reasks):
            assert others_ended.wait(60)
            return Review(value)

        options = dataclasses.replace(pool._call_options(), review=review)
        first = _send(pool._core, "x", question("x"), options)
        others = [pool.submit(str(number)) for number in range(5)]
        for future in others:
            future.result(20)
        others_ended.set()
        assert first.result(60).text == "x"


def test_bodies_are_encoded_anew(ask, chatpool_server):
    ask("x", lambda request, value, reasks: Review(value) if reasks else Review(request=question("é"))).result(60)
    assert json.loads(chatpool_server.requests[1].raw)["messages"][0]["content"] == "é"


def test_a_failure_after_it_was_asked_again_is_the_calls(ask, chatpool_server):
    chatpool_server.enqueue(None, Answer(status=400, body={"error": {"message": "no"}}))
    error = ask("x", lambda request, value, reasks: Review(request=question("y"), reason="no")).exception(60)
    assert (error.status_code, error.attempts) == (400, 2)
