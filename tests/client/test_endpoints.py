"""Pools with several endpoints, over real sockets."""

from __future__ import annotations

import json
import logging
import os
import pickle
from contextlib import ExitStack

import pytest
import requests

from chatpool import (
    AuthenticationError,
    BadRequestError,
    Budget,
    BudgetExceededError,
    ChatPool,
    ConfigurationError,
    Endpoint,
    InsufficientQuotaError,
    InternalServerError,
    Limits,
    NotFoundError,
    RateLimitError,
    Timeout,
    batch,
)
from chatpool._client.diagnostics import findings
from chatpool.testing import Error, FakeServer, Quota, RateLimited, Reset, Stall

WRONG_KEY = Error(401, "Incorrect API key provided")


@pytest.fixture
def servers():
    """A function that makes servers, each of which says its name; they end with the test."""
    with ExitStack() as stack:

        def make(*scripts, **options):
            made = []
            for number, script in enumerate(scripts):
                reply = lambda body, name="abc"[number]: name  # noqa: E731 - one per server
                made.append(stack.enter_context(FakeServer(script, reply=reply, **options)))
            return made

        yield make


@pytest.fixture
def pool_of():
    """A function that makes a pool of servers or endpoints; it ends with the test."""
    with ExitStack() as stack:

        def make(*places, **options):
            endpoints = [each if isinstance(each, Endpoint) else Endpoint(each.base_url) for each in places]
            pool = ChatPool(options.pop("model", "m"), endpoints=endpoints, **{"max_workers": 4, **options})
            stack.callback(pool.abort)
            return pool

        yield make


def texts(results):
    return [str(result) for result in results]


class TestWhereCallsGo:
    def test_all_endpoints_get_calls_and_every_call_is_answered_once(self, servers, pool_of):
        three = servers(None, None, None, latency=0.01)
        results = pool_of(*three, max_workers=12).map([str(number) for number in range(120)], progress=False)
        assert set(texts(results)) == {"a", "b", "c"}
        assert sum(len(server.requests) for server in three) == 120

    def test_the_one_that_answers_sooner_gets_more(self, servers, pool_of, stepped_time):
        quick, slow = servers(stepped_time.answer_after(0.005), stepped_time.answer_after(0.1))
        pool = pool_of(quick, slow, max_workers=8)
        stepped_time.run(pool, lambda: pool.map([str(number) for number in range(200)], progress=False))
        assert len(quick.requests) > 4 * len(slow.requests) > 0

    def test_a_weight_prefers_one(self, servers, pool_of, stepped_time):
        first, second = servers(*[stepped_time.answer_after(0.02)] * 2)
        pool = pool_of(Endpoint(first.base_url, weight=100), Endpoint(second.base_url), max_workers=4)
        stepped_time.run(pool, lambda: pool.map([str(number) for number in range(40)], progress=False))
        assert len(first.requests) >= 38

    def test_a_limit_holds_for_its_endpoint_only(self, servers, pool_of, instant_waits):
        limited, free = servers(None, None)
        endpoints = Endpoint(limited.base_url, limits=Limits(requests_per_minute=6)), Endpoint(free.base_url)
        results = pool_of(*endpoints).map([str(number) for number in range(50)], progress=False)
        assert not results.failures
        assert len(limited.requests) <= 2
        assert len(free.requests) >= 48

    @pytest.mark.slow
    def test_the_limits_of_the_pool_are_those_of_each_endpoint(self, servers, pool_of, stepped_time):
        two = servers(None, None)
        pool = pool_of(*two, limits=Limits(requests_per_minute=600))
        stepped_time.run(pool, lambda: pool.map([str(number) for number in range(100)], progress=False))
        assert 3 < stepped_time.now() < 5
        assert all(len(server.requests) > 35 for server in two)

    def test_a_call_that_is_too_large_for_one_goes_to_the_other(self, servers, pool_of):
        small, large = servers(None, None)
        endpoints = Endpoint(small.base_url, limits=Limits(tokens_per_minute=100)), Endpoint(large.base_url)
        pool = pool_of(*endpoints)
        assert pool.chat("x" * 2000, max_tokens=1).text == "b"
        assert not small.requests

    def test_a_call_that_is_too_large_for_all_is_told_so(self, servers, pool_of):
        two = servers(None, None)
        pool = pool_of(*two, limits=Limits(tokens_per_minute=100))
        with pytest.raises(ConfigurationError, match="tokens_per_minute"):
            pool.chat("x" * 2000)
        assert not [server.requests for server in two if server.requests]

    def test_a_call_that_is_too_large_for_the_one_that_is_left_is_told_so(self, servers, pool_of):
        refuses, small = servers(WRONG_KEY, None)
        endpoints = Endpoint(refuses.base_url), Endpoint(small.base_url, limits=Limits(tokens_per_minute=100))
        with pytest.raises(ConfigurationError, match="tokens_per_minute"):
            pool_of(*endpoints).chat("x" * 2000)

    def test_models_have_the_names_of_the_endpoint(self, servers, pool_of):
        first, second = servers(None, None, latency=0.02)
        endpoints = (
            Endpoint(first.base_url, model="gpt-eu"),
            Endpoint(second.base_url, model={"m": "gpt-us", "other": "x"}),
        )
        pool = pool_of(*endpoints)
        pool.map(["1", "2", "3", "4"], temperature=0.5, progress=False)
        pool.request("/moderations", {"input": "a"})
        asked = [request for request in first.requests if "messages" in request.body]
        assert {request.body["model"] for request in asked} == {"gpt-eu"}
        assert {request.body["model"] for request in second.requests if "messages" in request.body} == {"gpt-us"}
        assert all(request.body["temperature"] == 0.5 for request in asked)
        unchanged = [one for one in first.requests + second.requests if one.path == "/v1/moderations"]
        assert [one.body for one in unchanged] == [{"input": "a"}]

    def test_statistics_name_the_endpoints_and_no_keys(self, servers, pool_of):
        (server,) = servers(None)
        pool = pool_of(
            Endpoint(server.base_url, "sk-first-key"),
            Endpoint(server.base_url, "sk-second-key"),
            Endpoint(server.base_url, "sk-third-key", name="spare"),
        )
        pool.chat("ping")
        base = server.base_url
        assert list(pool.stats().lines) == [(base, "m"), (f"{base}#2", "m"), ("spare", "m")]
        assert "sk-" not in repr(pool) + repr(pool.stats()) + repr(Endpoint(base, "sk-first-key"))
        assert f"endpoints=['{base}', '{base}#2', 'spare']" in repr(pool)

    def test_two_keys_of_one_server_are_two_endpoints(self, servers, pool_of):
        (server,) = servers(None, latency=0.02)
        pool = pool_of(Endpoint(server.base_url, "sk-one"), Endpoint(server.base_url, "sk-two"))
        pool.map([str(number) for number in range(12)], progress=False)
        assert {request.headers["authorization"] for request in server.requests} == {"Bearer sk-one", "Bearer sk-two"}


class TestKeys:
    def test_a_key_goes_to_its_own_endpoint_only(self, servers, pool_of, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "sk-environment")
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-environment")
        openai, azure, local = servers(None, None, None, latency=0.01)
        pool = pool_of(
            Endpoint(openai.base_url, "sk-openai"),
            Endpoint.azure(azure.origin, "gpt", api_key="azure-key", api_version="2024-10-21"),
            Endpoint(local.base_url),
            max_workers=6,
        )
        pool.map([str(number) for number in range(60)], progress=False)
        sent = [
            {(request.headers.get("authorization"), request.headers.get("api-key")) for request in server.requests}
            for server in (openai, azure, local)
        ]
        assert sent == [{("Bearer sk-openai", None)}, {(None, "azure-key")}, {(None, None)}]
        assert {request.path for request in azure.requests} == {"/openai/deployments/gpt/chat/completions"}

    def test_the_key_in_the_environment_is_for_the_server_in_the_environment(self, servers, pool_of, monkeypatch):
        home, other = servers(None, None, latency=0.01)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-environment")
        monkeypatch.setenv("OPENAI_BASE_URL", home.base_url)
        monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
        pool = pool_of(Endpoint(), Endpoint(other.base_url))
        pool.map([str(number) for number in range(20)], progress=False)
        assert {request.headers["authorization"] for request in home.requests} == {"Bearer sk-environment"}
        assert {request.headers["openai-organization"] for request in home.requests} == {"org-1"}
        assert not any("authorization" in r.headers or "openai-organization" in r.headers for r in other.requests)

    def test_headers_and_query_may_be_an_endpoints_own(self, servers, pool_of):
        first, second = servers(None, None, latency=0.01)
        endpoints = Endpoint(first.base_url, headers={"X-Team": "a"}, query={"q": "1"}), Endpoint(second.base_url)
        pool_of(*endpoints, headers={"X-All": "yes"}).map([str(number) for number in range(20)], progress=False)
        assert {(r.headers["x-all"], r.headers.get("x-team"), r.query.get("q")) for r in first.requests} == {
            ("yes", "a", "1")
        }
        assert {(r.headers["x-all"], r.headers.get("x-team"), r.query.get("q")) for r in second.requests} == {
            ("yes", None, None)
        }

    def test_a_key_function_is_asked_again_for_its_own_endpoint(self, servers, pool_of):
        keys = iter(["old", "new"])
        first, second = servers([WRONG_KEY], [Error(503)] * 50)
        pool = pool_of(Endpoint(first.base_url, lambda: next(keys)), Endpoint(second.base_url, weight=1e-9))
        assert pool.chat("ping").text == "a"
        assert [request.headers["authorization"] for request in first.requests] == ["Bearer old", "Bearer new"]
        assert pool.stats().lines[first.base_url, "m"].why is None

    def test_a_key_that_cannot_be_fetched_again_leaves_the_others(self, servers, pool_of, caplog):
        keys = iter(["old"])
        first, second = servers(WRONG_KEY, None)
        pool = pool_of(Endpoint(first.base_url, lambda: next(keys), weight=1e6), Endpoint(second.base_url))
        assert texts(pool.map(["1", "2", "3"], progress=False)) == ["b"] * 3
        assert len([record for record in caplog.records if "StopIteration" in record.message]) == 1

    def test_a_key_function_that_fails_leaves_the_others(self, servers, pool_of, caplog):
        def broken():
            raise OSError("the vault is closed")

        first, second = servers(None, None)
        pool = pool_of(Endpoint(first.base_url, broken, weight=100), Endpoint(second.base_url))
        assert texts(pool.map(["1", "2", "3"], progress=False)) == ["b"] * 3
        assert not first.requests
        assert [record.message.split(":")[0] for record in caplog.records] == ["endpoint http"]


class TestFailures:
    @pytest.mark.parametrize("fault", [Error(503), Error(500), Reset(), RateLimited(20), Error(408)])
    def test_a_call_moves_at_once(self, servers, pool_of, fault):
        (first, second), events = servers([fault], None), []
        pool = pool_of(Endpoint(first.base_url, weight=1e6), Endpoint(second.base_url), listeners=[events.append])
        outcome = next(iter(pool.imap(["ping"], progress=False, retry=1)))
        assert str(outcome.value) == "b"
        assert [event.wait for event in events if event.kind == "retrying"] == [0.0]
        assert [attempt.endpoint for attempt in outcome.history] == [first.base_url, second.base_url]

    def test_a_time_out_moves_too(self, servers, pool_of):
        first, second = servers([Stall()], None)
        pool = pool_of(Endpoint(first.base_url, weight=1e6), Endpoint(second.base_url), timeout=Timeout(attempt=0.2))
        assert pool.chat("ping").text == "b"

    def test_a_connection_that_is_refused_does_too(self, servers, pool_of):
        (second,) = servers(None)
        with FakeServer() as gone:
            url = gone.base_url
        pool = pool_of(Endpoint(url, weight=1e6), second, max_workers=2)
        results = pool.map([str(number) for number in range(60)], progress=False)
        assert not results.failures
        line = pool.stats().lines[url, "m"]
        assert line.failure_streak > 0
        # Which of them it is depends on how long the rows took.
        assert (line.why or "down").startswith(("the server is down", "paused", "down", "finding out"))

    def test_no_retry_means_none_elsewhere_either(self, servers, pool_of):
        first, second = servers([Error(503), WRONG_KEY], None)
        pool = pool_of(Endpoint(first.base_url, weight=1e6), Endpoint(second.base_url), retry=0)
        with pytest.raises(InternalServerError):
            pool.chat("ping")
        with pytest.raises(AuthenticationError):
            pool.chat("ping")
        assert pool.chat("ping").text == "b"

    def test_a_call_that_fails_everywhere_waits_before_it_goes_round_again(self, servers, pool_of, instant_waits):
        (first, second), events = servers([Error(503)] * 2, [Error(503)] * 2), []
        started = instant_waits.now()
        outcome = next(iter(pool_of(first, second, listeners=[events.append]).imap(["ping"], progress=False)))
        assert outcome.ok
        assert next(event.wait for event in events if event.kind == "retrying") == 0.0
        assert instant_waits.now() - started > 0.06

    def test_the_retries_are_the_calls_own_wherever_it_goes(self, servers, pool_of, instant_waits):
        first, second = servers(Error(503), Error(503))
        outcome = next(iter(pool_of(first, second).imap(["ping"], progress=False, retry=3)))
        assert isinstance(outcome.error, InternalServerError)
        assert outcome.attempts == 4

    def test_a_request_that_is_wrong_is_wrong_everywhere(self, servers, pool_of):
        first, second = servers(Error(400), Error(400))
        with pytest.raises(BadRequestError):
            pool_of(first, second).chat("ping")
        assert len(first.requests) + len(second.requests) == 1

    def test_a_wait_of_hours_is_not_waited_for_where_there_is_another(self, servers, pool_of):
        first, second = servers([RateLimited(3600)], None)
        pool = pool_of(Endpoint(first.base_url, weight=1e6), Endpoint(second.base_url), max_workers=1)
        assert texts(pool.map(["1", "2", "3"], progress=False)) == ["b"] * 3
        assert len(first.requests) == 1
        assert 3000 < pool.stats().lines[first.base_url, "m"].paused_until < 4000

    def test_waits_of_hours_everywhere_end_the_run(self, servers, pool_of):
        first, second = servers(RateLimited(3600), RateLimited(7200))
        pool = pool_of(first, second, max_workers=1)
        results = pool.map(["1", "2", "3"], progress=False, on_error="return")
        assert all(isinstance(result, RateLimitError) for result in results)
        assert len(first.requests) + len(second.requests) == 2
        with pytest.raises(RateLimitError, match="not sent"):
            pool.chat("ping")


class TestRefusals:
    def test_a_wrong_key_leaves_its_endpoint_alone_with_one_warning(self, servers, pool_of, caplog):
        first, second = servers(WRONG_KEY, None)
        pool = pool_of(Endpoint(first.base_url, "sk-wrong", weight=100), Endpoint(second.base_url), max_workers=8)
        results = pool.map([str(number) for number in range(200)], progress=False)
        assert texts(results) == ["b"] * 200
        assert results.fatal is None
        assert len(first.requests) <= 8
        warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == 1
        assert "Incorrect API key provided" in warnings[0]
        assert "sk-wrong" not in warnings[0]
        assert "left alone" in pool.stats().lines[first.base_url, "m"].why

    def test_refusals_cost_no_retries(self, servers, pool_of):
        first, second, third = servers(WRONG_KEY, Error(402), [Error(503)] * 3)
        endpoints = (Endpoint(one.base_url, weight=w) for one, w in zip((first, second, third), (1e12, 1e6, 1)))
        outcome = next(iter(pool_of(*endpoints).imap(["ping"], progress=False, retry=3)))
        assert str(outcome.value) == "c"
        assert [attempt.status for attempt in outcome.history] == [401, 402, 503, 503, 503, 200]

    def test_all_wrong_ends_the_run_with_all_reasons(self, servers, pool_of, caplog):
        first, second, third = servers(WRONG_KEY, Error(402, "No credit"), WRONG_KEY)
        pool = pool_of(first, second, third, max_workers=4)
        results = pool.map([str(number) for number in range(100)], progress=False, on_error="return")
        assert len(results.failures) == 100
        assert isinstance(results.fatal, (AuthenticationError, InsufficientQuotaError))
        for reason in ("no endpoint is left", first.base_url, second.base_url, third.base_url, "No credit"):
            assert reason in str(results.fatal)
        assert sum(len(server.requests) for server in (first, second, third)) <= 12

    def test_the_next_run_tries_again(self, servers, pool_of):
        first, second = servers([WRONG_KEY], [WRONG_KEY])
        pool = pool_of(first, second, max_workers=1)
        with pytest.raises(AuthenticationError, match="no endpoint is left"):
            pool.chat("ping")
        assert pool.chat("ping").text in ("a", "b")

    def test_a_model_that_one_does_not_have_is_served_by_the_other(self, servers, pool_of):
        lacks = lambda request: Error(404) if request.body.get("model") == "rare" else None  # noqa: E731
        first, second = servers(lacks, None, latency=0.01)
        pool = pool_of(Endpoint(first.base_url, weight=3), Endpoint(second.base_url))
        assert texts(pool.map(["1", "2", "3"], model="rare", progress=False)) == ["b"] * 3
        assert pool.map([str(number) for number in range(20)], progress=False).fatal is None
        assert [request.body["model"] for request in first.requests].count("rare") <= 3
        assert len(first.requests) > 5

    def test_a_model_that_none_has_ends_its_rows(self, servers, pool_of):
        first, second = servers(*[lambda request: Error(404) if request.body["model"] == "x" else None] * 2)
        results = pool_of(first, second).map(
            ["x", "m"] * 5,
            prompt=lambda name: {"messages": [{"role": "user", "content": "ping"}], "model": name},
            progress=False,
            on_error="return",
        )
        assert [isinstance(result, NotFoundError) for result in results] == [True, False] * 5

    def test_the_endpoint_is_asked_again_by_one_call_after_a_minute(self, servers, pool_of, fake_clock):
        first, second = servers([WRONG_KEY] * 2, None)
        pool = pool_of(Endpoint(first.base_url, weight=1e6), Endpoint(second.base_url), max_workers=1)
        answers = []
        for seconds in (0, 59, 2, 119, 2, 0):
            fake_clock.advance(seconds)
            answers.append(pool.chat("ping").text)
        assert answers == ["b", "b", "b", "b", "a", "a"]
        assert len(first.requests) == 4

    def test_the_budget_is_the_pools(self, servers, pool_of):
        two = servers(None, None)
        results = pool_of(*two, budget=Budget(tokens=20)).map(["x"] * 100, progress=False, on_error="return")
        assert isinstance(results[-1], BudgetExceededError)
        assert results.usage.total_tokens <= 30


class TestFilesAndProcesses:
    def test_a_batch_goes_to_all_of_them(self, servers, pool_of, tmp_path):
        two = servers(None, None, latency=0.01)
        source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        body = {"model": "m", "messages": [{"role": "user", "content": "ping"}]}
        line = {"method": "POST", "url": "/v1/chat/completions", "body": body}
        source.write_text("".join(json.dumps({"custom_id": f"r{number}", **line}) + "\n" for number in range(40)))
        result = batch.run(source, target, pool=pool_of(*two), progress=False)
        assert result.succeeded == 40
        assert all(len(server.requests) > 5 for server in two)
        assert {request.path for server in two for request in server.requests} == {"/v1/chat/completions"}

    @pytest.mark.slow
    def test_several_processes_have_the_keys_and_share_the_limits(self, servers, pool_of, tmp_path):
        first, second = servers(None, None, latency=0.01)
        source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        source.write_text("".join(json.dumps({"prompt": f"ping {number}"}) + "\n" for number in range(60)))
        pool = pool_of(
            Endpoint(first.base_url, "sk-first", limits=Limits(requests_per_minute=6000)),
            Endpoint(second.base_url, "sk-second"),
        )
        assert batch.run(source, target, pool=pool, processes=2, progress=False).succeeded == 60
        assert {request.headers["authorization"] for request in first.requests} == {"Bearer sk-first"}
        assert {request.headers["authorization"] for request in second.requests} == {"Bearer sk-second"}

    def test_a_journalled_run_goes_on_with_other_endpoints(self, servers, pool_of, tmp_path):
        first, second = servers(None, WRONG_KEY)
        journal = tmp_path / "run.journal"
        rows = [str(number) for number in range(10)]
        pool_of(first, second).map(rows[:5], journal=journal, progress=False)
        (third,) = servers(None)
        results = pool_of(third).map(rows, journal=journal, progress=False)
        assert not results.failures
        assert len(third.requests) == 5


class TestTheWholePool:
    def test_views_share_the_endpoints(self, servers, pool_of):
        first, second = servers(None, None, latency=0.01)
        pool = pool_of(first, second)
        pool.with_options(model="other", system="Be brief.").map(["1", "2", "3", "4"], progress=False)
        sent = first.requests + second.requests
        assert len(sent) == 4
        assert {request.body["model"] for request in sent} == {"other"}

    def test_calls_from_inside_a_worker_go_to_any_of_them(self, servers, pool_of):
        first, second = servers(Error(503), None)
        pool = pool_of(Endpoint(first.base_url, weight=100), second, max_workers=1)
        inner = []

        def listener(event):
            if event.kind == "succeeded" and not inner:
                inner.append(None)
                inner[0] = pool.chat("inner").text

        noisy = pool_of(first, second, listeners=[listener])
        noisy.chat("outer")
        assert inner == ["b"]

    def test_closing_and_aborting_reach_all(self, servers, pool_of):
        two = servers(Stall(), Stall())
        pool = pool_of(*two, max_workers=4)
        futures = [pool.submit(str(number)) for number in range(4)]
        for server in two:
            server.wait_for(2)
        pool.abort()
        assert all(future.exception(timeout=60) is not None for future in futures)
        for server in two:
            server.wait_until(lambda server=server: server.open_connections == 0)

    def test_a_forked_child_has_connections_of_its_own(self, servers, pool_of):
        two = servers(None, None)
        pool = pool_of(*two)
        pool.map(["1", "2", "3", "4"], progress=False)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(write, b"".join(str(reply).encode() for reply in pool.map(["5", "6"], progress=False)))
            finally:
                os._exit(0)
        os.close(write)
        assert os.waitpid(child, 0)[1] == 0
        with open(read, "rb") as pipe:
            answers = pipe.read()
        assert len(answers) == 2
        assert set(answers) <= set(b"ab")
        assert pool.chat("7").text in ("a", "b")

    def test_a_pickled_pool_has_its_endpoints_and_no_keys(self, servers, pool_of):
        first, second = servers(None, None, latency=0.01)
        pool = pool_of(
            Endpoint(first.base_url, key_from_a_vault, limits=Limits(requests_per_minute=6000), name="one"),
            Endpoint(second.base_url, model="x", weight=2),
        )
        with pickle.loads(pickle.dumps(pool)) as copy:
            copy.map(["1", "2", "3", "4"], progress=False)
            assert repr(copy)[:60] == repr(pool)[:60]
        assert {request.headers["authorization"] for request in first.requests} == {"Bearer sk-vault"}
        assert {request.body["model"] for request in second.requests} == {"x"}

    def test_a_key_that_was_passed_is_not_in_the_pickle(self, servers, pool_of, monkeypatch):
        first, second = servers(None, None)
        pool = pool_of(Endpoint(first.base_url, "sk-secret-key"), second)
        pickled = pickle.dumps(pool), pickle.dumps(Endpoint(first.base_url, "sk-secret-key"))
        assert not any(b"sk-secret-key" in each for each in pickled)
        with pytest.raises(ConfigurationError, match="keys are not pickled"):
            pickle.loads(pickled[0])
        monkeypatch.setenv("OPENAI_BASE_URL", first.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-there")
        with pickle.loads(pickled[0]) as copy:
            copy.map(["1", "2", "3"], progress=False)
        assert {request.headers["authorization"] for request in first.requests} <= {"Bearer sk-there"}

    def test_check_looks_at_each(self, servers, pool_of):
        first, second = servers(WRONG_KEY, None)
        pool = pool_of(
            Endpoint(first.base_url, name="first"), Endpoint(second.base_url, name="second", model="fake-model")
        )
        found = {finding.name: finding for finding in findings(pool)}
        assert found["first: call"].advice is not None
        assert "answered" in found["second: call"].text
        assert "fake-model" in found["second: model"].text

    def test_a_stream_of_text_goes_to_one_of_them(self, servers, pool_of):
        first, second = servers([WRONG_KEY], None)
        pool = pool_of(Endpoint(first.base_url, weight=100), Endpoint(second.base_url))
        with pool.stream("ping") as stream:
            assert "".join(chunk.text for chunk in stream) == "b"


def key_from_a_vault():
    return "sk-vault"


class TestArguments:
    @pytest.mark.parametrize(
        ("make", "error", "words"),
        [
            (lambda: ChatPool(endpoints=[]), ConfigurationError, "empty"),
            (lambda: ChatPool(endpoints="http://x/v1"), TypeError, "list of chatpool.Endpoint"),
            (lambda: ChatPool(endpoints=["http://x/v1"]), TypeError, "got a str in it"),
            (lambda: ChatPool(endpoints=[Endpoint("http://x")], api_key="k"), ConfigurationError, "api_key"),
            (lambda: ChatPool(endpoints=[Endpoint("http://x")], base_url="http://y"), ConfigurationError, "base_url"),
            (lambda: ChatPool(endpoints=[Endpoint("x")]), ConfigurationError, "base_url must start with"),
            (lambda: ChatPool(endpoints=[Endpoint("http://x"), Endpoint()]), ConfigurationError, "OPENAI_API_KEY"),
            (
                lambda: ChatPool(endpoints=[Endpoint("http://x", name="a"), Endpoint("http://y", name="a")]),
                ConfigurationError,
                "'a'",
            ),
            (
                lambda: ChatPool(endpoints=[Endpoint("http://x")], headers={"authorization": "Bearer k"}),
                ConfigurationError,
                "all endpoints",
            ),
            (lambda: ChatPool(endpoints=[Endpoint.azure("http://x")]), ConfigurationError, "api_key"),
            (lambda: Endpoint(7), TypeError, "base_url"),
            (lambda: Endpoint(name=7), TypeError, "name"),
            (lambda: Endpoint(model=7), TypeError, "model"),
            (lambda: Endpoint(limits=60), TypeError, "Limits"),
            (lambda: Endpoint(headers="x"), TypeError, "headers"),
            (lambda: Endpoint(weight="2"), TypeError, "weight"),
            (lambda: Endpoint(weight=0), ConfigurationError, "weight"),
        ],
    )
    def test_what_cannot_work_is_refused(self, make, error, words):
        with pytest.raises(error, match=words):
            make()

    def test_openais_own_server_needs_a_key_here_too(self, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "of another")
        monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
        with pytest.raises(ConfigurationError, match="api_key"):
            ChatPool(endpoints=[Endpoint(), Endpoint("https://api.openai.com/v1")])

    def test_a_session_with_a_key_is_refused(self):
        session = requests.Session()
        session.auth = ("user", "password")
        with pytest.raises(ConfigurationError, match="all endpoints"):
            ChatPool(endpoints=[Endpoint("http://x")], session=session)


class TestSpeed:
    """What several endpoints are for."""

    @pytest.mark.slow
    def test_limits_of_all_are_used_to_the_full(self, servers, pool_of, stepped_time):
        rates = 15, 30, 55
        usual = stepped_time.answer_after(0.02)
        three = [servers(usual, limits=Quota(per_second=rate, burst=rate * 0.2))[0] for rate in rates]
        pool = pool_of(*three, max_workers=48)
        results = stepped_time.run(pool, lambda: pool.map([str(number) for number in range(300)], progress=False))
        assert not results.failures
        assert stepped_time.now() < 1.25 * 300 / sum(rates)

    @pytest.mark.slow
    def test_one_that_dies_and_comes_back_loses_nothing(self, servers, pool_of, stepped_time):
        dead = []
        usual = stepped_time.answer_after(0.01)

        def script(request):
            return Reset() if dead else usual(request)

        def rows():
            """Until the server that was dead has had calls again."""
            for number in range(20_000):
                if "dead" in served and len(first.requests) > served["dead"] + 30:
                    return
                yield str(number)

        first, second = servers(script, usual)
        pool = pool_of(first, second, max_workers=8)
        seen, served = [], {}

        def run():
            for outcome in pool.as_completed(rows(), buffersize=100, progress=False):
                seen.append(outcome)
                if len(seen) == 300:
                    dead.append(True)
                    served["before"] = len(first.requests)
                elif len(seen) == 900:
                    served["dead"] = len(first.requests)
                    dead.clear()

        stepped_time.run(pool, run)
        assert sorted(outcome.index for outcome in seen) == list(range(len(seen)))
        assert all(outcome.ok for outcome in seen)
        assert served["dead"] - served["before"] < 80  # a gate closes, single probes go out
        assert len(seen) < 15_000
        assert max(outcome.elapsed for outcome in seen) < 0.1
