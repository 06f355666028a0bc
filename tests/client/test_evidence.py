"""Runs that end because of what many calls have met, and refusals that pass."""

from __future__ import annotations

import threading

import pytest

from chatpool import ChatPool, RetryPolicy
from chatpool.testing import Answer, Error, FakeServer, Html, RateLimited

ROWS = [f"row {number}" for number in range(300)]
pytestmark = pytest.mark.usefixtures("instant_waits")

EVERY_CALL = {
    "an unknown tenant": Error(400, "Tenant xyz is not configured"),
    "a page of nginx": Html(400, "<html><title>400 The plain HTTP request was sent to HTTPS port</title></html>"),
    "a used-up budget in other words": Error(422, "This team has no quota here", type="team_limit"),
    "the wrong method": Error(405),
    "gone": Error(410, "This API version was retired"),
    "a redirect to a login": Answer(status=302, body=b"", headers={"location": "https://login.example/"}),
}


@pytest.mark.parametrize("step", EVERY_CALL.values(), ids=EVERY_CALL)
@pytest.mark.parametrize("max_workers", [2, 16])
def test_one_and_the_same_refusal_of_many_calls_ends_the_run(chatpool_server, step, max_workers, stepped_time):
    chatpool_server.set_script(stepped_time.answer_after(0.02, step))
    with ChatPool("m", base_url=chatpool_server.base_url, max_workers=max_workers) as pool:
        results = stepped_time.run(pool, lambda: pool.map(ROWS, progress=False))
    enough = max(10, max_workers)
    assert results.fatal is not None
    sent = len(chatpool_server.requests)
    assert enough <= sent <= enough + 2 * max_workers  # others are on their way while it is found
    assert str(results.outcomes[-1].error).startswith("not sent: ")
    assert results.outcomes[-1].attempts == 0


def refuse_each(request):
    return Error(400, f"the field of {request.prompt} is wrong")


NOT_EVERY_CALL = {
    "other words for each row": refuse_each,
    "a context that is too long": Error(400, "too long", code="context_length_exceeded"),
    "a content filter": Error(400, "The response was filtered", code="content_filter"),
    "too large": Error(413),
}


# Of more rows max_failures= has its say.
@pytest.mark.parametrize("step", NOT_EVERY_CALL.values(), ids=NOT_EVERY_CALL)
def test_refusals_that_concern_one_row_end_no_run(step):
    with FakeServer(step if callable(step) else lambda request: step) as server:
        with ChatPool("m", base_url=server.base_url) as pool:
            results = pool.map(ROWS[:40], progress=False)
        assert results.fatal is None
        assert len(server.requests) == 40


def test_once_anything_has_succeeded_the_same_refusal_ends_only_its_calls(serve):
    server, pool = serve()
    assert pool.chat("ping").text == "ping"
    server.set_script(lambda request: Error(400, "no"))
    results = pool.map(ROWS[:40], progress=False)
    assert results.fatal is None
    assert len(server.requests) == 41


def test_the_calls_of_another_model_go_on():
    def script(request):
        return Error(400, "Tenant xyz has no such deployment") if request.body["model"] == "bad" else None

    message = {"role": "user", "content": "x"}
    rows = [{"model": "bad" if number % 2 else "good", "messages": [message]} for number in range(200)]
    with FakeServer(script) as server, ChatPool(base_url=server.base_url, max_workers=4) as pool:
        results = pool.map(rows, progress=False)
        bad = [request for request in server.requests if request.body["model"] == "bad"]
    assert results.fatal is not None
    assert sum(outcome.ok for outcome in results.outcomes) == 100
    assert len(bad) <= 10 + 4


def test_the_next_run_counts_anew(always):
    server, pool = always(Error(400, "no"))
    pool.map(ROWS, progress=False)
    before = len(server.requests)
    assert pool.map(ROWS[:5], progress=False).fatal is None
    assert len(server.requests) == before + 5


NO_KEY = Error(401)


class Revoked:
    """A server that takes a key for a while and then refuses it, for good or for some requests."""

    def __init__(self, good, refused=None, step=NO_KEY):
        self.good, self.refused, self.step = good, refused, step
        self.lock, self.seen = threading.Lock(), 0

    def __call__(self, request):
        with self.lock:
            self.seen += 1
            over = self.seen > self.good and (self.refused is None or self.seen <= self.good + self.refused)
        return self.step if over else None


PASSING = [Error(401), Error(403, "no", code=None, type=None), Error(404)]


@pytest.mark.parametrize("step", PASSING, ids=["401", "403", "404"])
def test_a_refusal_of_what_has_just_worked_may_pass(step):
    script, events = Revoked(good=20, refused=3, step=step), []
    with FakeServer(script) as server:
        with ChatPool("m", base_url=server.base_url, max_workers=1, listeners=[events.append]) as pool:
            results = pool.map(ROWS[:60], progress=False)
        assert all(outcome.ok for outcome in results.outcomes)
        assert len(server.requests) == 63
    assert [event.wait for event in events if event.kind == "retrying"] == [1.0] * 3


@pytest.mark.parametrize("step", PASSING[1:], ids=["403", "404"])
def test_a_model_that_is_taken_away_ends_the_run_once_enough_calls_have_met_it(step):
    with FakeServer(Revoked(good=20, step=step)) as server:
        with ChatPool("m", base_url=server.base_url, max_workers=4) as pool:
            results = pool.map(ROWS, progress=False)
        assert "every call is refused in these words" in str(results.fatal)
        assert len(server.requests) <= 20 + 4 + 3 + 10 + 4


def test_a_row_that_is_always_refused_fails_alone():
    def script(request):
        return Error(403, "no", code=None, type=None) if request.prompt == "row 30" else None

    with FakeServer(script) as server, ChatPool("m", base_url=server.base_url, max_workers=1) as pool:
        results = pool.map(ROWS, progress=False)
        assert results.fatal is None
        assert [outcome.index for outcome in results.failures] == [30]
        assert results.outcomes[30].attempts == 4


@pytest.mark.parametrize("max_workers", [1, 8])
def test_a_key_that_goes_on_being_refused_ends_the_run_after_three_tries(max_workers):
    with FakeServer(Revoked(good=20)) as server:
        with ChatPool("m", base_url=server.base_url, max_workers=max_workers) as pool:
            results = pool.map(ROWS, progress=False)
        assert type(results.fatal).__name__ == "AuthenticationError"
        assert len(server.requests) <= 20 + 2 * max_workers + 3


def test_a_key_that_has_never_worked_gets_no_more_tries(always):
    server, pool = always(Error(401), max_workers=1)
    assert pool.map(ROWS, progress=False).fatal is not None
    assert len(server.requests) == 1


def test_a_pool_without_retries_makes_no_more_tries():
    with FakeServer(Revoked(good=1)) as server:
        with ChatPool("m", base_url=server.base_url, retry=0) as pool:
            assert pool.chat("ping").text == "ping"
            results = pool.map(["a"], progress=False)
        assert results.fatal is not None
        assert len(server.requests) == 2


def test_retry_if_has_the_last_word():
    with FakeServer(Revoked(good=1)) as server:
        policy = RetryPolicy(retry_if=lambda error: False)
        with ChatPool("m", base_url=server.base_url, retry=policy) as pool:
            pool.chat("ping")
            assert pool.map(["a"], progress=False).fatal is not None
        assert len(server.requests) == 2


def test_an_unusable_answer_that_stays_the_same_is_asked_for_three_times(always):
    server, pool = always(Html(200))
    (outcome,) = pool.map(["a"], progress=False).outcomes
    assert outcome.attempts == len(server.requests) == 3


def test_retry_if_may_ask_for_more_of_the_same(always):
    server, pool = always(Html(200), retry=RetryPolicy(retry_if=lambda error: True, max_retries=5))
    (outcome,) = pool.map(["a"], progress=False).outcomes
    assert outcome.attempts == 6


def test_unusable_answers_that_differ_are_asked_for_again():
    def script(request):
        return Answer(body={"choices": [], "id": request.number}) if request.number < 6 else None

    with FakeServer(script) as server, ChatPool("m", base_url=server.base_url) as pool:
        assert pool.chat("ping").text == "ping"
        assert len(server.requests) == 7


@pytest.mark.parametrize("status", [408, 504, 524])
def test_a_time_out_of_a_gateway_is_sent_three_times(always, status):
    server, pool = always(Html(status))
    (outcome,) = pool.map(["a"], progress=False).outcomes
    assert outcome.attempts == len(server.requests) == 3
    assert [attempt.status for attempt in outcome.history] == [status] * 3


def test_a_403_with_a_wait_is_waited_for(serve):
    quota = Error(403, "Out of call volume quota.", type=None, code=None, headers={"retry-after": "9"})
    server, pool = serve(None, quota, quota)
    assert all(outcome.ok for outcome in pool.map(["a", "b", "c"], progress=False).outcomes)
    assert len(server.requests) == 5


def test_a_run_ends_at_a_quota_for_the_day_and_says_when_to_go_on(always):
    server, pool = always(RateLimited(9 * 3600, hint="retry-after"))
    results = pool.map(ROWS, progress=False)
    assert "go on in 9 h" in str(results.fatal)
    assert len(server.requests) <= 2 * 4


LOADING = Error(503, "Loading model", type="unavailable_error")


def loading_for(seconds, clock, step=LOADING):
    start = clock.now()
    return lambda request: step if clock.now() - start < seconds else None


@pytest.mark.parametrize("rows", [1, pytest.param(50, marks=pytest.mark.slow)])
def test_a_server_that_is_loading_is_waited_for(instant_waits, rows):
    with FakeServer(loading_for(200, instant_waits)) as server, ChatPool("m", base_url=server.base_url) as pool:
        results = pool.map(ROWS[:rows], progress=False)
        assert all(outcome.ok for outcome in results.outcomes)


def test_it_is_waited_for_as_long_as_max_outage_says(instant_waits):
    policy = RetryPolicy(max_outage=60)
    with FakeServer(loading_for(1e9, instant_waits)) as server:
        with ChatPool("m", base_url=server.base_url, retry=policy) as pool:
            results = pool.map(ROWS, progress=False)
        assert "no call has succeeded for 6" in str(results.fatal)


def test_other_failures_of_a_server_that_never_answered_are_given_up_sooner(instant_waits):
    with FakeServer(loading_for(1e9, instant_waits, Error(503, "no"))) as server:
        with ChatPool("m", base_url=server.base_url) as pool:
            results = pool.map(ROWS, progress=False)
        assert "no call has succeeded for 3" in str(results.fatal)
