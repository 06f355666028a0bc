"""``chatpool.deadline``: one end of time for all calls that a piece of code makes."""

from __future__ import annotations

import contextvars
import threading
from typing import Any, Iterator, List

import pytest

import chatpool
from chatpool import ChatPool, DeadlineExceededError, Timeout
from chatpool.clock import install_clock
from chatpool.testing import Delay, FakeClock, FakeServer, InstantClock, RateLimited, Stall, Stream

SHORT_SECONDS = 0.05  # of a deadline whose end the test waits for
ENOUGH_SECONDS = 2  # in which a loopback server answers, however busy the machine is
LONG_SECONDS = 600  # of limits that must not be the ones that end a call


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
def pool(server: FakeServer) -> Iterator[ChatPool]:
    pool = ChatPool("m", api_key="k", base_url=server.base_url, timeout=Timeout(total=LONG_SECONDS))
    yield pool
    pool.abort()


def test_a_call_ends_with_the_block_s_time(server, pool):
    server.set_script(Stall())
    with chatpool.deadline(SHORT_SECONDS), pytest.raises(DeadlineExceededError, match=r"\(chatpool\.deadline\)"):
        pool.chat("ping")


def test_after_the_block_calls_have_their_own_time_again(server, pool):
    with pytest.raises(ZeroDivisionError), chatpool.deadline(SHORT_SECONDS):
        raise ZeroDivisionError
    server.enqueue(Delay(4 * SHORT_SECONDS))
    assert pool.chat("ping").text == "ping"


def test_the_time_of_a_call_is_the_smaller_one(server, pool):
    server.set_script(Stall())
    with chatpool.deadline(LONG_SECONDS), pytest.raises(DeadlineExceededError, match=r"\(timeout\.total\)"):
        pool.chat("ping", timeout=Timeout(total=SHORT_SECONDS))


def test_calls_one_after_the_other_share_the_time():
    clock = FakeClock()
    previous = install_clock(clock)
    try:
        with FakeServer() as server, ChatPool("m", api_key="k", base_url=server.base_url) as pool:
            with chatpool.deadline(10):
                assert pool.chat("one").text == "one"
                clock.advance(9)
                assert pool.chat("two").text == "two"
                clock.advance(1)
                with pytest.raises(DeadlineExceededError, match="before it could be sent"):
                    pool.chat("three")
                assert [request.prompt for request in server.requests] == ["one", "two"]
            assert pool.chat("four").text == "four"
    finally:
        install_clock(previous)


@pytest.mark.parametrize(("outer", "inner"), [(5, 60), (60, 5)])
def test_of_two_blocks_the_earlier_end_counts(outer, inner):
    clock = FakeClock()
    previous = install_clock(clock)
    try:
        with FakeServer() as server, ChatPool("m", api_key="k", base_url=server.base_url) as pool:
            with chatpool.deadline(outer), chatpool.deadline(inner):
                clock.advance(6)
                with pytest.raises(DeadlineExceededError):
                    pool.chat("ping")
            assert not server.requests
    finally:
        install_clock(previous)


def test_no_retry_is_waited_for_that_would_come_too_late(server):
    previous = install_clock(InstantClock())
    try:
        with ChatPool("m", api_key="k", base_url=server.base_url) as pool:
            server.set_script(RateLimited(30))
            with chatpool.deadline(10), pytest.raises(DeadlineExceededError, match=r"chatpool\.deadline"):
                pool.chat("ping")
            assert len(server.requests) == 1
    finally:
        install_clock(previous)


def test_a_run_ends_as_after_its_run_timeout(server, pool):
    server.set_script({"stalls": Stall()})
    with chatpool.deadline(ENOUGH_SECONDS):
        results = pool.map(["answered", "stalls"], progress=False)
    assert results.texts == ["answered", None]
    assert isinstance(results.errors[1], DeadlineExceededError)
    assert "(chatpool.deadline) ran out" in str(results.errors[1])  # the run's time or the call's: it is one moment


@pytest.mark.parametrize("iterate", ["imap", "as_completed"])
def test_a_lazy_run_keeps_the_time_of_the_block_it_was_made_in(server, pool, iterate):
    server.set_script(Stall())
    with chatpool.deadline(SHORT_SECONDS):
        outcomes = getattr(pool, iterate)(["a"])
    assert [type(outcome.error) for outcome in outcomes] == [DeadlineExceededError]


def test_run_timeout_counts_where_it_ends_earlier(server, pool):
    server.set_script(Stall())
    with chatpool.deadline(LONG_SECONDS):
        results = pool.map(["a"], run_timeout=SHORT_SECONDS, progress=False)
    assert "run_timeout" in str(results.errors[0])


def test_submitted_calls_and_requests_of_other_kinds_keep_to_it(server, pool):
    server.set_script(Stall())
    with chatpool.deadline(SHORT_SECONDS):
        future = pool.submit("ping")
        with pytest.raises(DeadlineExceededError):
            pool.request("/embeddings", {"input": "a"})
        with pytest.raises(DeadlineExceededError):
            pool.embed("a")
        with pytest.raises(DeadlineExceededError):
            pool.responses("a")
    assert isinstance(future.exception(), DeadlineExceededError)


def test_a_call_that_waits_for_a_worker_ends_in_time(server):
    server.set_script(Stall())
    with ChatPool("m", api_key="k", base_url=server.base_url, max_workers=1) as pool:
        blocking = pool.submit("blocks the only worker")
        server.wait_for(1)
        with chatpool.deadline(SHORT_SECONDS), pytest.raises(DeadlineExceededError, match=r"\(chatpool\.deadline\)"):
            pool.chat("ping")
        blocking.cancel()


@pytest.mark.parametrize("seconds", [ENOUGH_SECONDS, 1e-9])
def test_rows_of_a_batch_run_stay_pending(server, tmp_path, seconds):
    rows = tmp_path / "in.txt"
    rows.write_text("answered\nstalls\n")
    server.set_script({"stalls": Stall()})
    with chatpool.deadline(seconds):
        result = chatpool.batch.run(rows, tmp_path / "out.jsonl", model="m", base_url=server.base_url, progress=False)
    assert "(chatpool.deadline)" in str(result.fatal)
    assert (result.failed, result.pending) == (0, 2 - result.succeeded)
    assert result.succeeded == 1 or seconds < 1
    server.set_script(None)
    again = chatpool.batch.run(rows, tmp_path / "out.jsonl", model="m", base_url=server.base_url, progress=False)
    assert again.succeeded == 2


# -- streams -------------------------------------------------------------------------------------------------------


def test_a_stream_that_does_not_begin_in_time_ends(server, pool):
    server.set_script(Stall())
    with chatpool.deadline(SHORT_SECONDS), pool.stream("ping") as stream, pytest.raises(DeadlineExceededError):
        next(stream)


def test_a_stream_that_has_begun_in_time_goes_on(server, pool):
    pieces = ["word "] * 300
    server.set_script(Stream(pieces, every=1.5 * ENOUGH_SECONDS / len(pieces)))
    with chatpool.deadline(ENOUGH_SECONDS), pool.stream("ping") as stream:
        assert "".join(chunk.text for chunk in stream) == "word " * 300
        with pytest.raises(DeadlineExceededError):  # the time of the block is over
            pool.chat("pong")


@pytest.mark.slow
def test_many_streams_that_have_begun_in_time_go_on_and_others_do_not_begin(server, pool):
    pieces = ["word "] * 300
    server.set_script({"begins": Stream(pieces, every=1.5 * ENOUGH_SECONDS / len(pieces)), "stalls": Stall()})
    outcomes = {}
    with chatpool.deadline(ENOUGH_SECONDS):
        for index, part in pool.stream_many(["begins", "stalls"]):
            outcomes[index] = part
    assert outcomes[0].value.text == "word " * 300
    assert isinstance(outcomes[1].error, DeadlineExceededError)
    assert "chatpool.deadline" in str(outcomes[1].error)


def test_a_deadline_is_seen_where_the_context_is_copied(server, pool):
    server.set_script(Stall())
    failures: List[Any] = []

    def call() -> None:
        try:
            pool.chat("ping")
        except DeadlineExceededError as error:
            failures.append(error)

    with chatpool.deadline(SHORT_SECONDS):
        thread = threading.Thread(target=contextvars.copy_context().run, args=(call,))
        thread.start()
        thread.join()
    assert len(failures) == 1


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_no_time_is_refused(seconds):
    with pytest.raises(chatpool.ConfigurationError, match="seconds must be more than 0"), chatpool.deadline(seconds):
        pass


@pytest.mark.parametrize("seconds", ["3", None, True])
def test_what_is_no_number_is_refused(seconds):
    with pytest.raises(TypeError, match="seconds must be a number of seconds"), chatpool.deadline(seconds):
        pass
