"""Runs that return a list."""

from __future__ import annotations

import logging
import pickle
import threading

import pytest
from tenacity import wait_fixed

import chatpool
from chatpool import (
    BadRequestError,
    CallCancelledError,
    ChatPool,
    ConfigurationError,
    DeadlineExceededError,
    InternalServerError,
    PoolClosedError,
    RetryPolicy,
    Timeout,
)
from chatpool._client.run import Run
from chatpool.testing import Answer, Delay, Error, Faults, RateLimited, Reset, Stall


def failing(prompts, step):
    """A server script: ``step`` for these prompts, the usual answer for others."""
    return lambda request: step if request.body["messages"][-1]["content"] in prompts else None


def texts(results):
    return [None if answer is None else answer.text for answer in results]


def test_results_come_in_input_order_and_are_a_list(serve):
    _, pool = serve()
    results = pool.map(["ping", "pong"] * 5)
    assert isinstance(results, list)
    assert texts(results) == ["ping", "pong"] * 5
    assert [outcome.index for outcome in results.outcomes] == list(range(10))
    assert results.usage.total_tokens == sum(answer.usage.total_tokens for answer in results)
    assert results.elapsed > 0


@pytest.mark.parametrize("items", [[], (), iter([]), {}.keys()])
def test_no_items_give_no_results(serve, items):
    _, pool = serve()
    results = pool.map(items)
    assert results == []
    assert results.outcomes == []
    assert results.explain() == "All 0 succeeded."


def test_generators_sets_and_rows_of_ones_own_are_inputs(serve):
    server, pool = serve()
    rows = ({"country": name} for name in ("France", "Peru"))
    results = pool.map(rows, prompt=lambda row: f"Capital of {row['country']}?")
    assert texts(results) == ["Capital of France?", "Capital of Peru?"]
    assert [outcome.item for outcome in results.outcomes] == [{"country": "France"}, {"country": "Peru"}]


def test_never_more_calls_in_flight_than_workers_and_no_more_connections(serve):
    server, pool = serve(max_workers=5, latency=0.01)
    pool.map([str(number) for number in range(60)])
    assert server.max_in_flight == 5
    assert server.connections <= 5


def test_no_pool_full_warning_is_ever_logged(serve, caplog):
    _, pool = serve(max_workers=20, latency=0.005)
    with caplog.at_level(logging.WARNING):
        pool.map(["x"] * 200)
    assert caplog.records == []


def test_500_prompts_survive_a_bad_server(serve):
    faults = Faults({503: 0.2, Reset(): 0.02, Stall(): 0.02}, seed=1)
    server, pool = serve(faults=faults, max_workers=32, timeout=1)
    prompts = [f"prompt {number}" for number in range(500)]
    results = pool.map(prompts)
    assert texts(results) == prompts
    assert len(server.requests) > 600
    assert {attempt.reason for outcome in results.outcomes for attempt in outcome.history} == {
        "ok",
        "503 server_error",
        "connection failed",
        "timed out",
    }


def test_a_server_that_always_refuses_the_request_is_asked_once_per_item(always, caplog):
    server, pool = always(Error(400))
    results = pool.map(["a", "b", "c"])
    assert results == [None, None, None]
    assert [outcome.attempts for outcome in results.failures] == [1, 1, 1]
    assert len(server.requests) == 3
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "3 of 3 failed: 3 x BadRequestError; see results.explain()"
    ]


class TestOnError:
    def test_none_leaves_none_in_the_slot(self, serve):
        server, pool = serve()
        server.set_script(failing({"bad"}, Error(400)))
        assert texts(pool.map(["a", "bad", "b"])) == ["a", None, "b"]

    def test_return_leaves_the_error_in_the_slot(self, serve, caplog):
        server, pool = serve()
        server.set_script(failing({"bad"}, Error(400)))
        a, bad, b = pool.map(["a", "bad", "b"], on_error="return")
        assert isinstance(bad, BadRequestError)
        assert caplog.records == []

    def test_raise_cancels_the_run_at_the_first_failure_in_time(self, serve):
        server, pool = serve(max_workers=2)
        server.set_script(
            lambda request: {"good": None, "bad": Error(400)}.get(request.body["messages"][-1]["content"], Stall())
        )
        with pytest.raises(BadRequestError) as caught:
            pool.map(["good", "hangs", "bad", *["never"] * 50], on_error="raise")
        results = caught.value.results
        assert len(results) == 53
        assert results[0].text == "good"
        assert isinstance(results.outcomes[1].error, CallCancelledError)
        assert len(server.requests) <= 5
        server.set_script(None)
        assert pool.chat("still usable").text == "still usable"

    def test_another_word_is_an_error_that_lists_the_words(self, serve):
        _, pool = serve()
        with pytest.raises(ConfigurationError, match="on_error must be one of 'none', 'return', 'raise', got 'skip'"):
            pool.map([], on_error="skip")


class TestRunTimeout:
    def test_unfinished_items_fail_and_finished_ones_are_kept(self, serve):
        server, pool = serve(max_workers=2)
        server.set_script(failing({"hangs"}, Stall()))
        results = pool.map(["a", "hangs", "hangs", "b"], run_timeout=2)
        assert texts(results) == ["a", None, None, None]
        assert {type(outcome.error) for outcome in results.failures} == {DeadlineExceededError}
        assert [outcome.attempts for outcome in results.outcomes] == [1, 1, 1, 0] or results.outcomes[3].attempts == 0

    def test_it_cuts_waits_for_the_next_attempt(self, always):
        _, pool = always(RateLimited(100))
        results = pool.map(["a", "b"], run_timeout=0.2, on_error="return")
        assert all(isinstance(error, DeadlineExceededError) for error in results)

    def test_the_workers_are_free_afterwards(self, serve):
        server, pool = serve(max_workers=2)
        server.set_script(failing({"a", "b"}, Stall()))  # by prompt: on a busy machine they may not come there in time
        pool.map(["a", "b"], run_timeout=0.2)
        assert pool.chat("c", timeout=Timeout(total=5)).text == "c"


class TestFatalErrors:
    def test_a_refused_key_ends_the_run(self, always):
        server, pool = always(Error(401), max_workers=8)
        results = pool.map([str(number) for number in range(300)], on_error="return")
        assert 1 <= len(server.requests) <= 8
        assert len(results) == 300
        assert results.fatal.status_code == 401
        assert {type(error).__name__ for error in results} == {"AuthenticationError"}
        assert "not sent: HTTP 401" in str(results[-1])
        assert results.outcomes[-1].attempts == 0

    def test_no_credit_left_ends_the_run_and_parked_calls_with_it(self, serve, caplog):
        server, pool = serve(max_workers=1)
        server.set_script([Error(503, headers={"retry-after": "100"}), Error(429, code="insufficient_quota")])
        results = pool.map(["waits", "pays", "never"], on_error="return")
        assert [outcome.attempts for outcome in results.outcomes] == [1, 1, 0]
        assert {type(error).__name__ for error in results} == {"InsufficientQuotaError"}
        assert "not sent again" in str(results[0])

    def test_the_pool_stays_usable_and_the_next_run_tries_again(self, serve):
        server, pool = serve(Error(401))
        assert pool.map(["a"]) == [None]
        assert texts(pool.map(["b"])) == ["b"]

    def test_an_unknown_model_ends_only_the_rows_of_that_model(self, serve):
        server, pool = serve(max_workers=1)
        server.set_script(lambda request: Error(404, code="model_not_found") if request.body["model"] == "x" else None)
        rows = [{"model": model, "messages": [{"role": "user", "content": "hi"}]} for model in "xaxaxa"]
        assert texts(pool.map(rows)) == [None, "hi"] * 3
        assert [request.body["model"] for request in server.requests] == ["x", "a", "a", "a"]

    def test_a_generator_is_read_to_its_end_for_its_length(self, always):
        server, pool = always(Error(401))
        assert pool.map(str(number) for number in range(5000)) == [None] * 5000

    def test_a_refusal_for_hours_ends_the_run_and_is_remembered(self, fake_clock, serve):
        server, pool = serve(max_workers=1)
        server.set_script([RateLimited(86_400, hint="retry-after")])
        first = pool.map(["a", "b", "c"], on_error="return")
        fake_clock.advance(600)
        second = pool.map(["d"], on_error="return")
        assert [error.retry_after for error in [*first, *second]] == [86_400] * 3 + [85_800]
        assert len(server.requests) == 1
        (line,) = pool.stats().lines.values()
        assert line.paused_until == 85_800
        assert pool.with_options(model="other").chat("e").text == "e"


@pytest.mark.parametrize(("step", "options"), [(Error(401), {}), (Error(400), {"max_failures": 1})])
def test_an_error_that_ends_the_run_with_its_last_item_is_known_when_the_run_has_ended(
    monkeypatch, serve, step, options
):
    server, pool = serve(max_workers=1, retry=0)
    server.set_script(failing({"bad"}, step))
    put, read = Run._put, threading.Event()

    def put_and_wait(self, outcome):
        put(self, outcome)
        if outcome.error is not None:
            read.wait(60)  # nothing else of this worker's comes before the results have been read

    monkeypatch.setattr(Run, "_put", put_and_wait)
    results = pool.map(["good", "bad"], **options)
    fatal = results.fatal
    read.set()
    assert fatal is not None


class TestOutcomes:
    def test_an_outcome_tells_its_history(self, serve, instant_waits):
        _, pool = serve(Error(503, headers={"x-request-id": "r1"}), RateLimited(2), Answer("hi"))
        (outcome,) = pool.map(["hi"]).outcomes
        assert outcome.ok
        assert outcome.attempts == 3
        assert [attempt.status for attempt in outcome.history] == [503, 429, 200]
        assert outcome.history[0].request_id == "r1"
        assert outcome.history[0].reason == "503 server_error"
        assert outcome.history[1].wait >= 2
        assert outcome.history[2].wait is None
        assert outcome.result().text == "hi"
        assert outcome.request.body["model"] == "m"

    def test_its_history_tells_how_long_it_has_waited_and_not_how_long_it_should(self, serve):
        """The only worker is busy with another call when the wait is over."""
        server, pool = serve(max_workers=1, retry=RetryPolicy(wait=wait_fixed(0.4), retry_if=lambda error: True))
        server.set_script({"b": Delay(0.8)})
        server.enqueue(Error(400))
        first, second = pool.map(["a", "b"]).outcomes
        assert first.history[0].wait >= second.history[0].elapsed >= 0.8

    def test_a_failed_outcome_raises_its_error(self, always):
        _, pool = always(Error(400))
        (outcome,) = pool.map(["hi"]).outcomes
        with pytest.raises(BadRequestError):
            outcome.result()

    def test_results_raise_their_first_failure_in_input_order(self, serve):
        server, pool = serve()
        server.set_script(failing({"bad"}, Error(400)))
        results = pool.map(["good", "bad", "bad"])
        with pytest.raises(BadRequestError) as caught:
            results.raise_on_failure()
        assert caught.value.results is results
        assert caught.value is results.failures[0].error
        pool.map(["good"]).raise_on_failure()

    def test_results_and_their_errors_pickle(self, serve):
        server, pool = serve()
        server.set_script(failing({"bad"}, Error(400)))
        results = pickle.loads(pickle.dumps(pool.map(["good", "bad"])))
        assert results[0].text == "good"
        assert results.failures[0].error.status_code == 400

    def test_explain_groups_failures_by_cause_and_to_dicts_makes_a_table(self, serve):
        server, pool = serve(retry=0)
        server.set_script(failing({"bad"}, Error(400)))
        results = pool.map(["good", "bad", "bad", 7])
        explained = results.explain()
        assert explained.startswith("3 of 4 failed:\n  2 x BadRequestError (400")
        assert "1 x ConfigurationError" in explained
        assert [row["ok"] for row in results.to_dicts()] == [True, False, False, False]
        assert results.to_dicts()[1]["status"] == 400


class TestItemsThatCannotBeSent:
    def test_they_fail_in_their_own_slot_unsent(self, serve):
        server, pool = serve()
        results = pool.map(["a", 7, "b", {"no": "messages"}, [], ChatPool], on_error="return")
        assert [str(results[0]), str(results[2])] == ["a", "b"]
        for index in (1, 3, 4, 5):
            assert isinstance(results[index], ConfigurationError)
            assert f"item {index}:" in str(results[index])
        assert len(server.requests) == 2

    def test_a_prompt_function_that_raises_fails_its_row_only(self, serve):
        _, pool = serve()
        results = pool.map([{"q": "a"}, {}], prompt=lambda row: row["q"], on_error="return")
        assert results[0].text == "a"
        assert "prompt= raised KeyError" in str(results[1])

    def test_a_body_that_is_not_json_fails_its_row_only(self, serve):
        _, pool = serve()
        good, bad = pool.map(["a", {"messages": [{"role": "user", "content": object()}]}], on_error="return")
        assert good.text == "a"
        assert isinstance(bad, chatpool.ChatPoolError)


def test_an_input_that_raises_ends_the_run_and_what_was_done_is_on_the_error(serve):
    server, pool = serve()

    def rows():
        yield "a"
        server.wait_until(lambda: len(server.requests) == 1 and server.in_flight == 0)
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone") as caught:
        pool.map(rows())
    assert [outcome.item for outcome in caught.value.results.outcomes] == ["a"]


def test_ctrl_c_cancels_the_run_and_keeps_what_was_done(serve):
    server, pool = serve(max_workers=2)
    server.set_script(failing({"hangs"}, Stall()))

    def rows():
        yield "a"
        yield "hangs"
        server.wait_for(2)
        server.wait_until(lambda: server.in_flight == 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        pool.map(rows())
    first, second = caught.value.results.outcomes
    assert isinstance(second.error, CallCancelledError)
    assert first.ok or isinstance(first.error, CallCancelledError)
    assert pool.chat("b").text == "b"


def test_closing_the_pool_under_a_run_gives_the_rest_the_reason(serve):
    server, pool = serve(max_workers=1)

    def rows():
        for number in range(3):
            yield str(number)
        pool.close()
        yield "too late"

    results = pool.map(rows(), on_error="return")
    assert texts(results[:3]) == ["0", "1", "2"]
    assert isinstance(results[3], PoolClosedError)


def test_calls_from_inside_a_worker_run_inline(serve):
    server, _ = serve()
    inner, names = [], []

    def listener(event):
        if event.kind == "succeeded" and event.run_id is not None and not inner:
            names.append(threading.current_thread().name)
            inner.append("")  # the calls below make events too
            inner.extend(
                [
                    pool.chat("inner chat").text,
                    pool.submit("inner submit").result().text,
                    *[answer.text for answer in pool.map(["m1", "m2"])],
                    *[outcome.value.text for outcome in pool.imap(str(number) for number in range(3))],
                ]
            )

    with ChatPool("m", base_url=server.base_url, max_workers=1, listeners=[listener]) as pool:
        assert texts(pool.map(["outer"])) == ["outer"]
    assert inner == ["", "inner chat", "inner submit", "m1", "m2", "0", "1", "2"]
    assert names[0].startswith("chatpool")


def test_after_call_runs_in_the_worker_and_may_fail(serve, caplog):
    ran = []

    def hook():
        ran.append(threading.current_thread().name)
        raise RuntimeError("no database")

    server, pool = serve(after_call=hook)
    assert texts(pool.map(["a", "b"])) == ["a", "b"]
    pool.close()
    assert len(ran) == 2
    assert all(name.startswith("chatpool") for name in ran)
    assert "after_call raised" in caplog.text


def test_the_one_shot_map_makes_uses_and_closes_a_pool(serve):
    server, _ = serve()
    results = chatpool.map(["ping", "pong"], model="m", max_workers=2, base_url=server.base_url, temperature=0)
    assert texts(results) == ["ping", "pong"]
    assert server.requests[0].body["temperature"] == 0
    server.wait_until(lambda: server.open_connections == 0)


def test_two_runs_share_a_pool_and_one_failing_does_not_disturb_the_other(serve):
    server, pool = serve(max_workers=4)
    failed = threading.Event()  # before the server has answered anything: so 401 is no passing trouble

    def script(request):
        return Error(401) if request.prompt == "bad" else failed.wait(60) and None

    server.set_script(script)
    other = []

    def prompts():
        yield from ["fine"] * 3  # which leave a worker free
        failed.wait(60)
        yield from ["fine"] * 197

    thread = threading.Thread(target=lambda: other.extend(pool.map(prompts())))
    thread.start()
    assert pool.map(["bad"] * 50) == [None] * 50
    failed.set()
    thread.join()
    assert texts(other) == ["fine"] * 200


def test_an_exhausted_server_error_is_kept_per_item(always, instant_waits):
    _, pool = always(Error(500), retry=2)
    results = pool.map(["a", "b"], on_error="return")
    assert [type(error) for error in results] == [InternalServerError] * 2
    assert results[0] is not results[1]
