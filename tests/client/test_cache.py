"""``ChatPool(cache=)``: which requests are identical, what is kept, and how it looks to the caller."""

from __future__ import annotations

import json
import logging
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
from dataclasses import dataclass

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from chatpool import (
    Budget,
    BudgetExceededError,
    Cache,
    ChatPool,
    ChatRequest,
    ConfigurationError,
    ContentFilterError,
    Endpoint,
    LengthError,
    ParseError,
    Usage,
    attach,
)
from chatpool._client.run_cache import RunCache
from chatpool.testing import Answer, Error, FakeServer, chat_completion


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.db"


@pytest.fixture
def server():
    with FakeServer() as server:
        yield server


@pytest.fixture
def pool_of(server, path):
    """A function that makes a pool with the cache; all end with the test."""
    pools = []

    def make(server=server, cache=path, model="m", **options):
        pools.append(ChatPool(model, base_url=server.base_url, cache=cache, max_workers=4, **options))
        return pools[-1]

    yield make
    for pool in pools:
        pool.abort()


@pytest.fixture(scope="module")
def one_server():
    with FakeServer() as server:
        yield server


@dataclass
class City:
    name: str


PARIS = Answer('{"name": "Paris"}')


class TestCalls:
    def test_a_second_call_is_not_sent(self, server, pool_of):
        first = pool_of().chat("ping")
        again = pool_of().chat("ping")
        assert len(server.requests) == 1
        assert (again.text, again.id, again.request_id, again.raw) == (
            first.text,
            first.id,
            first.request_id,
            first.raw,
        )
        assert (first.cached, again.cached) == (False, True)
        assert again.usage == Usage()
        assert again.raw["usage"]["total_tokens"] == first.usage.total_tokens > 0

    def test_without_a_cache_it_is(self, server):
        with ChatPool("m", base_url=server.base_url) as pool:
            assert not any(pool.chat("ping").cached for _ in range(2))
        assert len(server.requests) == 2

    def test_without_one_no_part_of_it_is_imported(self):
        code = (
            "import sys, chatpool\n"
            "chatpool.ChatPool('m', base_url='http://127.0.0.1:1/v1').close()\n"
            "print({'sqlite3', 'chatpool._cache', 'chatpool._client.answer_cache'} & set(sys.modules))"
        )
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert ended.stdout == "set()\n"

    def test_views_futures_and_other_paths_have_it_too(self, server, pool_of):
        for turn in range(2):
            pool = pool_of()
            answers = [
                pool.submit("a").result(),
                pool.with_options(system="be brief").chat("a"),
                pool.responses("a"),
                pool.chat({"prompt": "a"}),
                pool.chat("a", n=2),
            ]
            assert [answer.cached for answer in answers] == [bool(turn)] * 5
            assert len(answers[-1].choices) == 2
        assert len(server.requests) == 5

    def test_values_that_are_no_completions(self, server, pool_of, tmp_path):
        def ask(pool):
            sound = tmp_path / f"{len(server.requests)}.mp3"
            return [
                pool.embed("text"),
                pool.moderate("text"),
                pool.transcribe(("a.wav", b"spoken words")),
                pool.transcribe(("a.wav", b"spoken words"), response_format="srt"),
                pool.speak("text"),
                pool.speak("other", to=sound).read_bytes(),
                pool.images("a house"),
                pool.request("/audio/speech", {"input": "x", "voice": "alloy"}, response="text"),
            ]

        first, sent = ask(pool_of()), len(server.requests)
        assert ask(pool_of()) == first
        assert len(server.requests) == sent == 8

    def test_a_sound_in_a_file_and_its_bytes_are_one_answer(self, server, pool_of, tmp_path):
        data = pool_of().speak("hello", response_format="wav")
        assert pool_of().speak("hello", to=tmp_path / "hello.wav", response_format="wav").read_bytes() == data
        assert len(server.requests) == 1

    def test_a_stream_that_is_collected_is_the_same_request(self, server, pool_of):
        first = pool_of().chat("ping", collect_stream=True)
        assert pool_of().chat("ping").cached
        assert pool_of().chat("ping", collect_stream=True).text == first.text
        assert len(server.requests) == 1

    def test_events_and_counters_say_so(self, pool_of):
        pool_of().chat("ping")
        events = []
        pool = pool_of(listeners=[events.append])
        pool.chat("ping")
        assert [(event.kind, event.cached, event.attempt, event.usage) for event in events] == [
            ("succeeded", True, 0, None)
        ]
        stats = pool.stats()
        assert (stats.succeeded, stats.cached, stats.usage) == (1, 1, Usage())

    def test_it_counts_for_no_budget(self, server, pool_of):
        pool_of().chat("ping")
        pool = pool_of(budget=Budget(tokens=0))
        assert pool.chat("ping").cached
        with pytest.raises(BudgetExceededError):
            pool.chat("pong")

    def test_a_closed_pool_has_closed_the_file(self, pool_of, path):
        pool = pool_of()
        pool.chat("ping")
        assert path.with_name("answers.db-wal").exists()
        pool.close()
        assert os.listdir(path.parent) == ["answers.db"]

    def test_a_pool_that_is_pickled_keeps_it(self, server, pool_of):
        pool_of().chat("ping")
        with pickle.loads(pickle.dumps(pool_of())) as pool:
            assert pool.chat("ping").cached

    def test_an_answer_is_pickled_as_one_from_the_cache(self, pool_of):
        pool_of().chat("ping")
        outcome = pool_of().map(["ping"], progress=False).outcomes[0]
        assert pickle.loads(pickle.dumps(outcome)).cached
        assert pickle.loads(pickle.dumps(outcome.value)).cached


class TestIdentical:
    @pytest.mark.parametrize(
        "other",
        [
            {"item": "pong"},
            {"temperature": 0.5},
            {"model": "other"},
            {"system": "be brief"},
            {"query": {"version": "2"}},
            {"headers": {"OpenAI-Organization": "org-2"}},
            {"headers": {"openai-project": "proj-2"}},
            {"headers": {"Authorization": "Bearer other-key"}},
        ],
        ids=str,
    )
    def test_what_differs_is_sent(self, server, pool_of, other):
        pool_of().chat("ping")
        pool_of().chat(other.pop("item", "ping"), **other)
        assert len(server.requests) == 2

    @pytest.mark.parametrize(
        "same",
        [{"timeout": 5}, {"retry": 0}, {"priority": 3}, {"headers": {"X-Trace": "1"}}, {"accept": ["stop"]}],
        ids=str,
    )
    def test_what_does_not_reach_the_model_makes_no_difference(self, server, pool_of, same):
        pool_of().chat("ping")
        assert pool_of().chat("ping", **same).cached

    @pytest.mark.parametrize(
        "options",
        [{"api_key": "sk-other-account"}, {"organization": "org-2"}, {"project": "p-2"}, {"query": {"a": "1"}}],
        ids=str,
    )
    def test_no_account_gets_the_answers_of_another(self, server, pool_of, options):
        own = {"api_key": "sk-own-account", "organization": "org-1", "project": "p-1", "query": {"a": "0"}}
        pool_of(**own).chat("ping")
        assert not pool_of(**{**own, **options}).chat("ping").cached
        assert pool_of(**own).chat("ping").cached

    @pytest.mark.parametrize(
        "differ",
        [
            lambda session: session.cookies.set("session", "other"),
            lambda session: session.headers.update({"X-Goog-Api-Key": "other"}),
            lambda session: session.headers.update({"CF-AIG-Authorization": "other"}),
            lambda session: session.headers.update({"X-Tenant-Id": "other"}),
            lambda session: session.params.update({"key": "other"}),
            lambda session: setattr(session, "cert", "other.pem"),
        ],
        ids=["cookie", "key", "gateway", "tenant", "parameter", "certificate"],
    )
    def test_nor_by_what_a_session_signs_in_with(self, pool_of, differ):
        def session():
            made = requests.Session()
            made.cookies.set("session", "own")
            made.headers.update({"X-Goog-Api-Key": "own", "CF-AIG-Authorization": "own", "X-Tenant-Id": "own"})
            made.params = {"key": "own"}
            return made

        pool_of(session=session()).chat("ping")
        assert pool_of(session=session()).chat("ping", headers={"Idempotency-Key": "1"}).cached
        other = session()
        differ(other)
        assert not pool_of(session=other).chat("ping").cached

    def test_no_key_is_in_the_file(self, pool_of, path):
        pool = pool_of(api_key="sk-own-account", organization="org-secret")
        pool.chat("ping")
        pool.close()
        assert b"sk-own-account" not in path.read_bytes()
        assert b"org-secret" not in path.read_bytes()

    def test_nor_is_the_prompt(self, path):
        with FakeServer(Answer("pong")) as server, ChatPool("m", base_url=server.base_url, cache=path) as pool:
            pool.chat("a very private prompt")
        assert b"private" not in path.read_bytes()

    def test_another_server_is_another_endpoint(self, server, pool_of):
        pool_of().chat("ping")
        with FakeServer() as other:
            assert not pool_of(other).chat("ping").cached

    def test_the_content_of_files_counts_and_not_their_names(self, server, pool_of, tmp_path):
        picture = tmp_path / "a.png"
        picture.write_bytes(b"\x89PNG\r\n\x1a\n one")
        ask = lambda path: pool_of().chat(["What is it?", attach(path)])  # noqa: E731
        ask(picture)
        other = tmp_path / "b.png"
        other.write_bytes(picture.read_bytes())
        assert ask(other).cached
        picture.write_bytes(b"\x89PNG\r\n\x1a\n two")
        assert not ask(picture).cached

    def test_the_name_of_an_account_stands_for_key_organization_and_project(self, server, pool_of, path):
        shared = Cache(path, account="team")
        pool_of(cache=shared, api_key="sk-one-key", organization="org-1").chat("ping")
        assert pool_of(cache=shared, api_key="sk-another-key").chat("ping").cached
        assert pool_of(cache=shared, api_key=lambda: "sk-function").chat("ping").cached
        assert not pool_of(cache=Cache(path, account="other"), api_key="sk-one-key").chat("ping").cached
        assert not pool_of(api_key="sk-one-key", organization="org-1").chat("ping").cached

    @pytest.mark.parametrize(
        "signing", [{"api_key": lambda: "sk-function"}, {"auth": lambda request: request}], ids=["key", "auth"]
    )
    def test_what_signs_by_a_function_needs_the_name_of_an_account(self, pool_of, signing):
        with pytest.raises(ConfigurationError, match="account="):
            pool_of(**signing)

    @given(
        requests=st.lists(
            st.fixed_dictionaries(
                {"content": st.text(max_size=20), "temperature": st.sampled_from([0, 1]), "n": st.sampled_from([1, 2])}
            ),
            min_size=1,
            max_size=12,
        )
    )
    def test_what_comes_from_the_cache_is_what_was_answered(self, tmp_path_factory, one_server, requests):
        server = one_server
        path = tmp_path_factory.mktemp("cache") / "a.db"
        items = [
            {
                "messages": [{"role": "user", "content": one["content"]}],
                "temperature": one["temperature"],
                "n": one["n"],
            }
            for one in requests
        ]
        with ChatPool("m", base_url=server.base_url, cache=path) as pool:
            first = [answer.raw for answer in pool.map(items, progress=False, on_error="raise")]
        before = len(server.requests)
        with ChatPool("m", base_url=server.base_url, cache=path) as pool:
            again = pool.map(items, progress=False, on_error="raise")
        assert [answer.raw for answer in again] == first
        assert all(outcome.cached for outcome in again.outcomes)
        assert len(server.requests) == before
        for item, answer in zip(items, again):
            assert answer.text == item["messages"][0]["content"]
            assert len(answer.choices) == item["n"]


class TestNotKept:
    @pytest.mark.parametrize(
        "call",
        [
            lambda pool: list(pool.stream("ping")),
            lambda pool: list(pool.stream_many(["ping"])),
            lambda pool: pool.request("/files", method="GET"),
            lambda pool: pool.files.upload(("a.jsonl", b"{}"), "batch"),
            lambda pool: pool.models(),
            lambda pool: pool.responses("ping", previous_response_id="resp_1"),
            lambda pool: pool.responses("ping", conversation="conv_1"),
            lambda pool: pool.responses("ping", background=True),
            lambda pool: pool.request("/rerank", {"query": "ping"}),
        ],
        ids=[
            "stream",
            "stream_many",
            "list",
            "upload",
            "models",
            "after",
            "conversation",
            "background",
            "unknown path",
        ],
    )
    @pytest.mark.usefixtures("instant_waits")
    def test_what_is_no_question_or_belongs_to_another(self, pool_of, path, call):
        with FakeServer(lambda request: Answer(body={"results": []}) if "rerank" in request.path else None) as server:
            counts = []
            for _ in range(2):
                call(pool_of(server))
                counts.append(len(server.requests))
        assert counts[1] == 2 * counts[0]

    def test_errors(self, pool_of):
        with FakeServer([Error(400), None]) as server:
            pool = pool_of(server)
            with pytest.raises(Exception, match="400"):
                pool.chat("ping")
            assert pool.chat("ping").text == "ping"
        assert len(server.requests) == 2

    def test_refusals_even_where_they_are_taken(self, pool_of):
        refusal = chat_completion("", finish_reason="content_filter")
        with FakeServer(lambda request: Answer(body=refusal)) as server:
            for _ in range(2):
                pool_of(server).chat("ping", accept=["content_filter"])
                pool_of(server).chat("ping")
            with pytest.raises(ContentFilterError):
                pool_of(server).chat("ping", accept=["stop"])
        assert len(server.requests) == 5

    @pytest.mark.parametrize("reason", ["content_filter", "error"])
    def test_several_answers_of_which_one_is_none(self, pool_of, reason):
        body = chat_completion("whole")
        body["choices"].append({**body["choices"][0], "index": 1, "finish_reason": reason})
        with FakeServer(lambda request: Answer(body=body)) as server:
            for _ in range(2):
                assert not pool_of(server).chat("ping", n=2).cached
        assert len(server.requests) == 2

    def test_addresses_of_pictures(self, server, pool_of):
        for form, sent in (("url", 2), ("b64_json", 3)):
            for _ in range(2):
                body = {"model": "dall-e-3", "prompt": "a cat", "response_format": form}
                pool_of().request("/images/generations", body)
            assert len(server.requests) == sent

    def test_answers_that_were_not_accepted(self, pool_of):
        cut = chat_completion("the beg", finish_reason="length")
        with FakeServer(lambda request: Answer(body=cut)) as server:
            for _ in range(2):
                with pytest.raises(LengthError):
                    pool_of(server).chat("ping", accept=["stop"])
            assert len(server.requests) == 2
            assert pool_of(server).chat("ping").finish_reason == "length"  # taken, and so kept
            assert pool_of(server).chat("ping").cached

    def test_answers_that_could_not_be_parsed(self, pool_of):
        with FakeServer(lambda request: Answer("no JSON")) as server:
            for turn in range(1, 3):
                with pytest.raises(ParseError):
                    pool_of(server).chat("ping", parse=City, max_reasks=0)
                assert len(server.requests) == turn


class TestReview:
    def test_an_answer_from_the_cache_is_parsed(self, pool_of):
        with FakeServer(lambda request: PARIS) as server:
            pool_of(server).chat("where?")
            answer = pool_of(server).chat("where?", parse=City)
            assert answer.cached
            assert answer.parsed == City("Paris")
        assert len(server.requests) == 1

    def test_one_that_cannot_be_parsed_now_is_asked_for_anew_and_replaced(self, pool_of):
        with FakeServer([Answer("Paris"), PARIS]) as server:
            pool_of(server).chat("where?")
            answer = pool_of(server).chat("where?", parse=City)
            assert not answer.cached
            assert answer.parsed == City("Paris")
            assert pool_of(server).chat("where?").text == '{"name": "Paris"}'
        assert len(server.requests) == 2

    def test_one_that_came_after_a_reask_is_for_calls_that_parse(self, pool_of):
        with FakeServer([Answer("Paris"), PARIS, Answer("plain")]) as server:
            assert pool_of(server).chat("where?", parse=City).parsed == City("Paris")
            again = pool_of(server).chat("where?", parse=City)
            assert again.cached
            assert again.parsed == City("Paris")
            assert len(server.requests) == 2
            assert pool_of(server).chat("where?").text == "plain"

    def test_the_parser_runs_in_the_context_of_the_call(self, pool_of):
        from contextvars import ContextVar

        name = ContextVar("name")
        name.set("mine")
        pool_of().chat("ping")
        answer = pool_of().chat("ping", parse=lambda text: f"{name.get()} {text}")
        assert answer.parsed == "mine ping"
        assert answer.cached


class TestRuns:
    def test_the_same_rows_again_send_nothing(self, server, pool_of):
        pool_of().map(["a", "b", "c"], progress=False)
        results = pool_of().map(["a", "b", "c"], progress=False)
        assert results.texts == ["a", "b", "c"]
        assert [(outcome.cached, outcome.attempts, outcome.usage) for outcome in results.outcomes] == [
            (True, 0, Usage())
        ] * 3
        assert results.usage == Usage()
        assert len(server.requests) == 3

    def test_equal_rows_are_samples_and_the_same_ones_again(self, pool_of):
        numbers = iter(range(100))
        lock = threading.Lock()

        def answer(request):
            with lock:
                return Answer(str(next(numbers)))

        with FakeServer(answer) as server:
            first = pool_of(server).map(["ping"] * 5, progress=False).texts
            assert len(set(first)) == 5
            assert pool_of(server).map(["ping"] * 5, progress=False).texts == first
            assert len(server.requests) == 5
            more = pool_of(server).map(["ping"] * 7, progress=False)
            assert more.texts[:5] == first
            assert [outcome.cached for outcome in more.outcomes] == [True] * 5 + [False] * 2
            assert pool_of(server).chat("ping").text == first[0]

    def test_with_dedupe_they_share_the_first(self, server, pool_of):
        for _ in range(2):
            results = pool_of().map(["ping"] * 5 + ["pong"], dedupe=True, progress=False)
            assert results.texts == ["ping"] * 5 + ["pong"]
        assert all(outcome.cached for outcome in results.outcomes)
        assert len(server.requests) == 2

    def test_lazy_runs(self, server, pool_of):
        pool_of().map(["a", "b"], progress=False)
        pool = pool_of()
        assert [outcome.cached for outcome in pool.imap(iter(["a", "b", "c"]))] == [True, True, False]
        seen = {outcome.index: outcome.cached for outcome in pool.as_completed(iter(["c", "d"]))}
        assert seen == {0: True, 1: False}

    def test_lazy_runs_keep_nothing_of_their_items(self, pool_of, monkeypatch):
        made = []
        monkeypatch.setattr(RunCache, "keep", lambda cache, call, outcome: made.append(cache))
        pool = pool_of()
        assert len(list(pool.imap(["ping"] * 5))) == len(pool.map(["ping"] * 5, progress=False)) == 5
        assert [len(cache.occurrences) for cache in (made[0], made[-1])] == [0, 4]

    def test_a_retry_keeps_the_number_of_each_sample(self, pool_of):
        numbers = iter(range(100))
        lock = threading.Lock()
        failing = threading.Event()
        failing.set()

        def answer(request):
            with lock:
                number = next(numbers)
            return Error(400) if failing.is_set() and number % 2 else Answer(str(number))

        with FakeServer(answer) as server:
            pool = pool_of(server)
            results = pool.map(["ping"] * 6, progress=False, max_failures=None)
            assert len(results.failures) == 3
            failing.clear()
            pool.retry(results, progress=False)
            assert len(set(results.texts)) == 6
            assert not any(outcome.cached for outcome in results.outcomes)
            assert pool_of(server).map(["ping"] * 6, progress=False).texts == results.texts

    def test_a_retry_of_results_that_were_pickled_mixes_up_no_samples(self, pool_of):
        numbers = iter(range(100))
        with FakeServer(
            lambda request: Error(400) if request.prompt == "bad" else Answer(str(next(numbers)))
        ) as server:
            pool = pool_of(server)
            results = pool.map(["ping", "bad"], progress=False)
            results = pickle.loads(pickle.dumps(results))
            results.outcomes[1].request = ChatRequest(results.outcomes[0].request.body)
            pool.retry(results, progress=False)
            assert results.texts == ["0", "1"]

    def test_a_journal_records_them_with_no_tokens(self, server, pool_of, tmp_path):
        journal = tmp_path / "run.journal"
        pool_of().map(["a", "b"], progress=False)
        results = pool_of().map(["a", "b"], journal=journal, progress=False)
        assert all(outcome.cached for outcome in results.outcomes)
        with ChatPool("m", base_url=server.base_url) as pool:
            again = pool.map(["a", "b"], journal=journal, progress=False)
        assert again.texts == ["a", "b"]
        assert again.usage == Usage()
        assert len(server.requests) == 2

    def test_samples_of_a_run_that_goes_on_stay_samples(self, pool_of, tmp_path):
        numbers = iter(range(100))
        journal = tmp_path / "run.journal"
        with FakeServer(lambda request: Answer(str(next(numbers)))) as server:
            first = pool_of(server, cache=None).map(["ping"] * 2, journal=journal, progress=False).texts
            pool_of(server).map(["ping"] * 2, progress=False)  # other answers, in the cache
            results = pool_of(server).map(["ping"] * 4, journal=journal, progress=False)
            assert results.texts[:2] == first
            assert len(set(results.texts)) == 4
            assert not any(outcome.cached for outcome in results.outcomes)

    def test_several_endpoints_each_have_their_own(self, path):
        with FakeServer(lambda request: Answer(f"one {request.body['model']}")) as one, FakeServer() as two:
            endpoints = [
                Endpoint(one.base_url, api_key="k1", model="mine"),
                Endpoint(two.base_url, api_key="k2", weight=0.001),
            ]
            with ChatPool("m", endpoints=endpoints, cache=path) as pool:
                assert pool.chat("ping").text == "one mine"
            with ChatPool("m", endpoints=[*reversed(endpoints)], cache=path) as pool:
                assert pool.chat("ping").text == "one mine"
            with ChatPool("mine", base_url=one.base_url, api_key="k1", cache=path) as pool:
                assert pool.chat("ping").cached
            with ChatPool("m", base_url=two.base_url, api_key="k2", cache=path) as pool:
                assert not pool.chat("ping").cached


class TestEmbeddings:
    def test_each_text_is_known_by_itself_however_they_are_packed(self, server, pool_of):
        texts = [f"text {number}" for number in range(20)]
        first = pool_of().embed(texts, progress=False, max_pack=7)
        sent = len(server.requests)
        again = pool_of().embed(list(reversed(texts)), progress=False)
        assert list(again) == list(reversed(first))
        assert all(outcome.cached and outcome.usage == Usage() for outcome in again.outcomes)
        assert pool_of().embed("text 3") == first[3]
        assert len(server.requests) == sent

    def test_only_those_that_are_missing_are_sent(self, server, pool_of):
        pool_of().embed([f"text {number}" for number in range(0, 20, 2)], progress=False)
        results = pool_of().embed([f"text {number}" for number in range(20)], progress=False)
        assert [outcome.index for outcome in results.outcomes if not outcome.cached] == list(range(1, 20, 2))
        assert server.requests[-1].body["input"] == [f"text {number}" for number in range(1, 20, 2)]
        assert [vector is not None for vector in results] == [True] * 20

    def test_a_single_one_is_found_by_a_run(self, server, pool_of):
        vector = pool_of().embed("text")
        assert pool_of().embed(["text", "other"], progress=False)[0] == vector
        assert server.requests[-1].body["input"] == ["other"]

    def test_another_size_is_another_request(self, server, pool_of):
        pool_of().embed(["text"], progress=False, dimensions=4)
        assert not pool_of().embed(["text"], progress=False, dimensions=5).outcomes[0].cached

    @pytest.mark.slow
    def test_many_more_than_go_into_one_request(self, server, pool_of):
        texts = [str(number) for number in range(2500)]
        first = pool_of().embed(texts, progress=False, dimensions=2)
        sent = len(server.requests)
        assert list(pool_of().embed(texts, progress=False, dimensions=2)) == list(first)
        assert len(server.requests) == sent

    def test_base64_as_it_came(self, server, pool_of):
        first = pool_of().embed(["text"], progress=False, encoding_format="base64")
        assert list(pool_of().embed(["text"], progress=False, encoding_format="base64")) == list(first)
        assert len(server.requests) == 1


class TestFaults:
    def test_a_damaged_file_costs_its_answers_and_no_call(self, server, pool_of, path, caplog):
        pool = pool_of()
        pool.map([str(number) for number in range(30)], progress=False)
        pool.close()
        path.write_bytes(b"SQLite format 3\0" + os.urandom(5000))
        results = pool_of().map([str(number) for number in range(30)], progress=False)
        assert results.failures == []
        assert len(server.requests) == 60
        assert sum(record.levelno == logging.WARNING for record in caplog.records) == 1
        assert pool_of().chat("3").cached

    def test_an_answer_of_another_version_is_none(self, server, pool_of, path):
        import zlib

        pool = pool_of()
        pool.chat("ping")
        pool.close()
        with sqlite3.connect(path) as connection:
            ((key, facts),) = connection.execute("SELECT key, facts FROM answers").fetchall()
            for answer in (b"[]", b"no JSON", json.dumps({"choices": []}).encode()):
                checksum = zlib.crc32(answer, zlib.crc32(facts, zlib.crc32(key)))
                connection.execute("UPDATE answers SET answer = ?, checksum = ?", (answer, checksum))
                connection.commit()
                with ChatPool("m", base_url=server.base_url, cache=Cache(path)) as pool:
                    assert pool.chat("ping").text == "ping"
        connection.close()
        assert len(server.requests) == 4

    def test_another_programs_database_is_refused_when_the_pool_is_made(self, pool_of, path):
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE people (name)")
        connection.close()
        with pytest.raises(ConfigurationError, match="another program"):
            pool_of()

    def test_a_sound_whose_file_cannot_be_written_is_sent_as_ever(self, server, pool_of, tmp_path):
        pool_of().speak("hello", response_format="mp3")
        with pytest.raises(ConfigurationError, match="no folder"):
            pool_of().speak("hello", to=tmp_path / "nowhere" / "a.mp3")

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
    def test_in_a_forked_child_the_pool_uses_it_too(self, server, pool_of):
        pool = pool_of()
        pool.chat("ping")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                if pool.chat("ping").cached and not pool.chat("pong").cached:
                    code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert pool.chat("pong").cached


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            ({"max_age": 0}, ConfigurationError, "max_age must be more than 0"),
            ({"max_age": "1"}, TypeError, "max_age must be a number of seconds"),
            ({"max_age": float("nan")}, ConfigurationError, "max_age"),
            ({"max_bytes": 10}, ConfigurationError, "max_bytes must be at least 100,000"),
            ({"max_bytes": 1e6}, TypeError, "max_bytes must be a whole number"),
            ({"account": ""}, ConfigurationError, "account must not be empty"),
            ({"account": 3}, TypeError, "account must be a str"),
            ({"offline": 1}, TypeError, "offline must be True or False"),
        ],
        ids=str,
    )
    def test_what_cannot_work_is_named(self, options, error, words):
        with pytest.raises(error, match=words):
            Cache("a.db", **options)

    @pytest.mark.parametrize(
        ("path", "error"), [("", ConfigurationError), ("a\0b", ConfigurationError), (3, TypeError)]
    )
    def test_so_is_a_path(self, path, error):
        with pytest.raises(error, match="path"):
            Cache(path)

    def test_the_folder_has_to_be_there(self, pool_of, tmp_path):
        with pytest.raises(ConfigurationError, match="there is no folder"):
            pool_of(cache=tmp_path / "nowhere" / "a.db")
        with pytest.raises(ConfigurationError, match="is a folder"):
            pool_of(cache=tmp_path)
        with pytest.raises(TypeError, match="cache must be the path of a file"):
            pool_of(cache=True)

    def test_the_account_is_not_shown(self):
        assert "team" not in repr(Cache("a.db", account="team"))

    def test_max_age_counts_by_the_clock_of_the_wall(self, server, path):
        with ChatPool("m", base_url=server.base_url, cache=path) as pool:
            pool.chat("ping")
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE answers SET made = made - 100")
        connection.close()
        with ChatPool("m", base_url=server.base_url, cache=Cache(path, max_age=200)) as pool:
            assert pool.chat("ping").cached
        with ChatPool("m", base_url=server.base_url, cache=Cache(path, max_age=50)) as pool:
            assert not pool.chat("ping").cached

    def test_azure_and_one_shot_map_take_it(self, server, path):
        import chatpool

        for turn in range(2):
            results = chatpool.map(["a"], model="m", base_url=server.base_url, cache=path, progress=False)
            assert results.outcomes[0].cached == bool(turn)
            with ChatPool.azure(server.origin, api_key="k", cache=path) as pool:
                assert pool.chat("ping", model="m").cached == bool(turn)
