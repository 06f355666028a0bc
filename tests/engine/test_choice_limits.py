"""``n`` of a request is lowered to what its server gives."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from chatpool import ChatRequest
from chatpool._engine.choice_limits import ChoiceLimits
from chatpool._values import RequestSize

KEY = ("https://api.example", "m")


class Server:
    """Answers with the status that belongs to the ``n`` of a call, and notes what it was asked for."""

    def __init__(self, statuses, default=200):
        self._statuses, self._default = statuses, default
        self.asked = []

    def answer(self, call):
        asked = json.loads(call.payload).get("n", 1)
        self.asked.append(asked)
        return SimpleNamespace(status=self._statuses.get(asked, self._default))


@pytest.fixture
def send():
    """``send(limits, server, n)`` sends a call for so many answers, and returns it and the status."""

    def send(limits, server, n):
        request = ChatRequest({"model": "m", "n": n} if n > 1 else {"model": "m"})
        size = RequestSize(10, 0, 100, n)
        call = SimpleNamespace(upstream_key=KEY, request=request, payload=encode(request), size=size)
        return call, limits.exchange(call, lambda: server.answer(call), encode, lambda: None).status

    return send


def encode(request):
    return json.dumps(request.body).encode()


def test_the_call_becomes_the_one_that_was_answered(send):
    limits, server = ChoiceLimits(), Server({8: 400, 4: 422})
    call, status = send(limits, server, 8)
    assert (status, server.asked) == (200, [8, 4, 2])
    assert (call.request.body["n"], call.size.choices) == (2, 2)
    assert limits.most(KEY) == 2


def test_one_answer_is_asked_for_without_a_number(send):
    call, _ = send(ChoiceLimits(), Server({2: 501}), 2)
    assert "n" not in call.request.body


@pytest.mark.parametrize("then", [400, 429, 503])
def test_a_request_that_is_not_answered_with_fewer_either_stays_as_it_was(send, then):
    limits, server = ChoiceLimits(), Server({4: 400}, default=then)
    call, status = send(limits, server, 4)
    assert status == then
    assert (call.request.body["n"], json.loads(call.payload)["n"], call.size.choices) == (4, 4, 4)
    assert limits.most(KEY) == 128


@pytest.mark.parametrize("status", [401, 404, 429, 500])
def test_other_failures_are_not_about_the_number(send, status):
    server = Server({4: status})
    assert send(ChoiceLimits(), server, 4)[1] == status
    assert server.asked == [4]


def test_what_was_given_before_is_not_held_against_the_number(send):
    limits, server = ChoiceLimits(), Server({4: 400, 6: 400})
    limits.note(KEY, asked=4, given=4)
    send(limits, server, 4)
    assert server.asked == [4]
    send(limits, server, 6)
    assert server.asked == [4, 6, 4]


@pytest.mark.parametrize(("asked", "given", "most"), [(4, 1, 1), (4, 3, 128), (1, 1, 128), (4, 4, 128)])
def test_a_single_answer_shows_that_the_number_is_ignored(asked, given, most):
    limits = ChoiceLimits()
    limits.note(KEY, asked, given)
    assert limits.most(KEY) == most


def test_not_where_there_were_several_before():
    limits = ChoiceLimits()
    limits.note(KEY, asked=2, given=2)
    limits.note(KEY, asked=2, given=1)
    assert limits.most(KEY) == 128
