"""Responses that the server makes in the background: asked for until they have ended, and no worker waits."""

from __future__ import annotations

import queue

import pytest

from chatpool import (
    APIResponseError,
    BadRequestError,
    Budget,
    BudgetExceededError,
    ChatPool,
    ConfigurationError,
    DeadlineExceededError,
    Endpoint,
    InternalServerError,
    Limits,
    NotFoundError,
    Timeout,
)
from chatpool.testing import Answer, BackgroundScenario, Error, LostAnswer, RateLimited
from tests.waiting import until

HELD = BackgroundScenario(polls=None)
LONG = BackgroundScenario(polls={"queued": 3, "in_progress": 6})


def sent(server, method="POST", path="/v1/responses"):
    """The requests to start a response; with another method, those that ask for one."""
    requests = [request for request in server.requests if request.method == method]
    return [request for request in requests if path is None or request.path == path]


def polls(server):
    return sent(server, "GET", None)


def cancels(server):
    return [request for request in server.requests if request.path.endswith("/cancel")]


def failing_polls(*steps):
    """A script that answers the first polls by these steps, one each."""
    left = list(steps)
    return lambda request: left.pop(0) if left and request.method == "GET" else None


@pytest.fixture
def connect(chatpool_server_factory):
    """A function that makes a server for background responses and a pool."""
    pools = []

    def make(scenario=None, *, max_workers=2, script=None, **options):
        server = chatpool_server_factory(script=script, background=scenario)
        pools.append(ChatPool("m", base_url=server.base_url, max_workers=max_workers, **options))
        return server, pools[-1]

    yield make
    for pool in pools:
        pool.abort()


@pytest.mark.usefixtures("instant_waits")
class TestItEnds:
    def test_as_an_ordinary_response_does(self, connect):
        events = []
        server, pool = connect(LONG, listeners=[events.append])
        reply = pool.responses("ping", background=True)
        assert (reply.text, reply.finish_reason, reply.usage.total_tokens) == ("ping", "stop", 2)
        assert (len(sent(server)), len(polls(server))) == (1, 10)
        assert [event.kind for event in events] == ["queued", "sent", "succeeded"]
        assert events[-1].usage.total_tokens == 2

    def test_with_one_attempt_in_its_history(self, connect):
        _, pool = connect(LONG)
        outcome = pool.map([{"input": "ping", "background": True}]).outcomes[0]
        assert [(attempt.reason, attempt.status) for attempt in outcome.history] == [("ok", 200)]
        assert outcome.history[0].elapsed == pytest.approx(outcome.elapsed, abs=0.1)
        assert outcome.elapsed > 20  # the waits between the polls are a part of it
        assert outcome.usage.total_tokens == 2

    def test_incomplete_because_of_its_length(self, connect):
        _, pool = connect(BackgroundScenario(end="incomplete"))
        assert pool.responses("ping", background=True).finish_reason == "length"

    def test_failed_at_the_server_it_is_made_again_as_often_as_retries_allow(self, connect):
        server, pool = connect(BackgroundScenario(end="failed"), retry=2)
        with pytest.raises(InternalServerError):
            pool.responses("ping", background=True)
        assert len(sent(server)) == 3

    def test_failed_for_a_fault_of_the_request_it_is_not(self, connect):
        server, pool = connect(BackgroundScenario(end="failed", error=("invalid_image_url", "no such image")))
        with pytest.raises(BadRequestError, match="no such image"):
            pool.responses("ping", background=True)
        assert len(sent(server)) == 1

    def test_cancelled_by_somebody_else_it_is_not_made_again(self, connect):
        server, pool = connect(BackgroundScenario(end="cancelled"))
        with pytest.raises(APIResponseError, match="cancelled at the server"):
            pool.responses("ping", background=True)
        assert len(sent(server)) == 1
        assert cancels(server) == []

    def test_an_answer_that_is_not_accepted_is_asked_for_by_a_response_of_its_own(self, connect):
        server, pool = connect()
        answers = iter(["no number", "42"])
        reply = pool.responses("ping", background=True, parse=lambda text: int(next(answers)), max_reasks=1)
        assert reply.parsed == 42
        first, second = (request.body["input"] for request in sent(server))
        assert (first, len(second)) == ("ping", 3)
        assert all(request.body["background"] for request in sent(server))
        assert len({poll.path for poll in polls(server)}) == 2

    def test_answers_that_are_collected_from_streams_come_whole_from_the_background(self, connect):
        server, pool = connect()
        assert pool.responses("ping", background=True, collect_stream=True).text == "ping"
        assert "stream" not in sent(server)[0].body


class TestWorkers:
    def test_none_waits_for_it(self, chatpool_server_factory):
        server = chatpool_server_factory(background=HELD)
        with ChatPool("m", base_url=server.base_url, max_workers=1) as pool:
            futures = [pool.submit({"input": f"row {n}", "background": True}) for n in range(50)]
            until(lambda: len(server.background) == 50 and pool.stats().parked == 50)
            assert pool.chat("at once").text == "at once"
            assert [response["status"] for response in server.background] == ["queued"] * 50
            while server.advance():
                pass
            assert [future.result(60).text for future in futures] == [f"row {n}" for n in range(50)]
        assert len(sent(server)) == 50

    def test_polls_and_other_calls_take_turns(self, connect, fake_clock, gate):
        def script(request):
            if "held" in str(request.body):
                gate.wait(60)

        server, pool = connect(HELD, max_workers=1, script=script)
        slow = [pool.submit({"input": "slow", "background": True}) for _ in range(5)]
        until(lambda: pool.stats().parked == 5)
        held = pool.submit("held")
        server.wait_until(lambda: server.in_flight == 1, timeout=60)
        fast = [pool.submit("fast") for _ in range(5)]
        fake_clock.advance(1)  # the polls are due
        gate.set()
        assert {str(future.result(60)) for future in [held, *fast]} == {"held", "fast"}
        server.wait_until(lambda: len(polls(server)) == 5, timeout=60)
        methods = "".join(request.method[0] for request in server.requests[-10:])
        assert methods in ("GP" * 5, "PG" * 5)
        while server.advance():
            pass
        until(lambda: pool.stats().parked == 5)
        fake_clock.advance(30)
        assert {future.result(60).text for future in slow} == {"slow"}

    def test_a_call_that_is_made_in_a_worker_asks_there(self, connect, instant_waits):
        _, pool = connect(LONG, max_workers=1)
        inner = queue.SimpleQueue()
        future = pool.submit("outer")
        future.add_done_callback(lambda _: inner.put(pool.responses("inner", background=True).text))
        assert inner.get(timeout=60) == "inner"

    def test_polls_take_nothing_of_the_limits(self, connect, instant_waits):
        server, pool = connect(LONG, limits=Limits(requests_per_minute=2))
        before = instant_waits.skipped
        assert pool.responses("ping", background=True).text == "ping"
        assert len(polls(server)) == 10
        assert instant_waits.skipped - before < 130  # at the pace of the limit ten polls would take five minutes

    def test_the_budget_holds_what_it_is_expected_to_take_until_it_has_ended(self, connect):
        server, pool = connect(HELD, budget=Budget(tokens=150))  # one answer, before the first, counts as 100
        first = pool.submit({"input": "ping", "background": True, "max_output_tokens": 100})
        until(lambda: pool.stats().parked == 1)
        second = pool.submit({"input": "pong", "max_output_tokens": 100})
        server.wait_until(lambda: len(polls(server)) > 1, timeout=60)
        assert not second.done()
        assert len(sent(server)) == 1
        while server.advance():
            pass
        assert (first.result(60).text, second.result(60).text) == ("ping", "pong")

    def test_what_is_given_up_frees_the_budget(self, connect):
        server, pool = connect(HELD, budget=Budget(tokens=250))
        first = pool.submit({"input": "ping", "background": True, "max_output_tokens": 100})
        until(lambda: pool.stats().parked == 1)
        second = pool.submit({"input": "pong", "background": True, "max_output_tokens": 100})
        until(lambda: pool.stats().parked == 2)
        third = pool.submit({"input": "last", "max_output_tokens": 100})
        assert (first.cancel(), second.cancel()) == (True, True)
        with pytest.raises(BudgetExceededError):  # both may be billed all the same; and the call does not wait for ever
            third.result(60)


@pytest.mark.usefixtures("instant_waits")
class TestPolls:
    def test_that_fail_are_made_again_and_the_request_is_not(self, connect):
        script = failing_polls(Error(503), LostAnswer(), RateLimited(1), Error(500), Answer(body="<html>"))
        server, pool = connect(LONG, script=script)
        outcome = pool.map([{"input": "ping", "background": True}]).outcomes[0]
        assert outcome.value.text == "ping"
        assert len(sent(server)) == 1
        reasons = [attempt.reason for attempt in outcome.history]
        expected = ["503 server_error", "connection failed", "429 rate_limit_exceeded", "500", "unusable answer", "ok"]
        assert [reason.startswith(words) for reason, words in zip(reasons, expected)] == [True] * 6

    def test_that_went_well_forgive_the_failures_before_them(self, connect):
        numbers = iter(range(100))
        script = lambda request: Error(503) if request.method == "GET" and next(numbers) % 2 else None  # noqa: E731
        server, pool = connect(LONG, script=script, retry=1)
        assert pool.responses("ping", background=True).text == "ping"
        assert len(sent(server)) == 1

    def test_that_only_fail_end_the_call(self, connect):
        script = lambda request: Error(503) if request.method == "GET" else None  # noqa: E731
        server, pool = connect(script=script, retry=2)
        with pytest.raises(InternalServerError) as caught:
            pool.responses("ping", background=True)
        assert caught.value.attempts == 3
        assert (len(sent(server)), len(polls(server))) == (1, 3)

    def test_of_a_response_that_is_gone_say_so(self, connect):
        server, pool = connect(script=failing_polls(Error(404)))
        with pytest.raises(NotFoundError, match="no longer has the response resp-0") as caught:
            pool.responses("ping", background=True)
        assert caught.value.status_code == 404
        assert len(sent(server)) == 1

    def test_wait_as_long_as_the_server_asks(self, connect, instant_waits):
        queued = {"id": "resp-0", "object": "response", "status": "queued", "background": True, "output": []}
        server, pool = connect(script=failing_polls(Answer(body=queued, headers={"retry-after": "77"})))
        before = instant_waits.now()
        assert pool.responses("ping", background=True).text == "ping"
        assert instant_waits.now() - before > 77

    @pytest.mark.parametrize("response_id", [None, 7, "", ".", "..", "x" * 1001])
    def test_need_a_name(self, connect, response_id):
        body = {"id": response_id, "object": "response", "status": "queued", "background": True, "output": []}
        server, pool = connect(script=[Answer(body=body)])
        with pytest.raises(APIResponseError, match="status 'queued'"):
            pool.responses("ping", background=True)
        assert len(server.requests) == 1

    def test_go_to_no_other_path_whatever_the_name_is(self, connect):
        body = {"id": "../files/a?b#c%", "object": "response", "status": "queued", "background": True, "output": []}
        server, pool = connect(script=[Answer(body=body)])
        with pytest.raises(NotFoundError):
            pool.responses("ping", background=True)
        assert polls(server)[0].path == "/v1/responses/..%2Ffiles%2Fa%3Fb%23c%25"


class TestEndpoints:
    def test_the_one_that_has_the_response_is_asked_and_no_other(self, chatpool_server_factory, instant_waits):
        first = chatpool_server_factory(background=LONG, script=failing_polls(*[Error(503)] * 3))
        second = chatpool_server_factory(background=LONG, script=failing_polls(*[Error(503)] * 3))
        endpoints = [Endpoint(server.base_url) for server in (first, second)]
        with ChatPool("m", endpoints=endpoints, max_workers=4) as pool:
            replies = pool.map([{"input": f"row {n}", "background": True} for n in range(8)])
        assert [str(reply) for reply in replies] == [f"row {n}" for n in range(8)]
        assert len(sent(first)) + len(sent(second)) == 8
        failed = [attempt for outcome in replies.outcomes for attempt in outcome.history if attempt.reason != "ok"]
        assert failed
        assert min(attempt.wait for attempt in failed) > 0.05  # the other one is no reason not to wait for this one
        for server in (first, second):
            own = {f"/v1/responses/{response['id']}" for response in server.background}
            assert {poll.path for poll in polls(server)} == own

    def test_a_request_that_one_refuses_goes_to_another(self, chatpool_server_factory, instant_waits):
        down = chatpool_server_factory(script=lambda request: Error(503))
        up = chatpool_server_factory(background=LONG)
        endpoints = [Endpoint(server.base_url) for server in (down, up)]
        with ChatPool("m", endpoints=endpoints) as pool:
            assert pool.responses("ping", background=True).text == "ping"
        assert polls(down) == []


class TestTime:
    def test_it_has_four_hours_unless_the_total_is_set(self):
        assert Timeout().in_background == (14_400.0, "timeout.background")
        assert Timeout(total=60).in_background == (60.0, "timeout.total")
        assert Timeout(total=60, background=7200).in_background == (7200.0, "timeout.background")
        with pytest.raises(ConfigurationError, match=r"timeout\.background"):
            Timeout(background=0)

    @pytest.mark.usefixtures("instant_waits")
    def test_longer_than_the_total_of_other_calls_is_no_error(self, connect, instant_waits):
        _, pool = connect(BackgroundScenario(polls=60))
        before = instant_waits.now()
        assert pool.responses("ping", background=True).text == "ping"
        assert instant_waits.now() - before > 1800

    def test_nor_does_its_caller_give_up_before(self, connect):
        server, pool = connect(BackgroundScenario(polls=1), timeout=Timeout(total=0.6, background=600))
        assert pool.responses("ping", background=True).text == "ping"  # the second poll comes after a second
        assert len(polls(server)) >= 2

    def test_nor_where_the_call_was_watched_from_its_beginning(self, connect, fake_clock):
        server, pool = connect(HELD, budget=Budget(tokens=10**6))  # with a budget any call may wait long for its turn
        future = pool.submit({"input": "ping", "background": True})
        fake_clock.until_waiting(2, timeout=60)  # a worker for the poll, and the watch
        fake_clock.advance(1801)
        server.wait_until(lambda: len(polls(server)) == 1, timeout=60)
        fake_clock.until_waiting(2, timeout=60)
        assert not future.done()
        while server.advance():
            pass
        fake_clock.advance(30)
        assert future.result(60).text == "ping"

    @pytest.mark.usefixtures("instant_waits")
    @pytest.mark.parametrize("method", ["responses", "map"])
    def test_a_total_bounds_it_whole(self, connect, method):
        server, pool = connect(HELD, timeout=Timeout(total=100))
        if method == "map":
            error = pool.map([{"input": "ping", "background": True}]).outcomes[0].error
        else:
            with pytest.raises(DeadlineExceededError) as caught:
                pool.responses("ping", background=True)
            error = caught.value
        assert isinstance(error, DeadlineExceededError)
        assert "(timeout.total) ran out while the server made its response in the background" in str(error)
        assert len(sent(server)) == 1


class TestCancelling:
    def is_told(self, server):
        """Wait until the server has been told to stop everything that was begun."""
        server.wait_until(lambda: len(cancels(server)) >= len(server.background), timeout=60)
        assert len({request.path for request in cancels(server)}) == len(cancels(server))  # once for each
        until(lambda: {response["status"] for response in server.background} == {"cancelled"})

    def test_a_future_has_the_server_stop(self, connect):
        server, pool = connect(HELD, headers={"x-team": "a"})
        future = pool.submit({"input": "ping", "background": True})
        server.wait_until(lambda: len(polls(server)) > 1, timeout=60)
        assert future.cancel()
        self.is_told(server)
        assert cancels(server)[0].headers["x-team"] == "a"

    def test_abort_has_the_server_stop(self, connect):
        server, pool = connect(HELD)
        futures = [pool.submit({"input": "ping", "background": True}) for _ in range(5)]
        server.wait_until(lambda: len(server.background) == 5, timeout=60)
        until(lambda: pool.stats().parked == 5)
        pool.abort()
        assert all(future.done() for future in futures)
        self.is_told(server)

    def test_an_exception_that_leaves_the_pool_has_the_server_stop(self, chatpool_server_factory):
        server = chatpool_server_factory(background=HELD)
        with pytest.raises(KeyError), ChatPool("m", base_url=server.base_url) as pool:
            pool.submit({"input": "ping", "background": True})
            server.wait_until(lambda: len(polls(server)) > 0, timeout=60)
            raise KeyError
        self.is_told(server)

    def test_an_iterator_that_is_left_has_the_server_stop(self, connect):
        server, pool = connect(HELD)
        with pool.imap(["at once", {"input": "ping", "background": True}]) as outcomes:
            assert next(outcomes).value.text == "at once"
            until(lambda: len(server.background) == 1 and pool.stats().parked == 1)
        self.is_told(server)

    @pytest.mark.usefixtures("instant_waits")
    def test_a_call_that_is_out_of_time_has_the_server_stop(self, connect):
        server, pool = connect(HELD, timeout=Timeout(total=5))
        with pytest.raises(DeadlineExceededError):
            pool.responses("ping", background=True)
        self.is_told(server)

    @pytest.mark.usefixtures("instant_waits")
    def test_what_has_ended_is_left_alone(self, connect):
        server, pool = connect()
        future = pool.submit({"input": "ping", "background": True})
        future.result()
        assert not future.cancel()
        pool.abort()
        assert cancels(server) == []


class TestStreams:
    def test_a_promise_instead_of_a_stream_is_an_error_that_says_what_to_do(self, connect):
        body = {"id": "resp_1", "object": "response", "status": "queued", "background": True, "output": []}
        server, pool = connect(script=[Answer(body=body)])
        with pytest.raises(ConfigurationError, match="leave out background=True"):
            list(pool.stream({"input": "ping", "background": True}))
        assert len(server.requests) == 1
