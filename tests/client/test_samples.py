"""``samples=``: several answers for each item, in one request where the server takes ``n`` and in several otherwise."""

from __future__ import annotations

import itertools
import os
import signal
from collections import Counter

import pytest

import chatpool
from chatpool import (
    BadRequestError,
    Budget,
    BudgetExceededError,
    ChatPool,
    ChatPoolError,
    ChatRequest,
    ConfigurationError,
    Endpoint,
    InternalServerError,
    LengthError,
    Limits,
    ParseError,
    Timeout,
    TooManyFailuresError,
)
from chatpool.testing import Answer, BackgroundScenario, Error, FakeServer, MemoryPool, Stall, chat_completion


class Numbers:
    """Replies that count the answers of the model: 0, 1, 2 ... in their order."""

    def __init__(self):
        self._next = itertools.count()

    def __call__(self, body):
        count = body.get("n") or 1
        return [str(next(self._next)) for _ in range(count)] if "messages" in body else str(next(self._next))


@pytest.fixture
def sampled():
    """A function that makes a server whose answers are all different, and a pool for it."""
    opened = []

    def make(script=None, *, choices=128, reply=None, max_workers=4, **options):
        server = FakeServer(script, reply=reply or Numbers(), choices=choices)
        pool = ChatPool("m", base_url=server.base_url, max_workers=max_workers, **options)
        opened.extend([pool.abort, server.close])
        return server, pool

    yield make
    for close in opened:
        close()


def texts(completion):
    return [choice.text for choice in completion.choices]


def asked(server):
    return [request.body.get("n", 1) for request in server.requests]


class TestServers:
    def test_where_the_server_takes_n_each_item_is_one_request(self, sampled):
        server, pool = sampled()
        results = pool.map(["a", "b"], samples=5, progress=False)
        assert sorted(int(text) for each in results for text in texts(each)) == list(range(10))
        assert asked(server) == [5, 5]
        assert [outcome.attempts for outcome in results.outcomes] == [1, 1]

    def test_where_it_refuses_n_each_answer_is_a_request_and_n_is_tried_once(self, sampled):
        server, pool = sampled(choices=1, max_workers=1)
        results = pool.map(["a", "b"], samples=3, progress=False)
        assert sorted(int(text) for each in results for text in texts(each)) == list(range(6))
        assert asked(server) == [3, 1, 1, 1, 1, 1, 1]
        pool.map(["c"], samples=3, progress=False)
        assert asked(server)[7:] == [1, 1, 1]
        assert pool.stats().failed == pool.stats().retried == 0

    def test_where_it_ignores_n_what_it_gave_is_kept_and_the_rest_asked_for(self, sampled):
        server, pool = sampled(choices="first", max_workers=1)
        results = pool.map(["a", "b"], samples=3, progress=False)
        assert len({text for each in results for text in texts(each)}) == 6
        assert len(server.requests) == 6
        assert asked(server).count(3) == 1
        pool.map(["c"], samples=3, progress=False)
        assert asked(server)[6:] == [1, 1, 1]

    def test_a_servers_own_maximum_is_found(self, sampled):
        server, pool = sampled(choices=4, max_workers=1)
        results = pool.map(["a"], samples=10, progress=False)
        assert sorted(map(int, texts(results[0]))) == list(range(10))
        assert asked(server) == [10, 5, 2, 2, 2, 2, 2]

    def test_what_a_server_has_given_once_is_tried_before_anything_less(self, sampled):
        server, pool = sampled(choices=4, max_workers=1)
        pool.map(["a"], samples=4, progress=False)
        pool.map(["a"], samples=7, progress=False)
        assert asked(server) == [4, 7, 4, 3]

    def test_more_than_the_api_takes_is_shared_out_at_once(self, sampled):
        server, pool = sampled(max_workers=1)
        results = pool.map(["a"], samples=130, progress=False)
        assert len(set(texts(results[0]))) == 130
        assert asked(server) == [128, 2]

    def test_the_responses_api_has_no_n(self, sampled):
        server, pool = sampled()
        results = pool.map([{"input": "a"}], samples=3, progress=False)
        assert sorted(texts(results[0])) == ["0", "1", "2"]
        assert [choice.index for choice in results[0].choices] == [0, 1, 2]
        assert all("n" not in request.body for request in server.requests)
        assert len(results[0].raw["samples"]) == 2

    def test_text_completions(self, sampled):
        server, pool = sampled(reply=lambda body: body["prompt"] + "!")
        results = pool.map([{"prompt": "a"}], samples=3, progress=False)
        assert texts(results[0]) == ["a!"] * 3
        assert asked(server) == [3]

    def test_a_refusal_that_is_not_about_n_is_the_items_error(self, sampled):
        server, pool = sampled(lambda request: Error(400) if request.prompt == "bad" else None, max_workers=1)
        results = pool.map(["bad", "good"], samples=2, on_error="return", progress=False)
        assert type(results[0]) is BadRequestError
        assert len(results[1].choices) == 2
        assert asked(server) == [2, 1, 2]  # and what was tried in vain is not held against n

    def test_so_many_that_they_are_too_large_for_the_limit_of_a_minute_go_out_in_parts(self, sampled):
        too_large = Error(429, "Request too large for m on tokens per min (TPM): Limit 3000, Requested 8000")
        server, pool = sampled(lambda request: too_large if request.body.get("n", 1) > 3 else None, max_workers=1)
        results = pool.map(["a", "b"], samples=8, retry=0, progress=False)
        assert [len(result.choices) for result in results] == [8, 8]
        assert asked(server) == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]

    def test_nor_does_a_limit_of_the_pool_keep_them_from_being_sent(self, instant_waits, sampled):
        server, pool = sampled(limits=Limits(tokens_per_minute=2500), max_workers=1)
        (reply,) = pool.map(["ping"], samples=5, max_tokens=1000, progress=False)
        assert sorted(texts(reply)) == ["0", "1", "2", "3", "4"]
        assert sorted(asked(server)) == [1, 2, 2]
        assert pool.stats().failed == 0

    def test_one_that_is_too_large_by_itself_is_an_error_that_says_so(self, sampled):
        server, pool = sampled(limits=Limits(tokens_per_minute=500))
        (error,) = pool.map(["ping"], samples=5, max_tokens=1000, on_error="return", progress=False)
        assert "tokens_per_minute=500" in str(error)
        assert server.requests == []

    def test_a_server_may_refuse_n_and_the_usage_of_streams(self, sampled):
        def script(request):
            unknown = [name for name in ("stream_options", "n") if name in request.body]
            return Error(422, f"Extra inputs are not permitted: {unknown}") if unknown else None

        _, pool = sampled(script, max_workers=1)
        results = pool.map(["a", "b"], samples=3, collect_stream=True, progress=False)
        assert [len(result.choices) for result in results] == [3, 3]

    def test_models_of_one_server_are_told_apart(self, sampled):
        def script(request):
            return Error(400) if request.body["model"] == "o1" and request.body.get("n", 1) > 1 else None

        server, pool = sampled(script, max_workers=1)
        items = [{"model": model, "messages": [{"role": "user", "content": "a"}]} for model in ("o1", "4o", "o1")]
        pool.map(items, samples=2, progress=False)
        sent = Counter((request.body["model"], request.body.get("n", 1)) for request in server.requests)
        assert sent == {("4o", 2): 1, ("o1", 2): 1, ("o1", 1): 4}

    def test_each_endpoint_gets_what_it_takes(self):
        with FakeServer(reply=Numbers(), choices=1) as one, FakeServer(reply=Numbers()) as many:
            endpoints = [Endpoint(one.base_url, name="one"), Endpoint(many.base_url, name="many")]
            with ChatPool("m", endpoints=endpoints, max_workers=2) as pool:
                results = pool.map(range(40), prompt=str, samples=3, progress=False)
            assert [len(each.choices) for each in results] == [3] * 40
            assert asked(one).count(3) <= 2  # in the two workers, before it is known
            assert sum(asked(many)) + asked(one).count(1) == 120  # and nothing was paid in vain

    def test_streams_that_are_collected(self, sampled):
        server, pool = sampled(choices="first")
        results = pool.map(["a"], samples=3, collect_stream=True, progress=False)
        assert len(set(texts(results[0]))) == len(server.requests) == 3
        assert all(request.body["stream"] for request in server.requests)

    def test_a_choice_at_which_the_provider_has_failed_is_asked_for_again(self, sampled):
        def reply(body):
            answer = chat_completion("good", n=body.get("n") or 1)
            for choice in answer["choices"][1:]:
                choice["finish_reason"] = "error"
            return answer

        _, pool = sampled(reply=reply)
        (result,) = pool.map(["a"], samples=3, progress=False)
        assert [(choice.text, choice.finish_reason) for choice in result.choices] == [("good", "stop")] * 3


class TestAnswers:
    def test_their_form_is_that_of_n(self, sampled):
        _, pool = sampled(choices=1)
        (result,) = pool.map(["a"], samples=3, progress=False)
        assert (result.text, result.message["content"]) == (result.choices[0].text, result.choices[0].text)
        assert [choice["index"] for choice in result.raw["choices"]] == [0, 1, 2]
        assert [choice["message"]["content"] for choice in result.raw["choices"]] == texts(result)

    @pytest.mark.parametrize("choices", [128, 1, "first"])
    def test_tokens_are_counted_once_each(self, sampled, choices):
        _, pool = sampled(choices=choices)
        results = pool.map(["two words", "three more words"], samples=4, progress=False)
        prompts = 5 if choices == 128 else 20
        assert (results.usage.prompt_tokens, results.usage.completion_tokens) == (prompts, 8)
        assert pool.stats().usage == results.usage
        assert sum(each.usage.total_tokens for each in results) == results.usage.total_tokens
        assert results[0].raw["usage"]["total_tokens"] == results[0].usage.total_tokens

    def test_a_seed_is_another_one_for_each_request(self, sampled):
        server, pool = sampled(choices="first", max_workers=1)
        pool.map(["a"], samples=3, seed=7, progress=False)
        assert [request.body["seed"] for request in server.requests] == [7, 8, 9]

    def test_a_seed_of_chance_stays(self, sampled):
        server, pool = sampled(choices=1)
        pool.map(["a"], samples=3, seed=-1, progress=False)
        assert {request.body["seed"] for request in server.requests} == {-1}

    def test_one_sample_is_what_it_is_without(self, sampled):
        server, pool = sampled()
        (result,) = pool.map(["a"], samples=1, progress=False)
        assert texts(result) == ["0"]
        assert "n" not in server.requests[0].body

    def test_answers_of_one_item_are_asked_for_in_parallel(self, gate):
        answers = itertools.count()

        def script(request):
            if server.in_flight == 3:
                gate.set()
            if "n" not in request.body and next(answers):
                assert gate.wait(30)

        with FakeServer(script, choices=1) as server, ChatPool("m", base_url=server.base_url, max_workers=4) as pool:
            pool.map(["a"], samples=4, progress=False)
            assert server.max_in_flight == 3

    @pytest.mark.parametrize("choices", [1, "first"])
    def test_an_item_that_has_begun_ends_before_the_next_begins(self, sampled, choices):
        server, pool = sampled(choices=choices, max_workers=1)
        pool.map(["a", "b", "c"], samples=3, progress=False)
        prompts = [request.prompt for request in server.requests]
        assert prompts == sorted(prompts)

    def test_lazy_runs(self, sampled):
        _, pool = sampled(choices=1)
        in_order = [(each.index, len(each.value.choices)) for each in pool.imap(["a", "b", "c"], samples=2)]
        assert in_order == [(0, 2), (1, 2), (2, 2)]
        assert sorted(each.index for each in pool.as_completed(["a", "b", "c"], samples=2)) == [0, 1, 2]

    def test_in_a_worker_of_the_pool_itself(self, sampled, within):
        _, pool = sampled(choices="first", max_workers=1)

        def parse(text):
            return len(pool.map(["inner"], samples=3, progress=False)[0].choices)

        assert within(30, pool.chat, "outer").text
        (result,) = within(30, lambda: pool.map(["outer"], parse=parse, progress=False))
        assert result.parsed == 3

    def test_without_threads(self):
        def reply(body):
            return Error(400) if body.get("n") else f"{body['messages'][0]['content']}!"

        pool = MemoryPool("m", replies=reply)
        assert [texts(each) for each in pool.map(["a", "b"], samples=3, progress=False)] == [["a!"] * 3, ["b!"] * 3]

    def test_identical_items_share_their_samples(self, sampled):
        server, pool = sampled(choices="first")
        results = pool.map(["a", "b", "a"], samples=2, dedupe=True, parse=int, progress=False)
        assert texts(results[0]) == texts(results[2]) != texts(results[1])
        assert [choice.parsed for choice in results[2].choices] == [int(text) for text in texts(results[0])]
        assert sum(asked(server).count(n) for n in (1, 2)) == 4
        assert results.outcomes[2].attempts == 0
        assert results[2].usage.total_tokens == 0

    def test_the_bar_counts_items(self, sampled, capsys):
        _, pool = sampled(choices=1)
        pool.map(["a", "b"], samples=3, progress=True)
        assert "2/2" in capsys.readouterr().err


class TestParsing:
    @pytest.mark.parametrize("choices", [128, 1, "first"])
    def test_each_answer_has_its_value(self, sampled, choices):
        _, pool = sampled(choices=choices)
        results = pool.map(["a", "b"], samples=3, parse=int, progress=False)
        for result in results:
            assert [choice.parsed for choice in result.choices] == [int(text) for text in texts(result)]

    @pytest.mark.parametrize("choices", [3, 1])
    def test_only_the_answer_that_is_of_no_use_is_asked_for_again(self, sampled, choices):
        answers = iter(["1", "two", "3", "2"])
        server, pool = sampled(
            choices=choices, max_workers=1, reply=lambda body: [next(answers) for _ in range(body.get("n") or 1)]
        )
        (result,) = pool.map(["a"], samples=3, parse=int, progress=False)
        assert sorted(choice.parsed for choice in result.choices) == [1, 2, 3]
        (again,) = (request.body["messages"] for request in server.requests if len(request.body["messages"]) > 1)
        assert again[1]["content"] == "two"

    def test_what_is_asked_again_has_the_seed_of_its_place(self, sampled):
        server, pool = sampled(reply=lambda body: ["1", "two", "3"] if body.get("n") else ["2"])
        pool.map(["a"], samples=3, parse=int, seed=7, progress=False)
        assert [request.body["seed"] for request in server.requests] == [7, 8]

    @pytest.mark.parametrize("choices", [3, 1])
    def test_reasks_are_counted_for_each_answer(self, sampled, choices):
        server, pool = sampled(choices=choices, reply=lambda body: "no" if len(body["messages"]) < 5 else "1")
        (result,) = pool.map(["a"], samples=3, parse=int, max_reasks=2, on_error="return", progress=False)
        assert [choice.parsed for choice in result.choices] == [1, 1, 1]
        (result,) = pool.map(["a"], samples=3, parse=int, max_reasks=1, on_error="return", progress=False)
        assert type(result) is ParseError
        assert result.samples is None

    def test_an_answer_that_is_not_accepted_fails_the_item_and_the_others_are_kept(self, sampled):
        def reply(body):
            answer = chat_completion("x", n=3)
            answer["choices"][1]["finish_reason"] = "length"
            return answer

        _, pool = sampled(reply=reply)
        (outcome,) = pool.map(["a"], samples=3, accept="stop", on_error="return", progress=False).outcomes
        assert type(outcome.error) is LengthError
        assert str(outcome.error).startswith("2 of 3 answers came: the answer was cut")
        assert texts(outcome.error.samples) == ["x", "x"]
        assert (outcome.value, outcome.attempts, outcome.usage.completion_tokens) == (None, 1, 3)


class TestFailures:
    def one_fails(self, times=1):
        """A script that refuses n, and the third request without it for good."""
        seen = itertools.count()
        last = 2 + times

        def script(request):
            if "n" in request.body:
                return Error(422)
            return Error(500, headers={"x-should-retry": "false"}) if 2 <= next(seen) < last else None

        return script

    def test_a_failed_sample_fails_its_item_which_says_how_many_came(self, sampled):
        server, pool = sampled(self.one_fails(), max_workers=1)
        (failed,) = pool.map(["a"], samples=3, on_error="return", progress=False).outcomes
        assert type(failed.error) is InternalServerError
        assert str(failed.error).startswith("2 of 3 answers came: ")
        assert len(failed.error.samples.choices) == 2
        assert failed.usage.completion_tokens == 2
        assert failed.attempts == failed.error.attempts == 3

    def test_a_retry_asks_only_for_what_is_missing(self, sampled):
        server, pool = sampled(self.one_fails(), max_workers=1)
        results = pool.map(["a"], samples=3, parse=int, on_error="return", progress=False)
        came = texts(results[0].samples)
        before = len(server.requests)
        pool.retry(results, progress=False)
        assert texts(results[0])[:2] == came
        assert [choice.parsed for choice in results[0].choices] == [int(text) for text in texts(results[0])]
        assert asked(server)[before:] == [1]
        assert results.usage.completion_tokens == 3

    def test_once_one_has_failed_no_more_are_begun(self, sampled):
        server, pool = sampled(lambda request: Error(400) if request.body["input"] == "bad" else None, max_workers=1)
        items = [{"input": text} for text in ("bad", "b")]
        results = pool.map(items, samples=5, on_error="return", progress=False)
        assert type(results[0]) is BadRequestError
        assert results.outcomes[0].attempts == 1
        assert len(results[1].choices) == 5
        assert len(server.requests) == 6

    @pytest.mark.parametrize("with_journal", [False, True])
    def test_what_is_asked_for_again_has_the_seed_that_failed(self, sampled, gate, tmp_path, with_journal):
        def refuse(request):
            if "n" in request.body:
                return Error(422)
            if request.body["seed"] == 9:
                gate.set()  # all of them are under way
            if request.body["seed"] not in failing:
                return None
            assert gate.wait(60)
            return Error(500, headers={"x-should-retry": "false"})

        failing = set()
        server, pool = sampled(refuse, reply=lambda body: str(body["seed"]))
        pool.map(["n is refused"], samples=2, seed=7, progress=False)
        failing.add(7)
        journal = tmp_path / "run.journal" if with_journal else None
        results = pool.map(["a"], samples=3, seed=7, journal=journal, on_error="return", progress=False)
        assert texts(results[0].samples) == ["8", "9"]
        failing.clear()
        if with_journal:
            results = pool.map(["a"], samples=3, seed=7, journal=journal, progress=False)
        else:
            pool.retry(results, progress=False)
        assert texts(results[0]) == ["7", "8", "9"]

    def test_each_sample_is_retried_as_a_call_is(self, sampled):
        seen = itertools.count()
        server, pool = sampled(lambda request: Error(503) if next(seen) in (2, 3) else None, choices=1)
        (result,) = pool.map(["a"], samples=3, progress=False)
        assert len(result.choices) == 3

    def test_where_none_came_the_error_is_as_it_is_without_samples(self, sampled):
        server, pool = sampled(Error(400, "no such thing"), retry=0)
        (error,) = pool.map(["a"], samples=3, on_error="return", progress=False)
        assert type(error) is BadRequestError
        assert "answers came" not in str(error)
        assert error.samples is None

    def test_servers_that_refuse_all_end_the_run(self, sampled):
        server, pool = sampled(Error(400, "no such thing"))
        results = pool.map([f"row {number}" for number in range(400)], samples=2, progress=False)
        assert results.fatal is not None
        assert len(server.requests) < 300

    def test_the_refused_samples_of_one_item_do_not(self, sampled):
        server, pool = sampled(lambda request: Error(400) if request.body["input"] == "bad" else None)
        items = [{"input": text} for text in ("bad", "b", "c")]
        results = pool.map(items, samples=40, on_error="return", progress=False)
        assert type(results[0]) is BadRequestError
        assert [len(result.choices) for result in results[1:]] == [40, 40]

    def test_a_refused_key_ends_the_run(self, sampled):
        _, pool = sampled(Error(401), retry=0)
        results = pool.map(["a", "b", "c"], samples=2, progress=False)
        assert [type(error).__name__ for error in results.errors] == ["AuthenticationError"] * 3

    def test_an_item_that_the_end_of_its_run_cuts_short_does_not_pass_for_whole(self, sampled, gate):
        def script(request):
            if request.prompt == "a":
                assert gate.wait(30)
            return Error(400) if request.prompt == "bad" else None

        server, pool = sampled(script, choices="first", max_workers=2)
        ended = {}
        for outcome in pool.as_completed(["a", "bad", "c"], samples=3, max_failures=1):
            ended[outcome.item] = outcome
            if outcome.item == "c":  # not sent, as the run has ended
                gate.set()
        assert type(ended["a"].error) is TooManyFailuresError
        assert str(ended["a"].error).startswith("1 of 3 answers came: not sent: ")
        assert len(ended["a"].error.samples.choices) == 1

    def test_a_run_that_is_left_early_ends(self, sampled):
        server, pool = sampled(lambda request: Stall() if request.prompt == "b" else None, choices=1)
        with pool.imap(["a", "b", "c"], samples=2) as outcomes:
            assert next(outcomes).ok
        assert pool.chat("still there").text

    def test_errors_keep_their_samples_when_they_are_pickled(self, sampled):
        import pickle

        _, pool = sampled(self.one_fails(), max_workers=1)
        (error,) = pool.map(["a"], samples=3, on_error="return", progress=False)
        assert texts(pickle.loads(pickle.dumps(error)).samples) == texts(error.samples)
        assert "samples" not in error.to_dict()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
    def test_in_a_forked_child_each_item_ends_once(self, sampled, gate):
        server, pool = sampled(lambda request: request.prompt != "first" and gate.wait(60) and None, choices=1)
        outcomes = pool.as_completed(["first", "a", "b", "a"], samples=2, dedupe=True)
        next(outcomes)
        server.wait_until(lambda: server.in_flight == 2)
        child = os.fork()
        if not child:
            signal.alarm(30)
            ended = sorted((each.index, type(each.error).__name__) for each in outcomes)
            os._exit(0 if ended == [(index, "CallCancelledError") for index in (1, 2, 3)] else 1)
        assert os.waitpid(child, 0)[1] == 0
        gate.set()
        assert sorted((each.index, len(each.value.choices)) for each in outcomes) == [(1, 2), (2, 2), (3, 2)]


class TestMoney:
    def test_a_budget_expects_all_samples(self, sampled):
        _, pool = sampled(budget=Budget(tokens=700), max_workers=1)
        results = pool.map(["a", "b"], samples=100, max_tokens=100, progress=False)
        assert [type(error) for error in results.errors] == [BudgetExceededError] * 2


class TestJournals:
    def test_an_item_is_one_record_with_all_its_answers(self, sampled, tmp_path):
        server, pool = sampled(choices=1)
        journal = tmp_path / "run.journal"
        first = pool.map(["a", "b"], samples=3, journal=journal, progress=False)
        before = len(server.requests)
        again = pool.map(["a", "b"], samples=3, journal=journal, parse=int, progress=False)
        assert [texts(each) for each in again] == [texts(each) for each in first]
        assert [choice.parsed for choice in again[0].choices] == [int(text) for text in texts(first[0])]
        assert again.usage == first.usage
        assert len(server.requests) == before

    def test_another_number_of_samples_is_another_request(self, sampled, tmp_path):
        _, pool = sampled()
        journal = tmp_path / "run.journal"
        for samples in (3, 5, 1):
            (result,) = pool.map(["a"], samples=samples, journal=journal, progress=False)
            assert len(result.choices) == samples

    def test_what_came_of_an_item_that_failed_is_not_asked_for_again(self, sampled, tmp_path):
        server, pool = sampled(TestFailures().one_fails(), max_workers=1)
        journal = tmp_path / "run.journal"
        (error,) = pool.map(["a"], samples=3, journal=journal, on_error="return", progress=False)
        before = len(server.requests)
        (result,) = pool.map(["a"], samples=3, journal=journal, progress=False)
        assert texts(result)[:2] == texts(error.samples)
        assert asked(server)[before:] == [1]

    def test_nor_is_it_by_a_retry(self, sampled, tmp_path):
        server, pool = sampled(TestFailures().one_fails(), max_workers=1)
        journal = tmp_path / "run.journal"
        results = pool.map(["a"], samples=3, journal=journal, on_error="return", progress=False)
        before = len(server.requests)
        pool.retry(results, progress=False)
        assert asked(server)[before:] == [1]
        (again,) = pool.map(["a"], samples=3, journal=journal, progress=False)
        assert texts(again) == texts(results[0])
        assert len(server.requests) == before + 1

    def test_an_answer_that_could_not_be_parsed_is_asked_for_again_alone(self, sampled, tmp_path):
        server, pool = sampled(reply=lambda body: ["1", "two", "3"] if body.get("n") else ["2"])
        rules = {"samples": 3, "parse": int, "journal": tmp_path / "run.journal", "on_error": "return"}
        (error,) = pool.map(["a"], max_reasks=0, progress=False, **rules)
        assert type(error) is ParseError
        (result,) = pool.map(["a"], progress=False, **rules)
        assert [choice.parsed for choice in result.choices] == [1, 3, 2]
        assert asked(server) == [3, 1]

    def test_responses_in_the_background_are_withdrawn_with_their_run(self, tmp_path, instant_waits):
        item = {"input": "a", "background": True}
        server = FakeServer(background=BackgroundScenario(polls=None))
        with server, ChatPool("m", base_url=server.base_url, timeout=Timeout(total=30)) as pool:
            pool.map([item], samples=2, journal=tmp_path / "run.journal", progress=False)
            server.wait_until(lambda: [each["status"] for each in server.background] == ["cancelled"] * 2)

    def test_a_final_failure_comes_back_with_its_answers(self, sampled, tmp_path):
        def reply(body):
            answer = chat_completion("x", n=3)
            answer["choices"][1]["finish_reason"] = "length"
            return answer

        server, pool = sampled(reply=reply)
        journal = tmp_path / "run.journal"
        rules = {"samples": 3, "accept": "stop", "journal": journal, "on_error": "return", "progress": False}
        (first,), (second,) = pool.map(["a"], **rules), pool.map(["a"], **rules)
        assert (type(second), str(second)) == (LengthError, str(first))
        assert (texts(second.samples), second.text) == (["x", "x"], first.text)
        assert len(server.requests) == 1


class TestBadInput:
    @pytest.mark.parametrize(
        ("samples", "error"), [(0, ConfigurationError), (-1, ConfigurationError), (1.5, TypeError)]
    )
    def test_a_number_that_cannot_be(self, sampled, samples, error):
        _, pool = sampled()
        with pytest.raises(error, match="samples must be"):
            pool.map(["a"], samples=samples)

    def test_beside_n(self, sampled):
        server, pool = sampled()
        with pytest.raises(TypeError, match="leave out n="):
            pool.map(["a"], samples=3, n=2)
        item = {"messages": [{"role": "user", "content": "a"}], "n": 2}
        (error,) = pool.map([item], samples=3, on_error="return", progress=False)
        assert "leave out n" in str(error)
        assert not server.requests

    @pytest.mark.parametrize(
        "item",
        [
            ChatRequest({"input": "a", "model": "text-embedding-3-small"}, "/embeddings"),
            ChatRequest({"prompt": ["a", "b"]}, "/completions"),
            ChatRequest({"messages": [{"role": "user", "content": "a"}]}, response="text"),
            ChatRequest({}, "/responses", "GET"),
        ],
    )
    def test_requests_that_have_no_samples(self, sampled, item):
        server, pool = sampled()
        (error,) = pool.map([item], samples=3, on_error="return", progress=False)
        assert type(error) is ConfigurationError
        assert "samples= is for" in str(error)
        assert not server.requests

    @pytest.mark.parametrize("method", ["chat", "submit", "stream", "stream_many", "embed"])
    def test_methods_that_have_none(self, sampled, method):
        _, pool = sampled()
        with pytest.raises(TypeError, match="samples"):
            getattr(pool, method)(["a"], samples=3)


def test_the_function_of_the_module_takes_it(sampled):
    server, _ = sampled()
    (result,) = chatpool.map(["a"], samples=2, model="m", base_url=server.base_url, progress=False)
    assert texts(result) == ["0", "1"]


def test_answers_that_a_script_gives(sampled):
    _, pool = sampled([Answer("one"), Answer("two")], choices="first", max_workers=1)
    (result,) = pool.map(["a"], samples=2, progress=False)
    assert texts(result) == ["one", "two"]


def test_every_error_has_samples():
    assert ChatPoolError("x").samples is None
