"""Fallbacks, the cache, limits by the day and samples in one pool: each as it is alone, beside the others."""

from __future__ import annotations

import itertools
import pickle
import threading

import pytest

from chatpool import (
    Budget,
    Cache,
    CacheMissError,
    ChatPool,
    DayLimitError,
    Endpoint,
    LengthError,
    Limits,
    NotFoundError,
    PoolClosedError,
    Timeout,
)
from chatpool.testing import Answer, Error, FakeServer, chat_completion

GONE = Error(404, message="The model `first` does not exist.", code="model_not_found")
DAY_OVER = Error(429, "Rate limit reached on requests per day (RPD): Limit 200, Used 200.", code="rate_limit_exceeded")
CUT = Answer(body=chat_completion("Once upon", finish_reason="length", model="first", prompt="1 2 3"))
PRICES = {"first": (1000, 1000), "second": (1_000_000, 1_000_000)}  # of a million tokens


def numbered():
    """Replies of a model that never says the same twice."""
    numbers, lock = itertools.count(), threading.Lock()

    def reply(body):
        with lock:
            texts = [f"{body['model']} {next(numbers)}" for _ in range(body.get("n") or 1)]
        return texts if "n" in body else texts[0]

    return reply


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.db"


@pytest.fixture
def server_of():
    opened = []

    def make(script=None, **options):
        opened.append(FakeServer(script, reply=options.pop("reply", None) or numbered(), **options))
        return opened[-1]

    yield make
    for server in opened:
        server.close()


@pytest.fixture
def pool_of():
    pools = []

    def make(server, model="first", **options):
        pools.append(ChatPool(model, base_url=server.base_url, max_workers=4, **options))
        return pools[-1]

    yield make
    for pool in pools:
        pool.abort()


def refusing(*models, step=GONE):
    return lambda request: step if request.body.get("model") in models else None


def asked(server):
    return [request.body["model"] for request in server.requests]


def forget(server):
    """Make the requests so far none of those that :func:`news` returns."""
    server.seen = len(server.requests)


def news(server):
    return server.requests[server.seen :]


def texts(completion):
    return [choice.text for choice in completion.choices]


class TestSamplesAndFallbacks:
    def test_each_sample_falls_back_by_itself(self, server_of, pool_of):
        places = itertools.count()

        def every_second(request):
            return CUT if request.body["model"] == "first" and next(places) % 2 else None

        server = server_of(every_second)
        pool = pool_of(server, fallbacks=["second"])
        (outcome,) = pool.map(["A story."], samples=4, accept="stop").outcomes
        assert sorted(text.split()[0] for text in texts(outcome.value)) == ["first", "first", "second", "second"]
        assert sorted(asked(server)) == ["first"] * 4 + ["second"] * 2
        assert outcome.fallback == outcome.value.fallback == 1

    def test_a_parsed_sample_falls_back_after_its_reasks(self, server_of, pool_of):
        server = server_of(reply=lambda body: "7" if body["model"] == "second" else "seven")
        pool = pool_of(server, fallbacks=["second"])
        (reply,) = pool.map(["A number."], samples=2, parse=int, max_reasks=1)
        assert [choice.parsed for choice in reply.choices] == [7, 7]
        assert sorted(asked(server)) == ["first"] * 4 + ["second"] * 2

    def test_of_a_model_that_is_gone_samples_go_straight_to_the_fallback(self, server_of, pool_of):
        server = server_of(refusing("first"))
        pool = pool_of(server, fallbacks=["second"])
        results = pool.map([f"question {number}" for number in range(10)], samples=3)
        assert all(len(set(texts(reply))) == 3 and reply.text.startswith("second") for reply in results)
        assert asked(server).count("second") == 30
        assert asked(server).count("first") <= 4  # those that were sent at the same time

    def test_the_cost_is_that_of_each_model(self, server_of, pool_of):
        server = server_of(refusing("first", step=CUT))
        pool = pool_of(server, fallbacks=["second"], budget=Budget(cost=1000, prices=PRICES))
        results = pool.map(["A story."], samples=2, accept="stop")
        charges = results.outcomes[0].charges
        first, second = ([each.usage for each in charges if each.model == model] for model in ("first", "second"))
        assert len(first) == len(second) == 2
        assert sum(each.total_tokens for each in first + second) == results.usage.total_tokens
        cost = sum(each.total_tokens for each in first) * 0.001 + sum(each.total_tokens for each in second)
        assert results.cost(PRICES) == pytest.approx(cost)
        assert pool.stats().cost == pytest.approx(cost)

    def test_an_item_whose_last_fallback_fails_too_says_so(self, server_of, pool_of):
        server = server_of(refusing("first", "second", step=CUT))
        pool = pool_of(server, fallbacks=["second"])
        (error,) = pool.map(["A story."], samples=2, accept="stop", on_error="return")
        assert isinstance(error, LengthError)
        assert "no fallback is left" in str(error)


@pytest.mark.parametrize("choices", [128, 2, 1, "refused"])
class TestSamplesAndTheCache:
    """With servers that take ``n``, two answers at most, ignore it, or refuse it."""

    @pytest.fixture
    def server(self, server_of, choices):
        if choices == "refused":
            return server_of(lambda request: Error(400, message="no n here") if "n" in request.body else None)
        return server_of(choices=choices)

    def test_the_same_run_again_has_the_same_answers_and_sends_nothing(self, server, pool_of, path):
        first = pool_of(server, cache=path).map(["a", "b", "a"], samples=5)
        sent = len(server.requests)
        again = pool_of(server, cache=path).map(["a", "b", "a"], samples=5)
        assert len(server.requests) == sent
        assert [texts(reply) for reply in again] == [texts(reply) for reply in first]
        assert len({text for reply in again for text in texts(reply)}) == 15
        assert all(outcome.cached and not outcome.attempts for outcome in again.outcomes)
        assert again.usage.total_tokens == 0

    def test_more_samples_ask_for_the_missing_ones_only(self, server, choices, pool_of, path):
        pool = pool_of(server, cache=path)
        (three,) = pool.map(["a"], samples=3)
        forget(server)
        results = pool.map(["a"], samples=5)
        assert texts(results[0])[:3] == texts(three)
        assert len(set(texts(results[0]))) == 5
        assert [request.body.get("n", 1) for request in news(server)] == ([2] if choices == 128 else [1, 1])
        assert not results.outcomes[0].cached
        assert results.usage.completion_tokens == 4  # of two answers of two words

    def test_samples_are_the_occurrences_of_their_request(self, server, pool_of, path):
        pool = pool_of(server, cache=path)
        (reply,) = pool.map(["a"], samples=3)
        forget(server)
        assert pool.map(["a"] * 3).texts == texts(reply)
        assert pool.chat("a").text == reply.text
        assert not news(server)

    def test_the_single_answer_is_one_as_it_comes_alone(self, server, pool_of, path):
        pool = pool_of(server, cache=path)
        pool.map(["a"], samples=2)
        second = pool.map(["a"] * 2)[1]
        assert [choice["index"] for choice in second.raw["choices"]] == [0]
        assert second.usage.total_tokens == 0

    def test_seeds(self, server, pool_of, path):
        pool = pool_of(server, cache=path)
        first = pool.map(["a", "a"], samples=3, seed=7)
        forget(server)
        assert [texts(reply) for reply in pool.map(["a", "a"], samples=3, seed=7)] == [texts(each) for each in first]
        assert not news(server)

    def test_an_answer_that_parse_did_not_take_is_not_kept(self, server_of, choices, pool_of, path):
        said = itertools.count()
        server = server_of(reply=lambda body: [str(next(said)) if next(said) else "?"] * (body.get("n") or 1))
        pool = pool_of(server, cache=path)
        (first,) = pool.map(["a"], samples=3, parse=int)
        forget(server)
        (again,) = pool.map(["a"], samples=3, parse=int)
        assert [choice.parsed for choice in again.choices] == [choice.parsed for choice in first.choices]
        assert not news(server)

    def test_offline(self, server, pool_of, path):
        (recorded,) = pool_of(server, cache=path).map(["a"], samples=3)
        forget(server)
        offline = pool_of(server, cache=Cache(path, offline=True))
        assert texts(offline.map(["a"], samples=3)[0]) == texts(recorded)
        (error,) = offline.map(["a"], samples=4, on_error="return")
        assert isinstance(error, CacheMissError)
        assert texts(error.samples) == texts(recorded)
        assert not news(server)


class TestSamplesAndTheCacheInRuns:
    def test_a_retry_does_not_give_one_answer_twice(self, server_of, pool_of, path):
        failing = threading.Event()
        failing.set()
        seen = itertools.count()

        def first_fails(request):
            return Error(500) if failing.is_set() and next(seen) == 0 else None

        server = server_of(first_fails, choices=1)
        pool = ChatPool("first", base_url=server.base_url, cache=path, retry=0, max_workers=1)
        with pool:
            results = pool.map(["a"], samples=3, fallbacks=[], on_error="return")
            failing.clear()
            pool.retry(results)
            assert len(set(texts(results[0]))) == 3
            forget(server)
            assert texts(pool.map(["a"], samples=3)[0]) == texts(results[0])
        assert not news(server)

    def test_shared_outcomes_are_kept_once(self, server_of, pool_of, path):
        server = server_of()
        pool = pool_of(server, cache=path)
        pool.map(["a", "a"], samples=2, dedupe=True)
        one = pool.map(["b", "b"], dedupe=True)
        assert one.texts[0] == one.texts[1]
        assert len(set(pool.map(["b", "b"]).texts)) == 2
        first, second = pool.map(["a", "a"], samples=2)
        assert len({*texts(first), *texts(second)}) == 4

    def test_a_journal_has_them_too(self, server_of, pool_of, path, tmp_path):
        server = server_of()
        pool = pool_of(server, cache=path)
        first = pool.map(["a"], samples=3)
        forget(server)
        written = pool.map(["a"], samples=3, journal=tmp_path / "j")
        read = pool_of(server).map(["a"], samples=3, journal=tmp_path / "j")
        assert texts(written[0]) == texts(read[0]) == texts(first[0])
        assert not news(server)


class TestFallbacksAndTheCache:
    @pytest.mark.parametrize("when_single", [True, False])
    def test_the_answer_of_a_fallback_is_found_again(self, server_of, pool_of, path, when_single):
        server = server_of(refusing("first"))

        def run():
            pool = pool_of(server, cache=path, fallbacks=["second"])
            return [pool.chat("a")] if when_single else pool.map(["a"])

        (first,), (again,) = run(), run()
        assert asked(server) == ["first", "second", "first"]
        assert again.text == first.text
        assert (first.cached, again.cached, again.fallback) == (False, True, 1)
        assert again.usage.total_tokens == 0

    def test_it_is_kept_under_its_own_request(self, server_of, pool_of, path):
        server = server_of(refusing("first"))
        reply = pool_of(server, cache=path).chat("a", fallbacks=["second"])
        pool = pool_of(server, cache=path)
        assert pool.chat("a", model="second").text == reply.text
        with pytest.raises(NotFoundError):
            pool.chat("a")

    def test_after_an_answer_that_is_not_accepted(self, server_of, pool_of, path):
        server = server_of(refusing("first", step=CUT))
        for cached in (False, True):
            pool = pool_of(server, cache=path, budget=Budget(cost=1000, prices=PRICES))
            results = pool.map(["a"], accept="stop", fallbacks=["second"])
            outcome = results.outcomes[0]
            assert (outcome.cached, outcome.fallback) == (cached, 1)
            assert outcome.attempts == 1 + (not cached)
        # The answer that was cut is paid for, and that of the fallback is not.
        assert [
            charge.model for charge in outcome.charges if charge.usage is not None and charge.usage.total_tokens
        ] == ["first"]
        assert results.cost(PRICES) == pytest.approx(results.usage.total_tokens * 0.001)
        assert pool.stats().cost == pytest.approx(results.cost(PRICES))
        assert asked(server) == ["first", "second", "first"]

    def test_one_that_needed_a_reask(self, server_of, pool_of, path):
        said = iter(["seven", "7"])
        server = server_of(refusing("first"), reply=lambda body: next(said))
        for _ in range(2):
            assert pool_of(server, cache=path).chat("a", parse=int, fallbacks=["second"]).parsed == 7
        assert asked(server) == ["first", "second", "second", "first"]
        offline = pool_of(server, cache=Cache(path, offline=True))
        with pytest.raises(CacheMissError):
            offline.chat("a", parse=int)
        assert offline.chat("a", parse=int, fallbacks=["second"]).parsed == 7

    def test_that_of_a_standby_is_no_answer_of_the_pools_endpoint(self, server_of, pool_of, path):
        standby, fails = server_of(), threading.Event()
        server = server_of(lambda request: Error(401) if fails.is_set() else None)
        fails.set()
        spare = Endpoint(standby.base_url)
        reply = pool_of(server, cache=path, fallbacks=[spare]).chat("a")
        assert reply.fallback == 1
        again = pool_of(server, cache=path, fallbacks=[spare]).chat("a")
        assert (again.text, again.cached, again.fallback) == (reply.text, True, 1)
        assert len(standby.requests) == 1
        fails.clear()
        assert not pool_of(server, cache=path, fallbacks=[spare]).chat("a").cached

    def test_later_items_of_a_run_find_theirs_before_they_are_queued(self, server_of, pool_of, path):
        server = server_of(refusing("first"))
        items = [f"question {number}" for number in range(30)]
        first = pool_of(server, cache=path, fallbacks=["second"]).map(items)
        forget(server)
        pool = pool_of(server, cache=path, fallbacks=["second"])
        again = pool.map(items)
        assert again.texts == first.texts
        assert {request.body["model"] for request in news(server)} == {"first"}
        assert sum(outcome.attempts for outcome in again.outcomes) == len(news(server)) <= 4
        assert pool.stats().cached == len(items)

    def test_offline_has_what_the_fallback_has_answered(self, server_of, pool_of, path):
        server = server_of(refusing("first"))
        recorded = pool_of(server, cache=path, fallbacks=[{"model": "third", "n": None}, "second"]).chat("a")
        forget(server)
        pool = pool_of(server, cache=Cache(path, offline=True), fallbacks=["second", "third"])
        reply = pool.chat("a")
        assert (reply.text, reply.fallback, reply.cached) == (recorded.text, 2, True)
        (outcome,) = pool.map(["a"]).outcomes
        assert (outcome.fallback, outcome.attempts, outcome.cached) == (2, 0, True)
        assert not news(server)

    @pytest.mark.parametrize("samples", [2, 3])
    def test_offline_samples_of_fallbacks(self, server_of, pool_of, path, samples):
        server = server_of(refusing("first"))
        (recorded,) = pool_of(server, cache=path, fallbacks=["second"]).map(["a"], samples=3)
        forget(server)
        pool = pool_of(server, cache=Cache(path, offline=True), fallbacks=["second"])
        (outcome,) = pool.map(["a"], samples=samples).outcomes
        assert texts(outcome.value) == texts(recorded)[:samples]
        assert (outcome.fallback, outcome.cached) == (1, True)
        assert not news(server)

    def test_vectors_of_another_model_are_not_kept_as_those_of_the_first(self, server_of, pool_of, path):
        server = server_of(refusing("first"), reply=lambda body: "-")
        pool = pool_of(server, cache=path)
        vectors = pool.embed(["a", "b"], model="first", fallbacks=["second"])
        with pytest.raises(NotFoundError):
            pool.embed(["a", "b"], model="first", on_error="raise")
        forget(server)
        assert list(pool.embed(["a", "b"], model="second")) == list(vectors)
        assert not news(server)


class TestDayLimitsAndFallbacks:
    @pytest.mark.parametrize("scope", [None, "a day of these tests"])
    def test_a_model_whose_day_is_used_up_goes_on_with_the_fallback(
        self, server_of, pool_of, scope, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        server = server_of()
        pool = pool_of(server, limits=Limits(requests_per_day=3, scope=scope), fallbacks=["second"])
        results = pool.map([f"question {number}" for number in range(5)])
        assert not results.failures
        assert asked(server).count("first") == 3
        assert asked(server).count("second") == 2  # which has a day of its own
        assert pool.chat("one more").fallback == 1

    def test_that_of_the_server(self, server_of, pool_of):
        server = server_of(refusing("first", step=DAY_OVER))
        pool = pool_of(server, fallbacks=["second"])
        results = pool.map([f"question {number}" for number in range(20)])
        assert not results.failures
        assert asked(server).count("first") <= 4
        assert pool.chat("one more").fallback == 1

    def test_another_request_to_the_same_model_does_not_help(self, server_of, pool_of):
        server = server_of(refusing("first", step=DAY_OVER))
        pool = pool_of(server, fallbacks=[{"max_completion_tokens": 5}, "second"])
        assert pool.chat("a").fallback == 2
        assert asked(server) == ["first", "second"]

    def test_when_all_days_are_used_up_the_run_ends_and_says_when_to_go_on(self, server_of, pool_of):
        server = server_of()
        pool = pool_of(server, limits=Limits(requests_per_day=2), fallbacks=["second"])
        results = pool.map([f"question {number}" for number in range(50)], on_error="return")
        assert [outcome.ok for outcome in results.outcomes].count(True) == len(server.requests) == 4
        assert isinstance(results.fatal, DayLimitError)
        assert all(isinstance(each.error, DayLimitError) and each.error.resume_at for each in results.failures)

    def test_slots_that_are_minutes_away_are_not_waited_for(self, server_of, pool_of):
        server = server_of(
            refusing("first", step=Error(429, DAY_OVER.message, code=DAY_OVER.code, headers=[("retry-after", "300")]))
        )
        pool = pool_of(server, fallbacks=["second"], timeout=Timeout(total=3600))
        assert pool.chat("a").fallback == 1

    def test_a_standby_has_a_day_of_its_own(self, server_of, pool_of):
        server, standby = server_of(), server_of()
        limits = Limits(requests_per_day=2)
        spare = Endpoint(standby.base_url, limits=Limits(requests_per_day=1))
        pool = pool_of(server, limits=limits, fallbacks=[spare])
        results = pool.map(["a", "b", "c", "d"], on_error="return")
        assert (len(server.requests), len(standby.requests)) == (2, 1)
        assert [type(outcome.error) for outcome in results.failures] == [DayLimitError]


class TestDayLimitsAndTheCache:
    def test_what_is_in_the_cache_needs_no_day(self, server_of, pool_of, path):
        server = server_of()
        pool_of(server, cache=path).map(["a", "b", "c"])
        pool = pool_of(server, cache=path, limits=Limits(requests_per_day=1))
        assert not pool.map(["a", "b", "c", "d"]).failures
        assert pool.map(["a", "b", "c", "d"]).outcomes[3].cached
        (line,) = pool.stats().lines.values()
        assert line.day_requests_left == 0

    def test_nor_do_samples_and_fallbacks_in_it(self, server_of, pool_of, path):
        server = server_of(refusing("first"))
        pool_of(server, cache=path, fallbacks=["second"]).map(["a"], samples=3)
        limits = Limits(requests_per_day=1)
        pool = pool_of(server, cache=path, fallbacks=["second"], limits=limits)
        first_day = pool.chat("something else", model="second")
        assert first_day.text
        assert not pool.map(["a"], samples=3).failures

    def test_offline_needs_none(self, server_of, pool_of, path):
        server = server_of()
        pool_of(server, cache=path).map(["a", "b"])
        pool = pool_of(server, cache=Cache(path, offline=True), limits=Limits(requests_per_day=1))
        assert not pool.map(["a", "b"]).failures


class TestSamplesAndLimits:
    def test_n_is_one_request_of_the_day(self, server_of, pool_of):
        server = server_of()
        pool = pool_of(server, limits=Limits(requests_per_day=2))
        results = pool.map(["a", "b"], samples=5)
        assert not results.failures
        assert len(server.requests) == 2

    def test_requests_of_their_own_are_one_each(self, server_of, pool_of):
        server = server_of(choices=1)
        pool = pool_of(server, limits=Limits(requests_per_day=4))
        (error,) = pool.map(["a"], samples=5, on_error="return")
        assert isinstance(error, DayLimitError)
        assert error.resume_at
        assert [request.body.get("n") for request in server.requests] == [5, 2, None, None]  # two are refused
        assert len(error.samples.choices) == 2

    def test_with_several_processes_too(self, server_of, pool_of, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        server = server_of(choices=1)
        limits = Limits(requests_per_day=4, scope="a day of these tests")
        pool_of(server, limits=limits).map(["a"], samples=2, on_error="return")
        assert pool_of(server, limits=limits).map(["a", "b"], on_error="return").outcomes[0].ok
        assert [request.body.get("n") for request in server.requests] == [2, None, None, None]

    def test_n_takes_the_tokens_of_all(self, server_of, pool_of):
        limits = Limits(tokens_per_day=1000)
        server = server_of()
        pool = pool_of(server, limits=limits)
        results = pool.map(["a"], samples=5)
        (line,) = pool.stats().lines.values()
        assert line.day_tokens_left == 1000 - results.usage.total_tokens


def test_all_of_them_at_once(server_of, pool_of, path):
    """What listeners, statistics and results say of a pool with all four."""
    server = server_of(refusing("first", step=CUT))
    options = {"cache": path, "fallbacks": ["second"], "limits": Limits(requests_per_day=100)}
    options["budget"] = Budget(cost=10**6, prices=PRICES)
    for cached in (False, True):
        events = []
        pool = pool_of(server, listeners=[events.append], **options)
        results = pool.map(["a", "b"], samples=2, accept="stop")
        stats = pool.stats()
        usages = [event.usage for event in events if event.usage is not None]
        assert sum(usage.total_tokens for usage in usages) == results.usage.total_tokens
        assert stats.usage.total_tokens == results.usage.total_tokens
        assert stats.cost == pytest.approx(results.cost(PRICES))
        assert stats.cached == 4 * cached
        assert stats.fell_back == 4
        assert {outcome.cached for outcome in results.outcomes} == {cached}
        assert {event.kind for event in events} == {"queued", "sent", "falling_back", "succeeded"}
        assert {event.cached for event in events if event.kind == "succeeded"} == {cached or None}
        assert {event.model for event in events if event.kind == "succeeded"} == {"second"}


def test_a_pickled_pool_has_all_of_them(server_of, path):
    server = server_of(refusing("first"))
    pool = ChatPool(
        "first",
        base_url=server.base_url,
        cache=path,
        fallbacks=["second"],
        limits=Limits(requests_per_day=9),
        wait_for_day=True,
    )
    with pool, pickle.loads(pickle.dumps(pool)) as copy:
        reply = pool.chat("a")
        assert copy.chat("a").text == reply.text
        assert asked(server) == ["first", "second", "first"]
        assert copy._defaults.wait_for_day


def test_a_pool_that_is_closed_between_two_items_gives_each_one_outcome(path):
    with FakeServer() as server:
        with ChatPool("m", base_url=server.base_url, cache=path) as pool:
            pool.map(["a"], samples=2, progress=False)
        pool = ChatPool("m", base_url=server.base_url, cache=path, listeners=[lambda event: pool.close()])
        outcomes = pool.map(["a", "b"], samples=2, on_error="return", progress=False).outcomes
    assert [outcome.item for outcome in outcomes] == ["a", "b"]
    assert [outcome.cached for outcome in outcomes] == [True, False]
    assert type(outcomes[1].error) is PoolClosedError
