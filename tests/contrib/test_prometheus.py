"""Metrics of a pool, as Prometheus reads them."""

from __future__ import annotations

import gc
import threading

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from chatpool import BadRequestError, ChatPool, Limits
from chatpool.contrib.prometheus import Collector
from chatpool.testing import Answer, Error, FakeServer, RateLimited, Reset, Stall


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def pool_of(registry):
    """A function from a server's script to a pool that is collected; its server is ``pool_of.server``."""
    opened = []

    def make(script=None, *, labels=None, **options):
        make.server = FakeServer(script)
        pool = ChatPool("m", base_url=make.server.base_url, **options)
        Collector(pool, registry, **(labels or {}))
        opened.extend([pool.abort, make.server.close])
        return pool

    yield make
    for close in opened:
        close()


def samples(registry, name):
    """The samples of a name by their labels, ``pool`` left out where it is the default."""
    found = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            if sample.name == name:
                labels = {key: value for key, value in sample.labels.items() if (key, value) != ("pool", "default")}
                found[tuple(sorted(labels.items()))] = sample.value
    return found


def by(registry, name, label):
    """The samples of a name by one label, the others added up."""
    found = {}
    for labels, value in samples(registry, name).items():
        found[dict(labels)[label]] = found.get(dict(labels)[label], 0) + value
    return found


def test_calls_are_counted_by_model_endpoint_and_outcome(pool_of, registry):
    pool = pool_of([Answer("a"), Error(400)])
    pool.chat("a")
    with pytest.raises(BadRequestError):
        pool.chat("b", model="n")
    url = pool_of.server.base_url
    assert samples(registry, "chatpool_calls_total") == {
        (("endpoint", url), ("model", "m"), ("outcome", "succeeded")): 1,
        (("endpoint", url), ("model", "n"), ("outcome", "BadRequestError")): 1,
    }


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (Error(503), "503"),
        (RateLimited(1), "429"),
        (Reset(), "connection"),
        (Stall(), "timeout"),
        (Answer(body={"choices": []}), "unusable_answer"),
    ],
)
@pytest.mark.parametrize("is_last", [False, True])
def test_attempts_are_counted_by_their_result(pool_of, registry, instant_waits, step, reason, is_last):
    pool = pool_of([step], timeout=0.5 if reason == "timeout" else None, retry=0 if is_last else 1)
    future = pool.submit("a")
    assert (future.exception(60) is None) is not is_last
    expected = {reason: 1} if is_last else {reason: 1, "ok": 1}
    assert by(registry, "chatpool_attempts_total", "reason") == expected


def test_an_answer_that_cannot_be_parsed_counts_once_each_time(pool_of, registry):
    pool = pool_of([Answer("x"), Answer("y"), Answer("z")], max_workers=1)
    assert pool.submit("a", parse=int, max_reasks=2).exception(30) is not None
    assert by(registry, "chatpool_attempts_total", "reason") == {"unusable_answer": 3}
    assert by(registry, "chatpool_calls_total", "outcome") == {"ParseError": 1}
    assert by(registry, "chatpool_tokens_total", "direction")["output"] == 3


def test_a_call_that_is_cancelled_in_its_wait_has_no_further_attempt(pool_of, registry):
    retrying = threading.Event()
    pool = pool_of([Error(503, headers={"retry-after": "50"})])
    pool.add_listener(lambda event: event.kind == "retrying" and retrying.set())
    future = pool.submit("a")
    assert retrying.wait(30)
    assert samples(registry, "chatpool_parked") == {(): 1}
    future.cancel()
    assert by(registry, "chatpool_attempts_total", "reason") == {"503": 1}
    assert by(registry, "chatpool_calls_total", "outcome") == {"CallCancelledError": 1}


def test_a_call_that_is_cancelled_in_flight_was_given_up(pool_of, registry):
    pool = pool_of(lambda request: Stall(), max_workers=1)
    flying, waiting = pool.submit("a"), pool.submit("b")
    pool_of.server.wait_for(1)
    assert samples(registry, "chatpool_in_flight") == {(): 1}
    assert samples(registry, "chatpool_queued") == {(): 1}
    waiting.cancel()
    flying.cancel()
    assert by(registry, "chatpool_attempts_total", "reason") == {"given_up": 1}
    assert by(registry, "chatpool_calls_total", "outcome") == {"CallCancelledError": 2}
    assert samples(registry, "chatpool_queue_seconds_count") == {(("model", "m"),): 1}


def test_tokens_are_those_of_the_server(pool_of, registry):
    pool = pool_of()
    usage = pool.chat("one two three").usage
    assert by(registry, "chatpool_tokens_total", "direction") == {
        "input": usage.prompt_tokens,
        "output": usage.completion_tokens,
    }


def test_seconds_are_observed_per_model(pool_of, registry, stepped_time):
    pool = pool_of(stepped_time.answer_after(0.5), max_workers=1)
    futures = [pool.submit("a"), pool.submit("b")]
    stepped_time.run(pool, lambda: [future.result() for future in futures])
    assert samples(registry, "chatpool_call_seconds_count") == {(("model", "m"),): 2}
    assert samples(registry, "chatpool_call_seconds_sum")[(("model", "m"),)] == pytest.approx(1.5, abs=0.1)
    assert samples(registry, "chatpool_queue_seconds_sum")[(("model", "m"),)] == pytest.approx(0.5, abs=0.1)


def test_limits_and_pauses_are_gauges(pool_of, registry):
    retrying = threading.Event()
    pool = pool_of([None, RateLimited(50)], limits=Limits(requests_per_minute=600))
    pool.add_listener(lambda event: event.kind == "retrying" and retrying.set())
    pool.chat("a")
    assert by(registry, "chatpool_rate_per_second", "model") == {"m": pytest.approx(10, rel=0.2)}
    assert by(registry, "chatpool_paused", "endpoint") == {pool_of.server.base_url: 0}
    future = pool.submit("b")
    assert retrying.wait(30)
    assert by(registry, "chatpool_paused", "endpoint") == {pool_of.server.base_url: 1}
    future.cancel()


def test_names_that_users_make_up_are_one_label(pool_of, registry):
    pool = pool_of(labels={"max_models": 3})
    for number in range(20):
        pool.chat("a", model=f"made-up-{number}")
    models = {"made-up-0", "made-up-1", "made-up-2", "other"}
    for name in ("chatpool_calls_total", "chatpool_tokens_total", "chatpool_call_seconds_count", "chatpool_paused"):
        assert set(by(registry, name, "model")) == models
    assert by(registry, "chatpool_calls_total", "model")["other"] == 17


def test_a_limit_of_names_below_one_is_refused(pool_of):
    with pytest.raises(ValueError, match="max_models must be at least 1, got 0"):
        pool_of(labels={"max_models": 0})


def test_pools_are_told_apart_by_their_names(pool_of, registry):
    first, second = pool_of(labels={"name": "web"}), pool_of(labels={"name": "nightly"})
    first.chat("a")
    second.map(["a", "b"], progress=False)
    assert by(registry, "chatpool_calls_total", "pool") == {"web": 1, "nightly": 2}
    assert samples(registry, "chatpool_in_flight") == {(("pool", "web"),): 0, (("pool", "nightly"),): 0}


def test_pools_of_one_name_are_added_up(registry):
    with FakeServer(lambda request: Stall()) as server:
        pools = [ChatPool("m", base_url=server.base_url) for _ in range(2)]
        for pool in pools:
            Collector(pool, registry)
            pool.submit("a")
        server.wait_for(2)
        assert samples(registry, "chatpool_in_flight") == {(): 2}
        for pool in pools:
            pool.abort()
    assert samples(registry, "chatpool_in_flight") == {(): 0}
    assert by(registry, "chatpool_calls_total", "outcome") == {"PoolClosedError": 2}


def test_a_pool_is_not_kept_alive(registry):
    with FakeServer() as server:
        pool = ChatPool("m", base_url=server.base_url, limits=Limits(requests_per_minute=60))
        Collector(pool, registry)
        pool.chat("a")
        pool.close()
        del pool
        gc.collect()
    assert set(by(registry, "chatpool_rate_per_second", "model").values()) <= {0}
    assert by(registry, "chatpool_calls_total", "outcome") == {"succeeded": 1}


def test_calls_of_views_and_of_all_threads_are_counted(pool_of, registry):
    pool = pool_of(max_workers=8)
    view = pool.with_options(model="n")
    assert view.map(map(str, range(300)), progress=False).failures == []
    assert by(registry, "chatpool_calls_total", "model") == {"n": 300}
    assert by(registry, "chatpool_attempts_total", "reason") == {"ok": 300}


def test_identical_items_are_calls_without_attempts(pool_of, registry):
    pool_of().map(["a"] * 5, dedupe=True, progress=False)
    assert by(registry, "chatpool_calls_total", "outcome") == {"succeeded": 5}
    assert by(registry, "chatpool_attempts_total", "reason") == {"ok": 1}


def test_names_follow_the_practices_of_prometheus(pool_of, registry):
    pool_of().chat("a")
    for family in registry.collect():
        assert family.name.startswith("chatpool_")
        assert family.documentation.endswith(".")
        assert family.type in ("counter", "gauge", "histogram")
        if family.type == "histogram":
            assert family.name.endswith("_seconds")
