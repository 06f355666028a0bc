"""A pool that answers from memory is the real one, in the caller's thread alone."""

from __future__ import annotations

import pickle
import socket
import sys
import threading
from typing import Any, List

import pytest

import chatpool
from chatpool import Budget, ChatPool, Limits, ParseError, PoolClosedError, Timeout
from chatpool.testing import Delay, Error, FakeServer, Hangup, MemoryPool, RateLimited, Stall, Stream, chat_completion
from chatpool.testing.memory import forbid_sending


@pytest.fixture(autouse=True)
def no_thread_and_no_socket(monkeypatch):
    """Nothing is started, and nothing left behind."""
    opened: List[Any] = []
    make = socket.socket.__init__
    monkeypatch.setattr(socket.socket, "__init__", lambda self, *a, **k: [opened.append(a), make(self, *a, **k)][-1])
    started: List[Any] = []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda self: [started.append(self.name), start(self)][-1])
    yield lambda: [opened.clear(), started.clear()]
    assert not opened
    assert not started


def texts(answers: Any) -> List[str]:
    return [answer.text for answer in answers]


class TestEveryMethod:
    def test_chat_and_its_neighbours(self):
        pool = MemoryPool("m", replies="Paris")
        future = pool.submit("q")
        assert future.done()
        assert future.result().text == pool.chat("q").text == pool.responses("q").text == "Paris"
        assert pool.request("/moderations", {"input": "q"})["id"].startswith("modr")
        assert len(pool.embed("q")) == 8
        assert len(pool.embed(["a", "b"])) == 2
        assert [body.get("model") for body in pool.outbox] == ["m"] * 3 + [None] + ["m"] * 2

    def test_runs(self):
        pool = MemoryPool(replies={"a": "1", "b": "2"})
        assert texts(pool.map(["a", "b", "a"])) == ["1", "2", "1"]
        assert [outcome.value.text for outcome in pool.imap(["a", "b"])] == ["1", "2"]
        assert {outcome.value.text for outcome in pool.as_completed(iter(["a", "b"]))} == {"1", "2"}
        assert texts(pool.map(["a", "a"], dedupe=True)) == ["1", "1"]

    def test_an_endless_input_is_read_one_by_one(self):
        read = []

        def endless():
            while True:
                read.append("q")
                yield "q"

        pool = MemoryPool(replies="x")
        with pool.imap(endless()) as outcomes:
            assert next(outcomes).value.text == "x"
        assert len(read) == len(pool.outbox) == 1
        with pool.imap(["a"] * 100) as outcomes:
            next(outcomes)
        assert len(pool.outbox) == 2

    def test_a_stream(self):
        pool = MemoryPool(replies="one two three")
        with pool.stream("q") as stream:
            assert [chunk.text for chunk in stream if chunk.text] == ["one", " two", " three"]
            assert stream.completion.text == "one two three"
        assert next(chunk.text for chunk in pool.stream("q").events(heartbeat=60) if chunk.text) == "one"
        with pool.stream("q") as stream:
            next(stream)
            assert pool.chat("while it is open").text == "one two three"

    def test_streams_side_by_side_longer_than_their_queue(self):
        pool = MemoryPool(replies="word " * 3000, max_workers=1)
        arrivals = list(pool.stream_many(["a", "b"]))
        assert sum(isinstance(arrival, chatpool.Outcome) for _, arrival in arrivals) == 2
        assert len(arrivals) > 6000

    def test_calls_from_parse_and_from_listeners(self):
        heard = []
        pool = MemoryPool(replies="5", listeners=[lambda event: heard.append((event.kind, threading.get_ident()))])
        answers = pool.map(["a", "b"], parse=lambda text: int(text) + int(pool.chat("inner").text))
        assert [answer.parsed for answer in answers] == [10, 10]
        assert {thread for _, thread in heard} == {threading.get_ident()}
        assert {"queued", "sent", "succeeded"} <= {kind for kind, _ in heard}

    def test_a_stream_within_parse(self):
        pool = MemoryPool(replies="a b")
        answer = pool.chat("q", parse=lambda text: [chunk.text for chunk in pool.stream(text) if chunk.text])
        assert answer.parsed == ["a", " b"]

    def test_many_threads_at_once(self, no_thread_and_no_socket):
        pool = MemoryPool(replies=lambda body: body["messages"][0]["content"] * 2)
        found = []
        threads = [threading.Thread(target=lambda n=n: found.append((n, pool.chat(str(n)).text))) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == [(n, str(n) * 2) for n in range(8)]
        assert pool.stats().succeeded == 8
        pool.close()
        no_thread_and_no_socket()  # these were the test's own


class TestReplies:
    def test_the_default_is_an_echo(self):
        assert MemoryPool().chat("ping").text == "ping"

    def test_an_unknown_prompt_is_named_where_the_call_is_made(self):
        pool = MemoryPool(replies={"a": "1"})
        with pytest.raises(AssertionError, match="prompt 'nope', only to"):
            pool.chat("nope")
        with pytest.raises(AssertionError, match="nope") as raised:
            pool.map(["a", "nope", "a"])
        assert texts(raised.value.results[:1]) == ["1"]
        with pytest.raises(AssertionError, match="nope"):
            list(pool.stream("nope"))
        assert pool.chat("a").text == "1"

    def test_a_list_is_used_up(self):
        pool = MemoryPool(replies=["1", "2"])
        assert texts([pool.chat("a"), pool.chat("a")]) == ["1", "2"]
        with pytest.raises(AssertionError, match="no reply is left for request 3, whose prompt is 'a'"):
            pool.chat("a")
        pool.replies = ["again"]
        assert pool.chat("a").text == "again"

    def test_what_a_function_raises_is_the_callers(self, caplog):
        def reply(body):
            raise KeyError("not handled as a failed call")

        pool = MemoryPool(replies=reply)
        with pytest.raises(KeyError, match="not handled"):
            pool.chat("q")
        assert not caplog.records

    def test_whole_bodies_and_tools(self):
        pool = MemoryPool(replies=lambda body: chat_completion("cut", finish_reason="length"))
        assert pool.chat("q").finish_reason == "length"
        with pool.stream("q") as stream:
            list(stream)
            assert stream.completion.finish_reason == "length"

    @pytest.mark.parametrize("wrong", [3, Error, b"bytes"[0], object()])
    def test_no_replies_at_all(self, wrong):
        with pytest.raises(TypeError, match="replies must be"):
            MemoryPool(replies=wrong)

    def test_a_reply_that_is_none(self):
        with pytest.raises(TypeError, match="a reply must be a text.*got 3"):
            MemoryPool(replies=lambda body: 3).chat("q")

    def test_a_stall_has_no_end(self):
        with pytest.raises(chatpool.ConfigurationError, match="use a FakeServer"):
            MemoryPool(replies=Stall()).chat("q")
        assert MemoryPool(replies=Delay(3600)).chat("ping").text == "ping"


class TestFailures:
    def test_waits_are_skipped(self, monkeypatch):
        monkeypatch.setattr(threading.Condition, "wait", lambda *a: pytest.fail("waits"))
        pool = MemoryPool(replies=[Error(429), RateLimited(60), Hangup(), "ok"], retry=5, timeout=Timeout(total=1e6))
        assert pool.chat("q").text == "ok"
        assert len(pool.outbox) == 4

    @pytest.mark.parametrize(("status", "kind"), [(401, "AuthenticationError"), (503, "InternalServerError")])
    def test_failed_calls_are_outcomes(self, status, kind):
        pool = MemoryPool(replies=Error(status))
        with pytest.raises(getattr(chatpool, kind)):
            pool.chat("q")
        assert type(pool.map(["q"]).failures[0].error).__name__ == kind

    def test_a_stream_that_breaks_off(self):
        stream = MemoryPool(replies=Stream(["Once", " upon"], end="cut")).stream("q")
        with pytest.raises(chatpool.TruncatedStreamError):
            list(stream)
        assert stream.text == "Once upon"

    def test_a_parse_that_fails_is_asked_again(self):
        pool = MemoryPool(replies=["no number", "7"])
        assert pool.chat("q", parse=int).parsed == 7
        with pytest.raises(ParseError):
            MemoryPool(replies="never").chat("q", parse=int)

    def test_ctrl_c_in_a_call(self):
        def reply(body):
            raise KeyboardInterrupt

        pool = MemoryPool(replies=reply)
        with pytest.raises(KeyboardInterrupt):
            pool.map(["q"])
        pool.close()

    def test_budgets_and_journals(self, tmp_path):
        pool = MemoryPool("m", replies="a b c", budget=Budget(tokens=10))
        results = pool.map(["q"] * 5, max_tokens=3)
        assert len(pool.outbox) < 5
        assert type(results.fatal).__name__ == "BudgetExceededError"

    def test_a_journal_is_gone_on_with(self, tmp_path, no_thread_and_no_socket):
        pool, journal = MemoryPool("m"), tmp_path / "j"
        pool.map(["a", "b"], journal=journal)
        assert texts(pool.map(["a", "b", "c"], journal=journal)) == ["a", "b", "c"]
        assert len(pool.outbox) == 3
        no_thread_and_no_socket()  # a journal's own thread brings it to the disk


class TestSettings:
    def test_those_of_a_real_pool_may_stay(self, monkeypatch):
        monkeypatch.setenv("OPENAI_BASE_URL", "https://api.openai.com/v1")
        pool = MemoryPool(
            "m",
            api_key=lambda: pytest.fail("asks for a key"),
            limits=Limits(requests_per_minute=1, scope="redis://127.0.0.1:9/our"),
            verify="/no/such/file",
            worker_end=lambda: pytest.fail("there is no worker"),
            endpoints=["refused by a real one"],
            system="be brief",
        )
        assert pool.map(["a"] * 3).errors == [None] * 3
        assert pool.outbox[0]["messages"][0] == {"role": "system", "content": "be brief"}

    def test_an_unknown_one_is_refused(self):
        with pytest.raises(TypeError, match="modell"):
            MemoryPool(modell="m")

    def test_views_share_it(self):
        pool = MemoryPool("m", replies="x")
        pool.with_options(model="other").chat("q")
        assert pool.outbox[0]["model"] == "other"

    def test_it_stays_in_its_process(self):
        with pytest.raises(TypeError, match="MemoryPool cannot be pickled"):
            pickle.dumps(MemoryPool())

    def test_closed_it_takes_no_more_calls(self):
        pool = MemoryPool(replies=lambda body: [pool.close(), "last"][1])
        assert pool.chat("q").text == "last"
        with pytest.raises(PoolClosedError):
            pool.chat("q")

    @pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
    def test_a_forked_child_goes_on(self):
        import os

        pool = MemoryPool(replies="x")
        pool.chat("q")
        child = os.fork()
        if not child:
            os._exit(0 if pool.chat("q").text == "x" else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_other_pools_send_nothing_where_that_is_forbidden(no_thread_and_no_socket):
    memory = MemoryPool(replies="x")
    with FakeServer() as server, ChatPool("m", base_url=server.base_url, api_key="k") as pool:
        with forbid_sending("test_site") as refused:
            with pytest.raises(AssertionError, match="test_site makes a call to http://127"):
                pool.chat("q")
            with pytest.raises(AssertionError, match="test_site"):
                pool.map(["q"])
            with pytest.raises(AssertionError, match="test_site"):
                next(pool.stream("q"))
            assert memory.chat("q").text == "x"
        assert len(refused) == 3
        assert not server.requests
        assert pool.chat("q").text == "q"
    no_thread_and_no_socket()
