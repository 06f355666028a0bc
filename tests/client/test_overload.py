"""Servers that fail because they have too much to do, or by chance: nothing is lost, and who sets limits has them."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from chatpool import ChatPool, InternalServerError, Outcome, RetryPolicy, Timeout
from chatpool.testing import Error, FakeServer, Faults, Reset, embedding_vector

ROWS = [str(number) for number in range(200)]


class FailsBeyond:
    """A limit of requests in flight that answers 503, as nginx does by default."""

    def __init__(self, limit):
        self._limit = limit

    def refusal(self, now, in_flight):
        return Error(503) if in_flight >= self._limit else None


class FailsFasterThan:
    """A limit of requests per second that answers 503."""

    def __init__(self, per_second):
        self._gap, self._next = 1 / per_second, 0.0

    def refusal(self, now, in_flight):
        if now < self._next:
            return Error(503)
        self._next = now + self._gap
        return None


def poison(request):
    """A server that fails for one row, whenever it comes."""
    return Error(500) if request.prompt == "7" else None


@pytest.fixture
def open_pool():
    """A function from the server's options and the pool's to both."""
    opened = []

    def make(server_options, **options):
        server = FakeServer(**server_options)
        pool = ChatPool("m", base_url=server.base_url, **{"max_workers": 16, **options})
        opened.extend([pool, server])
        return server, pool

    yield make
    for one in opened:
        one.close()


def answered(results):
    return [str(result) for result in results]


class TestLimitsThatSay503:
    @pytest.mark.slow
    def test_of_requests_in_flight(self, open_pool, stepped_time):
        server, pool = open_pool({"limits": [FailsBeyond(4)], "script": stepped_time.answer_after(0.03)})
        assert answered(stepped_time.run(pool, lambda: pool.map(ROWS))) == ROWS
        assert len(server.requests) - len(ROWS) < 120

    @pytest.mark.slow
    def test_of_requests_per_second(self, open_pool, stepped_time):
        server, pool = open_pool({"limits": [FailsFasterThan(50)], "script": stepped_time.answer_after(0.02)})
        assert answered(stepped_time.run(pool, lambda: pool.map(ROWS))) == ROWS
        assert len(server.requests) - len(ROWS) < 150

    @pytest.mark.slow
    def test_in_streams(self, open_pool):
        server, pool = open_pool({"limits": [FailsBeyond(4)], "latency": 0.03})
        ends = {index: piece for index, piece in pool.stream_many(ROWS) if isinstance(piece, Outcome)}
        assert [ends[index].value.text for index in range(len(ROWS))] == ROWS

    @pytest.mark.slow
    def test_of_packed_embeddings(self, open_pool):
        server, pool = open_pool({"limits": [FailsBeyond(1)], "latency": 0.1})
        texts = [str(number) for number in range(12_000)]  # six requests
        vectors = pool.embed(texts, dimensions=1, progress=False)
        assert vectors == [pytest.approx(embedding_vector(text, 1)) for text in texts]
        assert len(server.requests) > 6

    @pytest.mark.slow
    def test_what_limits_it_is_told(self, open_pool, stepped_time):
        server, pool = open_pool({"limits": [FailsBeyond(4)], "script": stepped_time.answer_after(0.1)})
        stepped_time.run(pool, lambda: pool.map(ROWS))
        (line,) = pool.stats().lines.values()
        assert (line.concurrency_limit or line.rate * 0.1) <= 8  # as calls at once, or in a second


class TestFailuresAtRandom:
    @pytest.mark.parametrize("share", [0.05, 0.2])
    def test_none_is_lost_and_little_is_waited(self, open_pool, share, instant_waits):
        server, pool = open_pool({"faults": Faults({503: share}, seed=1)})
        began = instant_waits.skipped
        assert answered(pool.map(ROWS)) == ROWS
        assert instant_waits.skipped - began < 10

    def test_where_two_of_five_fail_none_is_lost_either(self, open_pool, instant_waits):
        server, pool = open_pool({"faults": Faults({503: 0.4}, seed=1)})
        assert answered(pool.map(ROWS)) == ROWS


class TestLimitsOfTheUser:
    @pytest.mark.parametrize("retry", [0, 1, RetryPolicy(max_retries=1, wait_initial=0.01)])
    def test_a_number_of_retries_is_kept_to_although_the_server_has_too_much_to_do(self, open_pool, retry):
        server, pool = open_pool({"limits": [FailsBeyond(1)], "latency": 0.05}, retry=retry)
        # Few rows: where many attempts fail in a row, the server is down, and that costs no retries.
        results = pool.map(ROWS[:5], on_error="return")
        assert any(isinstance(result, InternalServerError) for result in results)
        retries = retry if isinstance(retry, int) else 1
        assert max(Counter(request.prompt for request in server.requests).values()) <= retries + 1

    def test_so_is_the_time_of_a_call(self, open_pool):
        server, pool = open_pool({"limits": [FailsBeyond(0)]}, timeout=Timeout(total=0.5))
        with pytest.raises(Exception, match=r"timeout\.total"):
            pool.chat("hi")


class TestARowThatAlwaysFails:
    def test_it_is_given_up_and_no_other(self, open_pool, instant_waits):
        server, pool = open_pool({"script": poison})
        began = instant_waits.now()
        results = pool.map(ROWS, on_error="return")
        assert [number for number, result in enumerate(results) if isinstance(result, Exception)] == [7]
        assert 30 <= instant_waits.now() - began < 90

    @pytest.mark.parametrize("status", [500, 504])
    def test_nor_are_several_of_them_an_outage(self, open_pool, instant_waits, status):
        """Others that were sent after their first failure were answered: the server is there."""
        never = set(range(5, 200, 20))
        tries = Counter()

        def script(request):
            tries[request.prompt] += 1
            return Error(status) if int(request.prompt) in never else None

        server, pool = open_pool({"script": script})
        began = instant_waits.now()

        def rows():
            yield from ROWS[:190]
            # Each has failed once, and is tried again: the others are sent after that.
            server.wait_until(lambda: all(tries[str(number)] > 1 for number in never), timeout=60)
            yield from ROWS[190:]

        results = pool.map(rows(), on_error="return")
        failed = {number: result for number, result in enumerate(results) if isinstance(result, Exception)}
        assert set(failed) == never
        assert not any("max_outage" in str(error) for error in failed.values())
        assert instant_waits.now() - began < 120
        assert pool.chat("200").text == "200"

    def test_with_a_number_of_retries_it_is_tried_as_often(self, open_pool, instant_waits):
        server, pool = open_pool({"script": poison}, retry=3)
        results = pool.map(ROWS, on_error="return")
        assert isinstance(results[7], InternalServerError)
        assert len(server.requests) == len(ROWS) + 3


class StartsAgain:
    """A server that is killed in the midst of answers, and loads its model for a minute when it is started anew."""

    def __init__(self, clock):
        self._clock = clock
        self._numbers = itertools.count()
        self._ready_at = None

    def __call__(self, request):
        number = next(self._numbers)
        if number < 20:
            return None
        if number < 36:
            return Reset()
        if self._ready_at is None:
            self._ready_at = self._clock.now() + 60
        return Error(503, "Loading model") if self._clock.now() < self._ready_at else None


def test_a_server_that_is_loading_again_is_asked_once_a_second_whatever_went_before(instant_waits):
    with FakeServer(script=StartsAgain(instant_waits)) as server:
        with ChatPool("m", base_url=server.base_url, max_workers=16) as pool:
            results = pool.map(ROWS, progress=False)
        assert not results.failures, results.explain()
        assert len(server.requests) < 2 * len(ROWS)  # it was each row once a second
