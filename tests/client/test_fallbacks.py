"""``fallbacks=``: what is sent in the place of a request that has failed, or whose answer is not accepted."""

from __future__ import annotations

import os
import pickle
import threading
from collections import Counter

import pytest

from chatpool import (
    APIConnectionError,
    AuthenticationError,
    BadRequestError,
    Budget,
    ChatPool,
    ConfigurationError,
    ContentFilterError,
    Endpoint,
    InternalServerError,
    LengthError,
    NotFoundError,
    ParseError,
    RetryPolicy,
    Timeout,
    Usage,
)
from chatpool._engine import Fallbacks
from chatpool.testing import Answer, Error, FakeServer, MemoryPool, Reset, Stream, chat_completion

GONE = Error(404, message="The model `m` does not exist.", code="model_not_found")
NO_ROOM = Error(429, message="Flex has no room now.", code="resource_unavailable")
UNKNOWN_FIELD = Error(400, message="Unknown parameter: 'top_x'.", code="unknown_parameter", param="top_x")
LONGER = {"max_completion_tokens": 8000}
PROMPTS = [f"prompt {number}" for number in range(40)]


def cut(text="half an ans"):
    return Answer(body=chat_completion(text, finish_reason="length"))


def for_model(**steps):
    """A script: a step for each of these models, and the usual answer for all others."""
    return lambda request: steps.get((request.body or {}).get("model"))


def models(server):
    return [request.body["model"] for request in server.requests]


@pytest.fixture
def server_of():
    """Servers that end with the test."""
    made = []

    def make(script=None, **options):
        made.append(FakeServer(script, **options))
        return made[-1]

    yield make
    for server in made:
        server.close()


@pytest.fixture
def pool_of():
    """Pools that end with the test."""
    made = []

    def make(server=None, **options):
        where = {} if server is None else {"base_url": server.base_url}
        made.append(ChatPool(options.pop("model", "m"), **where, **{"max_workers": 4, **options}))
        return made[-1]

    yield make
    for pool in made:
        pool.abort()


@pytest.fixture
def serve(server_of, pool_of):
    def make(script=None, **options):
        server = server_of(script)
        return server, pool_of(server, **options)

    return make


class TestWhatLeadsToOne:
    def test_a_model_that_is_gone(self, serve):
        server, pool = serve(for_model(m=GONE))
        reply = pool.chat("ping", fallbacks=["other"])
        assert (reply.text, reply.fallback) == ("ping", 1)
        assert models(server) == ["m", "other"]

    @pytest.mark.parametrize("error", [Error(403, code="model_not_found"), Error(403, message="no such right")])
    def test_a_model_that_the_key_may_not_use(self, serve, error):
        server, pool = serve(for_model(m=error))
        assert pool.chat("ping", fallbacks=["other"]).fallback == 1

    def test_an_answer_that_is_cut(self, serve):
        server, pool = serve(lambda request: None if "max_completion_tokens" in request.body else cut())
        reply = pool.chat("ping", accept="stop", max_tokens=5, fallbacks=[{**LONGER, "max_tokens": None}])
        assert reply.text == "ping"
        assert server.requests[1].body == {
            "model": "m",
            "messages": [{"role": "user", "content": "ping"}],
            "max_completion_tokens": 8000,
        }

    def test_an_answer_that_a_filter_cut(self, serve):
        filtered = Answer(body=chat_completion("", finish_reason="content_filter"))
        _, pool = serve(for_model(m=filtered))
        assert pool.chat("ping", accept="stop", fallbacks=["other"]).fallback == 1
        with pytest.raises(ContentFilterError):
            pool.chat("ping", accept="stop")

    def test_an_answer_that_cannot_be_parsed_after_its_reasks(self, serve):
        server, pool = serve(for_model(m=Answer("no number"), other=Answer("7")))
        reply = pool.chat("a number", parse=int, max_reasks=1, fallbacks=["other"])
        assert (reply.parsed, reply.fallback) == (7, 1)
        assert models(server) == ["m", "m", "other"]
        assert len(server.requests[1].body["messages"]) == 3
        assert len(server.requests[2].body["messages"]) == 1  # not the conversation about the first model's answer

    def test_each_one_has_reasks_of_its_own(self, serve):
        server, pool = serve(for_model(m=Answer("no"), other=Answer("no")))
        with pytest.raises(ParseError):
            pool.chat("a number", parse=int, max_reasks=1, fallbacks=["other"])
        assert models(server) == ["m", "m", "other", "other"]

    def test_an_exception_of_parse_that_no_answer_mends_does_not(self, serve):
        server, pool = serve()

        def parse(text):
            raise OSError("the database is away")

        with pytest.raises(ParseError, match="the database is away"):
            pool.chat("ping", parse=parse, fallbacks=["other"])
        assert models(server) == ["m"]

    def test_a_tier_without_room_is_not_waited_for(self, serve):
        server, pool = serve(lambda request: NO_ROOM if request.body.get("service_tier") == "flex" else None)
        reply = pool.chat("ping", service_tier="flex", fallbacks=[{"service_tier": "default"}])
        assert reply.text == "ping"
        assert [request.body["service_tier"] for request in server.requests] == ["flex", "default"]
        line = next(iter(pool.stats().lines.values()))
        assert (line.rate, line.paused_until, line.concurrency_limit) == (None, None, None)  # flex slows no other tier

    def test_without_one_a_tier_without_room_is_waited_for(self, serve, instant_waits):
        server, pool = serve([NO_ROOM, NO_ROOM])
        assert pool.chat("ping", service_tier="flex").text == "ping"
        assert len(server.requests) == 3

    def test_the_last_one_waits_for_a_tier_without_room(self, serve, instant_waits):
        server, pool = serve([NO_ROOM] * 4)
        assert pool.chat("ping", service_tier="flex", fallbacks=["other"]).text == "ping"
        assert models(server) == ["m", "other", "other", "other", "other"]

    @pytest.mark.parametrize("message", ["too fast", "requests per day (RPD): 200 used"])
    def test_a_server_that_asks_to_wait_for_longer_than_the_call_has(self, serve, message):
        server, pool = serve(for_model(m=Error(429, message=message, headers={"retry-after": "90"})))
        assert pool.chat("ping", timeout=Timeout(total=60), fallbacks=["other"]).fallback == 1
        assert models(server) == ["m", "other"]

    def test_a_field_that_is_not_known(self, serve):
        server, pool = serve(lambda request: UNKNOWN_FIELD if "top_x" in request.body else None)
        assert pool.chat("ping", top_x=3, fallbacks=[{"top_x": None}]).fallback == 1
        assert "top_x" not in server.requests[1].body

    def test_retries_that_are_used_up(self, serve, instant_waits):
        server, pool = serve(for_model(m=Error(503)), retry=RetryPolicy(max_retries=2, patience=0))
        assert pool.chat("ping", fallbacks=["other"]).fallback == 1
        assert models(server) == ["m", "m", "m", "other"]

    def test_retries_count_anew_for_each(self, serve, instant_waits):
        server, pool = serve(Error(503), retry=RetryPolicy(max_retries=1, patience=0))
        with pytest.raises(InternalServerError):
            pool.chat("ping", fallbacks=["b", "c"])
        assert models(server) == ["m", "m", "b", "b", "c", "c"]


class TestWhatDoesNot:
    @pytest.mark.parametrize("fallbacks", [["other"], [{"temperature": 0}]])
    @pytest.mark.parametrize("step", [Error(401), Error(429, code="insufficient_quota")])
    def test_a_key_or_a_credit_that_no_model_brings_back(self, serve, step, fallbacks):
        server, pool = serve(step)
        with pytest.raises((AuthenticationError, Exception)):
            pool.chat("ping", fallbacks=fallbacks)
        assert len(server.requests) == 1

    def test_a_field_does_not_bring_a_model_back(self, serve):
        server, pool = serve(for_model(m=GONE))
        reply = pool.chat("ping", fallbacks=[LONGER, {"model": "other", "temperature": 0}])
        assert reply.fallback == 2
        assert models(server) == ["m", "other"]

    def test_the_same_request_again(self, serve):
        server, pool = serve(cut())
        with pytest.raises(LengthError):
            pool.chat("ping", accept="stop", temperature=0, fallbacks=["m", {"temperature": 0}, {"top_p": None}])
        assert len(server.requests) == 1

    def test_one_that_is_there_twice(self, serve):
        server, pool = serve(cut())
        with pytest.raises(LengthError, match="no fallback is left"):
            pool.chat("ping", accept="stop", fallbacks=["b", "b", {"model": "b"}, "c"])
        assert models(server) == ["m", "b", "c"]

    def test_a_call_whose_time_is_over(self, serve, fake_clock):
        def answer(request):
            fake_clock.advance(4)
            return cut()

        server, pool = serve(answer)
        with pytest.raises(LengthError):
            pool.chat("ping", accept="stop", timeout=Timeout(total=10), fallbacks=["b", "c", "d", "e"])
        assert models(server) == ["m", "b", "c"]  # which took 12 seconds

    def test_a_stream_that_has_begun(self, serve):
        server, pool = serve(for_model(m=Stream(["one ", "two "], end="reset")))
        with pytest.raises(Exception, match="stream"):
            list(pool.stream("ping", fallbacks=["other"]))
        assert models(server) == ["m"]

    def test_a_request_that_was_not_sent(self, serve):
        server, pool = serve(budget=Budget(tokens=1))
        with pytest.raises(Exception, match="budget"):
            pool.chat("ping " * 100, fallbacks=["other"])
        assert not server.requests


class TestEndpoints:
    def test_one_that_is_kept_for_fallbacks_gets_nothing_else(self, server_of, pool_of):
        first, standby = server_of(), server_of(reply=lambda body: "from the standby")
        pool = pool_of(first, fallbacks=[Endpoint(standby.base_url, "its-key", model="big")])
        assert not pool.map(PROMPTS).failures
        assert not standby.requests
        first.set_script(cut())
        reply = pool.chat("ping", accept="stop")
        assert (reply.text, reply.fallback) == ("from the standby", 1)
        assert standby.requests[0].headers["authorization"] == "Bearer its-key"
        assert models(standby) == ["big"]

    @pytest.mark.parametrize("step", [Error(401), Error(429, code="insufficient_quota"), GONE])
    def test_it_answers_where_the_first_refuses_every_call(self, server_of, pool_of, step):
        first, standby = server_of(step), server_of()
        pool = pool_of(first, fallbacks=["other model", Endpoint(standby.base_url)][1:])
        results = pool.map(PROMPTS)
        assert results.fatal is None
        assert not results.failures
        assert {outcome.fallback for outcome in results.outcomes} == {1}
        assert len(first.requests) <= 4  # those in flight with the first refusal

    def test_it_answers_where_the_first_cannot_be_reached(self, server_of, pool_of, instant_waits):
        away, standby = server_of(), server_of()
        away.close()
        pool = pool_of(away, fallbacks=[Endpoint(standby.base_url)], retry=RetryPolicy(max_retries=1, max_outage=1))
        assert pool.chat("ping").fallback == 1

    def test_a_standby_that_refuses_its_key_ends_no_run_of_the_first(self, server_of, pool_of):
        first = server_of({"bad": cut()})
        standby = server_of(Error(401))
        pool = pool_of(first, max_workers=1, fallbacks=[Endpoint(standby.base_url)])
        results = pool.map(["bad", *PROMPTS], accept="stop")
        assert len(results.failures) == 1
        assert isinstance(results.errors[0], AuthenticationError)
        assert results.fatal is None

    def test_one_of_several_can_be_named(self, server_of, pool_of):
        a, b = server_of(cut()), server_of(cut())
        one, two = Endpoint(a.base_url, name="one"), Endpoint(b.base_url, name="two")
        pool = pool_of(endpoints=[one, two], fallbacks=[two, one])
        with pytest.raises(LengthError):
            pool.chat("ping", accept="stop")
        assert (len(a.requests), len(b.requests)) == (1, 1)

    def test_one_that_refuses_every_call_is_passed_over(self, server_of, pool_of, within):
        a, b, standby = server_of(cut()), server_of(Error(401)), server_of()
        one, two, three = Endpoint(a.base_url), Endpoint(b.base_url), Endpoint(standby.base_url)
        pool = pool_of(endpoints=[one, two], fallbacks=[two, three])
        replies = within(60, lambda: [pool.chat("ping", accept="stop").fallback for _ in range(6)])
        assert replies == [2] * 6

    def test_one_that_refuses_a_fallback_ends_only_that(self, server_of, pool_of, within):
        a, b = server_of(cut()), server_of(Error(401))
        one, two = Endpoint(a.base_url, weight=1e9), Endpoint(b.base_url)
        pool = pool_of(endpoints=[one, two], fallbacks=[two, "other"])
        pool.chat("warm up")
        a.set_script(for_model(m=cut()))
        assert within(60, lambda: pool.chat("ping", accept="stop")).fallback == 2
        assert len(b.requests) == 1

    def test_rows_that_begin_with_one_go_to_no_other(self, server_of, pool_of):
        answered = threading.Event()
        one = Endpoint(
            server_of(lambda request: UNKNOWN_FIELD if "top_x" in request.body else None).base_url, weight=1e9
        )
        two = Endpoint(server_of(lambda request: answered.set()).base_url)
        pool = pool_of(endpoints=[one, two], fallbacks=[two])
        pool.chat("warm up")

        def rows():
            yield {"messages": [{"role": "user", "content": "first"}], "top_x": 1}
            assert answered.wait(60)
            for text in PROMPTS:
                yield {"messages": [{"role": "user", "content": text}], "top_x": 1}

        assert pool.map(rows()).texts == ["first", *PROMPTS]

    def test_results_of_another_pool_are_sent_again_without_its_endpoints(self, server_of, pool_of):
        first, standby = server_of(cut()), server_of(cut())
        results = pool_of(first, fallbacks=[Endpoint(standby.base_url), "other"]).map(["ping"], accept="stop")
        second = server_of(for_model(m=cut()))
        pool_of(second).retry(results)
        assert results.outcomes[0].fallback == 2
        assert models(second) == ["m", "other"]

    def test_the_key_of_the_pool_stays_with_its_own_server(self, server_of, pool_of):
        first, standby = server_of(cut()), server_of()
        pool = pool_of(first, api_key="secret", fallbacks=[Endpoint(standby.base_url)])
        assert pool.chat("ping", accept="stop").fallback == 1
        assert "authorization" not in standby.requests[0].headers
        with pytest.raises(ConfigurationError, match="would go to all endpoints"):
            pool_of(first, headers={"Authorization": "Bearer x"}, fallbacks=[Endpoint(standby.base_url)])

    def test_a_call_may_name_those_of_its_pool(self, server_of, pool_of):
        first, standby = server_of(cut()), server_of()
        endpoint = Endpoint(standby.base_url)
        pool = pool_of(first, fallbacks=["other", endpoint])
        assert pool.chat("ping", accept="stop", fallbacks=[endpoint]).fallback == 1
        with pytest.raises(ConfigurationError, match="that the pool does not have"):
            pool.chat("ping", fallbacks=[Endpoint(standby.base_url)])

    def test_a_pickled_pool_has_them(self, server_of, pool_of):
        first, standby = server_of(cut()), server_of()
        again = pickle.loads(pickle.dumps(pool_of(first, fallbacks=[LONGER, Endpoint(standby.base_url)])))
        with again:
            assert again.chat("ping", accept="stop").fallback == 2
        second = server_of(cut())
        both = Endpoint(second.base_url), Endpoint(standby.base_url)
        several = pickle.loads(pickle.dumps(pool_of(endpoints=both, fallbacks=[both[1]])))
        with several:
            assert several.chat("ping", accept="stop").text == "ping"
            assert len(several._core.base_urls) == 2  # the fallback is one of them still

    def test_a_fallback_after_a_standby_goes_to_the_first_again(self, server_of, pool_of):
        first, standby = server_of(for_model(m=cut())), server_of(cut())
        pool = pool_of(first, fallbacks=[Endpoint(standby.base_url), "other"])
        assert pool.chat("ping", accept="stop").fallback == 2
        assert models(first) == ["m", "other"]
        assert len(standby.requests) == 1

    @pytest.mark.usefixtures("instant_waits")
    def test_with_when_down_raise_it_is_sent_at_once(self, server_of, pool_of):
        away, standby = server_of(Reset()), server_of()
        pool = pool_of(away, when_down="raise", fallbacks=[Endpoint(standby.base_url)], max_workers=1)
        replies = [pool.chat("ping").fallback for _ in range(3)]
        assert replies == [1, 1, 1]

    def test_with_when_down_raise_a_call_in_a_worker_goes_to_one_that_is_up(self, server_of, pool_of):
        away, gone = server_of(), server_of()
        away.close()
        gone.close()
        standbys = [Endpoint(server.base_url) for server in (gone, server_of())]
        pool = pool_of(away, when_down="raise", fallbacks=standbys, retry=1)
        assert [pool.chat("ping").fallback for _ in range(12)] == [2] * 12  # both are known to be down by then

        def parse(text):
            return pool.chat("inner").fallback

        assert pool.chat("ping", parse=parse).parsed == 2

    def test_with_when_down_raise_calls_that_wait_go_there(self, server_of, pool_of):
        go_on = threading.Event()

        def answer(request):
            assert go_on.wait(60)
            return Reset()

        away, standby = server_of(answer), server_of()
        pool = pool_of(away, when_down="raise", fallbacks=["no help", Endpoint(standby.base_url)], max_workers=1)
        futures = [pool.submit(f"ping {number}") for number in range(6)]
        without = pool.submit("ping", fallbacks=["no help"])
        go_on.set()
        assert [future.result(120).fallback for future in futures] == [2] * 6
        assert isinstance(without.exception(120), APIConnectionError)
        assert pool._core.engine.counts() == (0, 0, 0)


class TestRuns:
    def test_a_refused_model_ends_no_run_and_is_not_asked_again(self, serve):
        server, pool = serve(for_model(m=GONE))
        results = pool.map(PROMPTS, fallbacks=["other"])
        assert results.fatal is None
        assert results.texts == PROMPTS
        asked = Counter(models(server))
        assert asked["other"] == 40
        assert asked["m"] <= 4
        assert pool.stats().failed == 0

    def test_the_next_run_asks_again(self, serve):
        server, pool = serve(for_model(m=GONE), fallbacks=["other"])
        pool.map(PROMPTS)
        server.set_script(None)
        assert {outcome.fallback for outcome in pool.map(PROMPTS).outcomes} == {0}

    def test_where_all_are_refused_the_run_ends(self, serve):
        server, pool = serve(GONE, max_workers=1)
        results = pool.map(PROMPTS, fallbacks=["b", "c"])
        assert results == [None] * 40
        assert isinstance(results.fatal, NotFoundError)
        assert "no fallback is left (the request: 404 model_not_found; fallback 1: 404" in str(results.errors[0])
        assert len(server.requests) == 3
        assert [outcome.attempts for outcome in results.outcomes] == [3] + [0] * 39

    def test_rows_with_models_of_their_own_keep_them(self, serve):
        server, pool = serve(for_model(a=GONE))
        rows = [{"model": "ab"[number % 2], "messages": [{"role": "user", "content": "x"}]} for number in range(20)]
        results = pool.map(rows, fallbacks=["c"])
        assert [outcome.fallback for outcome in results.outcomes] == [1, 0] * 10

    def test_an_unknown_field_is_left_out_of_the_rows_after_it(self, serve):
        server, pool = serve(lambda request: UNKNOWN_FIELD if "top_x" in request.body else None)
        rows = [{"top_x": 1, "messages": [{"role": "user", "content": text}]} for text in PROMPTS]
        rows.append({"top_p": 1, "messages": [{"role": "user", "content": "last"}]})
        results = pool.map(rows, fallbacks=[{"top_x": None}])
        assert results.texts == [*PROMPTS, "last"]
        assert len(server.requests) <= 41 + 4
        assert [outcome.fallback for outcome in results.outcomes] == [1] * 40 + [0]

    def test_a_field_that_no_fallback_leaves_out_fails_the_rows_that_have_it(self, serve):
        server, pool = serve(lambda request: UNKNOWN_FIELD if "top_x" in request.body else None)
        rows = [{"messages": [{"role": "user", "content": str(number)}]} for number in range(100)]
        rows[::2] = [{**row, "top_x": 1} for row in rows[::2]]
        results = pool.map(rows, on_error="return", fallbacks=["other"])
        assert results.fatal is None
        assert [outcome.ok for outcome in results.outcomes] == [False, True] * 50
        assert all(outcome.attempts for outcome in results.outcomes)
        longest = max(str(outcome.error) for outcome in results.outcomes[::2])
        assert "not sent" not in longest

    @pytest.mark.parametrize("fallbacks", [["other"], ["other", {"model": "third"}]])
    def test_nor_if_the_last_fallback_is_refused_just_after_a_call_was_to_go_on_with_it(
        self, serve, monkeypatch, fallbacks
    ):
        reason_to_skip, told = Fallbacks.reason_to_skip, []

        def then_all_are_refused(self, request, number):
            error = reason_to_skip(self, request, number)
            if error is not None and not told:
                told.append(request)
                for other in range(number + 1, len(self.entries) + 1):
                    self.remember(request, other, error, for_all=False)
            return error

        monkeypatch.setattr(Fallbacks, "reason_to_skip", then_all_are_refused)
        server, pool = serve(lambda request: UNKNOWN_FIELD if "top_x" in request.body else None, max_workers=1)
        messages = {"messages": [{"role": "user", "content": "ping"}]}
        pool.map([messages])
        results = pool.map([{**messages, "top_x": 1}] * 4 + [messages], on_error="return", fallbacks=fallbacks)
        assert told
        assert results.fatal is None
        assert [outcome.ok for outcome in results.outcomes] == [False] * 4 + [True]
        assert all(outcome.attempts for outcome in results.outcomes)

    def test_nor_does_it_end_the_run_if_a_fallback_has_had_no_others(self, serve, gate):
        def answer(request):
            if request.body["model"] == "other":
                if models(server).count("other") >= 16:
                    gate.set()
                assert gate.wait(60)
            return UNKNOWN_FIELD if "top_x" in request.body else None

        server, pool = serve(answer, max_workers=16)
        pool.chat("ping")
        rows = [{"messages": [{"role": "user", "content": str(number)}], "top_x": 1} for number in range(40)]
        results = pool.map([*rows, "ping"], on_error="return", fallbacks=["other"])
        assert results.fatal is None
        assert [outcome.ok for outcome in results.outcomes] == [False] * 40 + [True]

    def test_items_that_are_the_same_share_one(self, serve):
        server, pool = serve(for_model(m=GONE))
        results = pool.map(["ping"] * 5, dedupe=True, fallbacks=["other"])
        assert len(server.requests) == 2
        assert [outcome.fallback for outcome in results.outcomes] == [1] * 5

    @pytest.mark.parametrize("run", ["imap", "as_completed", "stream_many"])
    def test_every_kind_of_run_has_them(self, serve, run):
        server, pool = serve(for_model(m=GONE))
        ends = [end if run != "stream_many" else end[1] for end in getattr(pool, run)(PROMPTS, fallbacks=["other"])]
        outcomes = [end for end in ends if hasattr(end, "history")]
        assert Counter(outcome.fallback for outcome in outcomes) == {1: 40}

    def test_texts_to_embed(self, serve):
        server, pool = serve(for_model(m=GONE))
        assert pool.embed("ping", fallbacks=["other"])
        results = pool.embed(PROMPTS, fallbacks=["other"])
        assert not results.failures
        assert results.outcomes[0].charges[0].model == "other"
        assert results.cost({"other": 1e6}) == results.usage.prompt_tokens > 0

    def test_the_fallbacks_of_a_pool_are_not_for_vectors(self, serve):
        server, pool = serve(for_model(m=GONE), fallbacks=["other"])
        with pytest.raises(NotFoundError):
            pool.embed("ping")
        with pytest.raises(NotFoundError):
            pool.request("/moderations", {"model": "m", "input": "x"})
        assert pool.request("/moderations", {"model": "m", "input": "x"}, fallbacks=["other"])

    def test_a_text_that_is_refused_is_sent_alone_first(self, serve):
        def script(request):
            texts = request.body["input"]
            return (
                Error(400, message=f"bad text {len(texts)}")
                if "bad" in texts and request.body["model"] == "m"
                else None
            )

        server, pool = serve(script)
        results = pool.embed(["a", "b", "bad", "c"], fallbacks=["other"])
        assert [outcome.fallback for outcome in results.outcomes] == [0, 0, 1, 0]

    def test_a_second_try_has_those_of_the_run(self, serve):
        server, pool = serve(GONE)
        results = pool.map(["ping"], fallbacks=["other"])
        server.set_script(for_model(m=GONE))
        pool.retry(results)
        assert results.outcomes[0].fallback == 1
        assert len(results.outcomes[0].history) == 4


class TestWhatIsTold:
    def test_the_outcome_has_all_attempts(self, serve):
        server, pool = serve(for_model(m=GONE, b=cut()))
        outcome = pool.map(["ping"], accept="stop", fallbacks=["b", "c"]).outcomes[0]
        assert [(attempt.reason, attempt.fallback) for attempt in outcome.history] == [
            ("404 model_not_found", 0),
            ("ended by length", 1),
            ("ok", 2),
        ]
        assert (outcome.fallback, outcome.request.model, outcome.value.fallback) == (2, "m", 2)
        assert [attempt.wait is None for attempt in outcome.history] == [False, False, True]

    def test_the_error_of_the_last_one_names_the_others(self, serve):
        server, pool = serve(for_model(m=GONE, b=UNKNOWN_FIELD))
        with pytest.raises(BadRequestError, match="the request: 404 model_not_found") as caught:
            pool.chat("ping", fallbacks=["b"])
        assert caught.value.attempts == 2
        assert caught.value.param == "top_x"

    def test_the_rejected_answer_is_kept_on_the_error(self, serve):
        server, pool = serve(cut("so far"))
        with pytest.raises(LengthError) as caught:
            pool.chat("ping", accept="stop", fallbacks=["b"])
        assert caught.value.text == "so far"
        assert caught.value.completion.finish_reason == "length"

    def test_listeners_hear_of_it(self, serve, caplog):
        heard = []
        server, pool = serve(for_model(m=cut()), listeners=[heard.append])
        with caplog.at_level("INFO", "chatpool"):
            pool.chat("ping", accept="stop", fallbacks=["other"])
        kinds = [(event.kind, event.model, event.attempt, event.fallback) for event in heard]
        assert kinds == [
            ("queued", "m", 0, 0),
            ("sent", "m", 1, 0),
            ("falling_back", "m", 1, 0),
            ("sent", "other", 2, 1),
            ("succeeded", "other", 2, 1),
        ]
        assert (heard[2].reason, heard[2].wait) == ("LengthError", 0.0)  # as of an attempt that another one follows
        assert heard[2].finish_reason == "length"
        assert "a fallback is sent" in caplog.text
        stats = pool.stats()
        assert (stats.succeeded, stats.failed, stats.fell_back) == (1, 0, 1)


class TestMoney:
    PRICES = {"m": (1e6, 1e6), "other": (1e3, 1e3)}  # a dollar, and a tenth of a cent, a token

    def rejected(self):
        body = chat_completion("cut", model="m", finish_reason="length")
        body["usage"] = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        return Answer(body=body)

    def answered(self):
        body = chat_completion("whole", model="other")
        body["usage"] = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
        return Answer(body=body)

    def test_each_answer_is_priced_by_its_model(self, serve):
        budget = Budget(cost=1e9, prices=self.PRICES)
        server, pool = serve(for_model(m=self.rejected(), other=self.answered()), budget=budget)
        results = pool.map(["ping"], accept="stop", fallbacks=["other"])
        assert results.usage == Usage(13, 24, 37)
        assert results.cost(self.PRICES) == pytest.approx(7.03)
        assert pool.stats().cost == pytest.approx(7.03)
        assert pool._core.engine._budget_tracker.cost == pytest.approx(7.03)
        assert [(charge.model, charge.usage.total_tokens) for charge in results.outcomes[0].charges] == [
            ("m", 7),
            ("other", 30),
        ]

    def test_a_failure_costs_as_well(self, serve):
        server, pool = serve(for_model(m=self.rejected(), other=self.rejected()))
        results = pool.map(["ping"], accept="stop", fallbacks=["other"])
        assert results.cost(self.PRICES) == pytest.approx(7.007)

    def test_tiers_have_prices_of_their_own(self, serve):
        prices = {
            "m": {
                "input_cost_per_token": 1.0,
                "output_cost_per_token": 1.0,
                "input_cost_per_token_flex": 0.5,
                "output_cost_per_token_flex": 0.5,
            }
        }
        budget = Budget(cost=1e9, prices=prices)
        server, pool = serve(
            lambda request: self.rejected() if request.body.get("service_tier") == "flex" else self.answered(),
            budget=budget,
        )
        results = pool.map(["ping"], accept="stop", service_tier="flex", fallbacks=[{"service_tier": None}])
        assert results.cost(prices) == pytest.approx(33.5)
        assert pool.stats().cost == pytest.approx(33.5)
        assert pool._core.engine._budget_tracker.cost == pytest.approx(33.5)

    def test_a_budget_needs_the_price_of_each(self, serve):
        with pytest.raises(ConfigurationError, match="no price for the pool's model 'unpriced'"):
            serve(budget=Budget(cost=1, prices=self.PRICES), fallbacks=["unpriced"])


class TestJournals:
    def test_an_answer_by_a_fallback_is_done(self, serve, tmp_path):
        server, pool = serve(for_model(m=GONE))
        journal = tmp_path / "run.journal"
        first = pool.map(PROMPTS, journal=journal, fallbacks=["other"])
        sent = len(server.requests)
        again = pool.map(PROMPTS, journal=journal)
        assert len(server.requests) == sent
        assert [outcome.fallback for outcome in again.outcomes] == [outcome.fallback for outcome in first.outcomes]
        assert [attempt.fallback for attempt in again.outcomes[-1].history] == [1]
        assert again[0].fallback == 1

    def test_it_keeps_what_each_has_cost(self, serve, tmp_path):
        money = TestMoney()
        server, pool = serve(for_model(m=money.rejected(), other=money.answered()))
        journal = tmp_path / "run.journal"
        pool.map(["ping"], accept="stop", journal=journal, fallbacks=["other"])
        again = pool.map(["ping"], accept="stop", journal=journal)
        assert again.cost(money.PRICES) == pytest.approx(7.03)
        assert len(server.requests) == 2


class TestKindsOfCalls:
    def test_responses(self, serve):
        server, pool = serve(for_model(m=GONE), fallbacks=["other"])
        assert pool.responses("ping").text == "ping"
        assert [request.path for request in server.requests] == ["/v1/responses"] * 2

    def test_submit(self, serve):
        server, pool = serve(for_model(m=GONE))
        assert pool.submit("ping", fallbacks=["other"]).result(60).fallback == 1

    def test_a_stream_before_its_first_chunk(self, serve):
        server, pool = serve(for_model(m=GONE))
        with pool.stream("ping pong", fallbacks=["other"]) as stream:
            assert "".join(chunk.text for chunk in stream) == "ping pong"
        assert models(server) == ["m", "other"]

    def test_an_answer_that_is_collected_from_a_stream(self, serve):
        server, pool = serve(for_model(m=Stream(["cut"], finish_reason="length")))
        assert pool.chat("ping", accept="stop", collect_stream=True, fallbacks=["other"]).fallback == 1
        assert all(request.body["stream"] for request in server.requests)

    def test_a_file_that_cannot_be_read_twice_is_sent_whole_again(self, serve):
        ready, writable = os.pipe()
        with os.fdopen(writable, "wb") as file:  # gevent's os.close would wait for its loop
            file.write(b"RIFF, more or less")
        server, pool = serve(lambda request: GONE if request.form["model"] == "m" else None)
        with os.fdopen(ready, "rb") as file:
            pool.request("/audio/transcriptions", {"model": "m"}, files={"file": file}, fallbacks=["other"])
        assert [request.form["model"] for request in server.requests] == ["m", "other"]
        assert server.requests[1].files[0].content == b"RIFF, more or less"

    @pytest.mark.usefixtures("instant_waits")
    def test_responses_in_the_background(self, serve, tmp_path):
        server, pool = serve(for_model(m=GONE))
        journal = tmp_path / "run.journal"
        results = pool.map([{"input": "ping"}], background=True, journal=journal, fallbacks=["other"])
        assert results.texts == ["ping"]
        assert results.outcomes[0].fallback == 1
        assert results.outcomes[0].charges[0].model == "other"

    def test_a_pool_in_memory(self):
        def reply(body):
            return cut() if body["model"] == "m" else "ok"

        with MemoryPool("m", replies=reply, fallbacks=["other", Endpoint("http://elsewhere.invalid/v1")]) as pool:
            assert pool.chat("ping", accept="stop").fallback == 1
            assert [body["model"] for body in pool.outbox] == ["m", "other"]
            assert pool.map(["ping"] * 3, accept="stop").texts == ["ok"] * 3

    def test_a_view_has_its_own_and_a_call_may_have_none(self, serve):
        server, pool = serve(for_model(m=GONE), fallbacks=["other"])
        assert pool.with_options(fallbacks=["b"]).chat("ping").fallback == 1
        assert models(server) == ["m", "b"]
        with pytest.raises(NotFoundError):
            pool.chat("ping", fallbacks=[])

    def test_calls_made_in_a_worker(self, serve):
        server, pool = serve(for_model(m=GONE), max_workers=1)
        seen = []

        def parse(text):
            seen.append(pool.chat("inner", fallbacks=["other"]).fallback)
            return text

        assert pool.chat("ping", model="other", parse=parse).parsed == "ping"
        assert seen == [1]

    def test_a_call_that_is_cancelled_between_two(self, serve):
        go_on, asked = threading.Event(), threading.Event()

        def script(request):
            asked.set()
            assert go_on.wait(60)
            return GONE

        server, pool = serve(script)
        future = pool.submit("ping", fallbacks=["other"])
        assert asked.wait(60)
        future.cancel()
        go_on.set()
        pool.close()
        assert models(server) == ["m"]


@pytest.mark.parametrize(
    ("fallbacks", "message"),
    [
        ("other", "fallbacks must be a list"),
        ({"model": "other"}, "fallbacks must be a list"),
        ([7], r"fallbacks\[0\] must be the name of a model"),
        ([("http://host/v1", "its key")], "got a tuple$"),  # without the key
        (["other", {}], r"fallbacks\[1\] changes nothing"),
        ([{1: 2}], "names of body fields"),
        ([{"stream": True}], "'stream'"),
        ([{"model": None}], "must name a model"),
        ([" "], "must name a model"),
        ([{"x": object()}], "x is"),
    ],
)
def test_bad_input_is_named(serve, fallbacks, message):
    server, pool = serve()
    with pytest.raises((TypeError, ConfigurationError), match=message):
        pool.chat("ping", fallbacks=fallbacks)
    with pytest.raises((TypeError, ConfigurationError), match=message):
        pool.with_options(fallbacks=fallbacks)
    with pytest.raises((TypeError, ConfigurationError), match=message):
        ChatPool("m", fallbacks=fallbacks, api_key="x")
