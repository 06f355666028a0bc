"""Limits per day as the caller of a pool meets them: an error that says when to go on, or a wait."""

from __future__ import annotations

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from chatpool import ChatPool, ConfigurationError, DayLimitError, Endpoint, Limits, RateLimitError, Timeout
from chatpool._policy.day_window import SLOT_LIFE_SECONDS
from chatpool.errors import from_dict
from chatpool.testing import Answer, Error, FakeServer

HOUR = 3600.0
LONGEST_WAIT = 9 * HOUR  # of a call; what is waited for longer is its end
RPD = "Rate limit reached for m on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in {}."


def day_refusal(wait="7m12s", **headers):
    return Error(429, RPD.format(wait), "requests", "rate_limit_exceeded", headers=tuple(headers.items()))


@pytest.fixture
def server():
    with FakeServer() as server:
        yield server


@pytest.fixture
def pool_of(server):
    made = []

    def pool_of(model="m", **options):
        made.append(ChatPool(model, base_url=server.base_url, **options))
        return made[-1]

    yield pool_of
    for pool in made:
        pool.abort()


class TestOwnLimit:
    def test_a_run_ends_at_once_with_the_time_to_go_on(self, pool_of, server):
        pool = pool_of(limits=Limits(requests_per_day=3))
        began = time.time()
        results = pool.map([str(number) for number in range(200)], on_error="return", progress=False)
        assert [outcome.ok for outcome in results.outcomes].count(True) == len(server.requests) == 3
        error = results.fatal
        assert isinstance(error, DayLimitError)
        assert began + SLOT_LIFE_SECONDS - 1 <= error.resume_at <= time.time() + SLOT_LIFE_SECONDS
        assert error.retry_after == pytest.approx(SLOT_LIFE_SECONDS, abs=60)
        local = time.strftime("%Y-%m-%d", time.localtime(error.resume_at))
        assert f"Limits(requests_per_day=3) allows; go on in 24 h 5 min, at {local}" in str(error)
        assert all(
            isinstance(each, DayLimitError) and each.attempts == 0 for each in results if not hasattr(each, "text")
        )

    def test_models_have_days_of_their_own(self, pool_of):
        pool = pool_of(limits=Limits(requests_per_day=2))
        rows = [{"prompt": "a", "model": model} for model in "mnmnmn"]
        results = pool.map(
            rows, prompt=lambda row: {"messages": [{"role": "user", "content": "a"}], **row}, progress=False
        )
        assert [outcome.item["model"] for outcome in results.outcomes if outcome.ok] == ["m", "n", "m", "n"]

    def test_a_count_that_cannot_be_reached_is_not_called_a_day_that_is_used_up(self, pool_of, server):
        pytest.importorskip("redis")
        pool = pool_of(limits=Limits(requests_per_day=3, scope="redis://127.0.0.1:1/x"), timeout=Timeout(total=0.5))
        with pytest.raises(DayLimitError, match="count of the day cannot be reached"):
            pool.chat("ping")
        assert not server.requests

    def test_the_days_of_very_many_models_are_kept(self, pool_of, monkeypatch):
        monkeypatch.setattr("chatpool._engine.upstreams._MAX_IDLE_UPSTREAMS", 3)
        pool = pool_of(limits=Limits(requests_per_day=1))
        for number in range(12):
            pool.chat("ping", model=f"m{number}")
        with pytest.raises(DayLimitError):
            pool.chat("ping", model="m0")

    def test_a_call_that_cannot_wait_so_long_fails_at_once(self, pool_of, server):
        pool = pool_of(limits=Limits(requests_per_day=1))
        pool.chat("a")
        with pytest.raises(DayLimitError, match="requests_per_day=1"):
            pool.chat("b")
        with pytest.raises(DayLimitError):
            list(pool.stream("c"))
        assert len(server.requests) == 1

    def test_tokens_are_counted_by_what_answers_took(self, pool_of, server):
        pool = pool_of(limits=Limits(tokens_per_day=1000))
        used = pool.chat("a", max_tokens=900).usage.total_tokens
        stats = pool.stats().lines[(server.base_url, "m")]
        assert (stats.day_tokens_left, stats.day_requests_left) == (1000 - used, None)
        with pytest.raises(ConfigurationError, match=r"tokens_per_day=1,000"):
            pool.chat("b", max_tokens=2000)
        with pytest.raises(DayLimitError):
            pool.chat("b", max_tokens=1000 - used)
        assert pool.chat("c", max_tokens=500).text == "c"

    def test_statistics_say_what_is_left(self, pool_of, server):
        pool = pool_of(limits=Limits(requests_per_day=5, requests_per_minute=6000))
        pool.map(["a", "b"], progress=False)
        assert pool.stats().lines[(server.base_url, "m")].day_requests_left == 3

    def test_another_endpoint_takes_what_the_day_of_one_has_no_room_for(self, server):
        with FakeServer() as other:
            endpoints = [
                Endpoint(server.base_url, limits=Limits(requests_per_day=2)),
                Endpoint(other.base_url, limits=Limits(requests_per_day=4)),
            ]
            with ChatPool("m", endpoints=endpoints) as pool:
                results = pool.map(["a"] * 10, progress=False)
            assert (len(server.requests), len(other.requests)) == (2, 4)
        assert sum(outcome.ok for outcome in results.outcomes) == 6
        assert isinstance(results.fatal, DayLimitError)

    def test_a_value_that_makes_no_sense_is_refused(self):
        with pytest.raises(ConfigurationError, match="requests_per_day must be at least 1"):
            Limits(requests_per_day=0)
        with pytest.raises(TypeError, match="tokens_per_day must be a number"):
            Limits(tokens_per_day="many")
        with pytest.raises(TypeError, match="wait_for_day must be True or False"):
            ChatPool("m", api_key="k", wait_for_day="yes")

    def test_settings_survive_pickling(self):
        limits = Limits(requests_per_day=7, tokens_per_day=8, scope="x")
        assert pickle.loads(pickle.dumps(limits)) == limits
        assert "requests_per_day=7" in repr(limits)


def in_no_time(fake_clock, pool, do):
    """What ``do`` returns; while its calls only wait, time is put forward to when the next of them goes on."""
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(do)
        while not wait([future], 0.002).done:
            stats, next_due = pool.stats(), fake_clock.next_due
            if not stats.in_flight and stats.parked and next_due and next_due <= LONGEST_WAIT:
                fake_clock.advance(next_due)
    return future.result()


class Sent(list):
    """The times at which calls were sent, on the clock of their pool."""

    def __call__(self, event):
        if event.kind == "sent":
            self.append(event.time)


class TestWaiting:
    @pytest.mark.slow
    def test_a_run_goes_on_when_the_day_has_room(self, fake_clock, pool_of):
        sent = Sent()
        pool = pool_of(limits=Limits(requests_per_day=2), listeners=[sent])
        results = in_no_time(fake_clock, pool, lambda: pool.map(["a"] * 5, wait_for_day=True, progress=False))
        assert [outcome.ok for outcome in results.outcomes] == [True] * 5
        days = [int(at // SLOT_LIFE_SECONDS) for at in sent]
        assert days == [0, 0, 1, 1, 2]
        assert all(outcome.attempts == 1 for outcome in results.outcomes)

    def test_a_single_call_that_waits_has_its_time_still_before_it(self, fake_clock, pool_of):
        pool = pool_of(limits=Limits(requests_per_day=1))
        pool.chat("a")
        answer = in_no_time(fake_clock, pool, lambda: pool.chat("b", wait_for_day=True, timeout=Timeout(total=30)))
        assert answer.text == "b"
        assert fake_clock.now() >= SLOT_LIFE_SECONDS

    def test_a_single_call_waits_within_its_own_time(self, fake_clock, pool_of):
        pool = pool_of(limits=Limits(requests_per_day=1))
        pool.chat("a")
        longer = Timeout(total=2 * SLOT_LIFE_SECONDS)
        assert in_no_time(fake_clock, pool, lambda: pool.chat("b", timeout=longer)).text == "b"

    def test_a_run_whose_own_time_ends_before_does_not_wait_in_vain(self, fake_clock, pool_of):
        pool = pool_of(limits=Limits(requests_per_day=1), wait_for_day=True)
        results = in_no_time(fake_clock, pool, lambda: pool.map(["a", "b"], run_timeout=HOUR, progress=False))
        assert isinstance(results.fatal, DayLimitError)
        assert fake_clock.now() == 0

    def test_a_run_waits_for_minutes_without_being_told(self, fake_clock, pool_of):
        pool = pool_of(limits=Limits(requests_per_day=1))
        pool.chat("a")
        fake_clock.advance(SLOT_LIFE_SECONDS - 400)
        assert not in_no_time(fake_clock, pool, lambda: pool.map(["b"], progress=False)).failures

    def test_a_refused_run_waits_and_uses_up_no_retry(self, fake_clock):
        sent = Sent()
        with FakeServer(script=[day_refusal("8h24m0s")]) as server:
            options = {"retry": 1, "timeout": Timeout(total=60), "max_workers": 1, "listeners": [sent]}
            with ChatPool("m", base_url=server.base_url, wait_for_day=True, **options) as pool:
                results = in_no_time(fake_clock, pool, lambda: pool.map(["a", "b", "c"], progress=False))
        assert [outcome.ok for outcome in results.outcomes] == [True] * 3
        assert [at >= 8.4 * HOUR for at in sent] == [False, True, True, True]

    def test_a_call_inside_a_worker_waits_too(self, fake_clock, pool_of):
        inner, ended = [], threading.Event()

        def follow():
            if not inner:
                inner.append(None)
                inner.append(pool.chat("b", wait_for_day=True).text)
                ended.set()

        pool = pool_of(limits=Limits(requests_per_day=1), after_call=follow)
        pool.chat("a")
        while not ended.wait(0.002):
            fake_clock.advance(fake_clock.next_due or 0.0)
        assert inner == [None, "b"]


class TestServersLimit:
    def test_a_run_that_is_refused_for_the_day_ends_and_leaves_the_rest_unsent(self):
        with FakeServer(script=[Answer("a"), day_refusal()]) as server:
            with ChatPool("m", base_url=server.base_url, max_workers=1) as pool:
                results = pool.map([str(number) for number in range(50)], on_error="return", progress=False)
            assert len(server.requests) == 2
        error = results.fatal
        assert isinstance(error, DayLimitError)
        assert isinstance(error, RateLimitError)
        assert error.retry_after == 432
        assert error.resume_at == pytest.approx(time.time() + 432, abs=60)
        assert (error.status_code, error.code) == (429, "rate_limit_exceeded")
        assert "run what is left again then, or wait with wait_for_day" in str(error)

    def test_a_wait_of_seconds_is_waited_for_as_any_other(self):
        with FakeServer(script=[day_refusal("0.3s")]) as server, ChatPool("m", base_url=server.base_url) as pool:
            assert pool.chat("a").text == "a"

    def test_the_next_run_of_the_pool_is_told_without_a_request(self):
        with FakeServer(script=[day_refusal("3h0m0s")]) as server:
            with ChatPool("m", base_url=server.base_url) as pool:
                pool.map(["a"], progress=False)
                again = pool.map(["b"], on_error="return", progress=False)
            assert len(server.requests) == 1
        assert isinstance(again[0], DayLimitError)
        assert again[0].retry_after <= 3 * HOUR

    def test_the_error_survives_pickling_and_json(self):
        error = DayLimitError("m", retry_after=5.0, resume_at=7.5, status_code=429)
        for copy in (pickle.loads(pickle.dumps(error)), from_dict(error.to_dict()), error.copied()):
            assert (type(copy), copy.resume_at, copy.retry_after) == (DayLimitError, 7.5, 5.0)

    def test_another_endpoint_goes_on(self):
        with FakeServer(script=[day_refusal("3h0m0s")] * 8) as full, FakeServer() as free:
            with ChatPool("m", endpoints=[Endpoint(full.base_url), Endpoint(free.base_url)], max_workers=2) as pool:
                results = pool.map(["a"] * 20, progress=False)
            assert all(outcome.ok for outcome in results.outcomes)
            assert len(full.requests) <= 2


def test_a_journal_keeps_what_is_left_for_the_next_day(tmp_path, server):
    items = [str(number) for number in range(6)]
    journal = tmp_path / "run.journal"
    with ChatPool("m", base_url=server.base_url, limits=Limits(requests_per_day=4)) as pool:
        first = pool.map(items, journal=journal, progress=False)
    with ChatPool("m", base_url=server.base_url) as pool:
        second = pool.map(items, journal=journal, progress=False)
    assert (len(first.failures), len(second.failures)) == (2, 0)
    assert sorted(request.prompt for request in server.requests) == items


def test_a_refused_row_of_a_journal_is_not_taken_for_a_failure(tmp_path):
    journal = tmp_path / "run.journal"
    with FakeServer(script=[day_refusal("5h0m0s")]) as server:
        with ChatPool("m", base_url=server.base_url, max_workers=1) as pool:
            pool.map(["a", "b"], journal=journal, progress=False, max_failures=1)
        assert journal.read_text(encoding="utf-8").count("DayLimit") == 0
        with ChatPool("m", base_url=server.base_url) as pool:
            assert not pool.map(["a", "b"], journal=journal, progress=False).failures
        assert sorted(request.prompt for request in server.requests) == ["a", "a", "b"]


def test_the_bar_says_what_a_run_waits_for(server):
    limits = Limits(requests_per_day=1)
    with ChatPool("m", base_url=server.base_url, limits=limits, wait_for_day=True) as pool:
        pool.chat("a")
        waiting = pool.submit("b")
        until(lambda: "limit per day" in (pool.stats().waits_for or ""))
        assert pool.stats().waits_for.startswith("limit per day reached, goes on in 24 h 5 min")
        waiting.cancel()


def until(condition):
    seen = threading.Event()
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends
        seen.wait(0.01)
