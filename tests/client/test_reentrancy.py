"""What finalizers and signal handlers may do that interrupt the pool's own work."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import sys
import threading
from concurrent.futures import Future, wait

import pytest

from chatpool import CallCancelledError, ChatPool, PoolClosedError, RetryPolicy, Timeout
from chatpool._client.run import Run
from chatpool._engine.call_registry import CallRegistry
from chatpool._engine.completion import CallFuture
from chatpool._engine.scheduler import Scheduler
from chatpool._engine.upstream import CallQueue
from chatpool._observe import Statistics
from chatpool.testing import FakeServer, RateLimited, Stall, Stream

LONG = 30

MOMENTS = {
    "queueing": (Scheduler, "submit"),
    "looking for calls": (CallQueue, "has_calls"),
    "sending": (CallRegistry, "start"),
    "parking": (CallRegistry, "park"),
    "ending": (CallRegistry, "end"),
    "delivering to a future": (CallFuture, "deliver"),
    "delivering to a run": (Run, "_put"),
    "taking": (Run, "_take_ready"),
    "counting": (Statistics, "__call__"),
    "cancelling": (Scheduler, "cancel"),
}


def at_each_moment(others):
    """Each of these at each moment, two of three of them among the slow tests."""
    pairs = enumerate(itertools.product(MOMENTS, others))
    return [pytest.param(*pair, marks=pytest.mark.slow if number % 3 else ()) for number, pair in pairs]


@pytest.fixture(scope="module", autouse=True)
def nothing_else_to_collect():
    """What is there already is not looked through at each collection of these tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def server():
    asked = itertools.count()

    def answer(request):
        prompt = request.body["messages"][-1]["content"] if "messages" in request.body else ""
        if prompt == "again" and next(asked) % 2 == 0:
            return RateLimited(0.01)
        if prompt == "never answered":
            return Stall()
        return Stream(["a"] * 5) if request.body.get("stream") else None

    with FakeServer() as one:
        one.set_script(answer)
        yield one


@pytest.fixture
def pool(server):
    pool = ChatPool("m", base_url=server.base_url, max_workers=4, timeout=Timeout(total=LONG))
    yield pool
    pool.abort()


def _leave_stream(pool):
    with pool.stream("s") as stream:
        next(stream)
        yield


def _close_stream(pool):
    stream = pool.stream("s")
    next(stream)
    try:
        yield
    finally:
        stream.close()


def _close_run(pool):
    run = pool.imap(str(number) for number in range(10**9))
    next(run)
    try:
        yield
    finally:
        run.close()


def _leave_run(pool):
    with pool.stream_many(["s", "s", "s"]) as run:
        next(run)
        yield


def _leave_pool(pool):
    with pool:
        yield


def _leave_pool_by_error(pool):
    with pool:
        yield
        raise ValueError("as a with block ends that fails")


def _cancel(pool):
    future = pool.submit("s")
    try:
        yield
    finally:
        future.cancel()


def _finally(action):
    def generator(pool):
        try:
            yield
        finally:
            action(pool)

    return generator


ENDINGS = {
    "ChatStream.close": _close_stream,
    "with stream": _leave_stream,
    "imap().close": _close_run,
    "with stream_many": _leave_run,
    "Future.cancel": _cancel,
    "close": _finally(lambda pool: pool.close()),
    "abort": _finally(lambda pool: pool.abort()),
    "shutdown": _finally(lambda pool: pool.shutdown()),
    "shutdown, nothing waited for": _finally(lambda pool: pool.shutdown(wait=False, cancel_futures=True)),
    "with pool": _leave_pool,
    "stats": _finally(lambda pool: pool.stats()),
    "repr": _finally(repr),
    "with_options": _finally(lambda pool: pool.with_options(model="n").abort()),
}


END_THE_POOL = {"close", "abort", "shutdown", "shutdown, nothing waited for", "with pool", "with_options"}

CALLS = {
    "chat": lambda pool: pool.chat("x"),
    "request": lambda pool: pool.request("/models", method="GET"),
    "responses": lambda pool: pool.responses("x"),
    "embed": lambda pool: pool.embed("x"),
    "embed many": lambda pool: pool.embed(["x", "y"]),
    "submit": lambda pool: pool.submit("x"),
    "map": lambda pool: pool.map(["x"]),
    "imap": lambda pool: next(pool.imap(["x"])),
    "as_completed": lambda pool: next(pool.as_completed(["x"])),
    "stream": lambda pool: next(pool.stream("x")),
    "stream_many": lambda pool: next(pool.stream_many(["x"])),
    "Future.result": lambda pool: CallFuture().result(LONG),
    "Future.exception": lambda pool: CallFuture().exception(LONG),
}


def interrupt_once(monkeypatch, moment, interruption):
    """Have the next call of the method at ``moment`` interrupted in its middle, as far as a thread can tell."""
    owner, name = MOMENTS[moment]
    plain = getattr(owner, name)
    due = [interruption]

    def interrupted(self, *args, **keywords):
        if due:
            due.pop()()
        return plain(self, *args, **keywords)

    # The frame that is interrupted is one of the package's.
    interrupted = type(interrupted)(
        interrupted.__code__, {**globals(), "__name__": owner.__module__}, name, None, interrupted.__closure__
    )
    monkeypatch.setattr(owner, name, interrupted)
    return due


def use(pool):
    """Do something at which each of the moments comes."""
    pool.map(["again", "a", "b"])
    pool.submit("never answered").cancel()  # of an answered call nothing is cancelled
    pool.chat("ping")


def goes_on(pool):
    """Whether a thread of its own can use the pool, or hears that it is closed."""
    ended = Future()

    def work():
        try:
            use(pool)
            use(pool)
        except PoolClosedError:
            ended.set_result("closed")
        except BaseException as error:
            ended.set_exception(error)
        else:
            ended.set_result("open")

    threading.Thread(target=work, daemon=True).start()
    return ended.result(LONG)


@pytest.mark.parametrize(("moment", "ending"), at_each_moment(ENDINGS))
def test_a_generator_that_is_collected_in_the_middle_of_the_pool_ends_what_it_held(monkeypatch, pool, moment, ending):
    held = ENDINGS[ending](pool)
    next(held)
    gc.disable()
    try:
        cycle = [held]
        cycle.append(cycle)
        del held, cycle
        due = interrupt_once(monkeypatch, moment, gc.collect)
        after = goes_on(pool)
        assert after == "open" or ending in END_THE_POOL
        assert not due
    finally:
        gc.enable()


@pytest.mark.parametrize(("moment", "call"), at_each_moment(CALLS))
def test_no_call_is_made_in_the_middle_of_the_pool(monkeypatch, pool, moment, call):
    heard = []

    def finalizer():
        with pytest.raises(RuntimeError, match="make the call afterwards"):
            CALLS[call](pool)
        heard.append(call)

    interrupt_once(monkeypatch, moment, finalizer)
    assert goes_on(pool) == "open"
    assert heard


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
class TestSignalHandlers:
    @pytest.fixture
    def on_signal(self):
        """A function that installs a handler for SIGUSR1."""
        before = signal.getsignal(signal.SIGUSR1)
        yield lambda handler: signal.signal(signal.SIGUSR1, lambda *_: handler())
        signal.signal(signal.SIGUSR1, before)

    @pytest.fixture
    def stuck(self, server, pool):
        """A pool with calls in flight that no answer comes to before they are given up, and how to send the signal."""
        released = threading.Event()
        server.set_script(lambda request: released.wait(LONG) and None)

        def send():
            server.wait_for(2)
            os.kill(os.getpid(), signal.SIGUSR1)

        yield lambda: threading.Thread(target=send, daemon=True).start()
        released.set()

    @pytest.mark.parametrize("how", ["abort", "shutdown, then abort", "with"])
    def test_a_run_ends_that_a_handler_aborts(self, pool, on_signal, stuck, how):
        def handler():
            if how == "with":
                pool.__exit__(SystemExit, SystemExit(), None)
                return
            if how != "abort":
                pool.shutdown(wait=False, cancel_futures=True)
            pool.abort()

        on_signal(handler)
        stuck()
        errors = [type(error) for error in pool.map(["a"] * 20, on_error="return")]
        assert len(errors) == 20
        assert set(errors) <= {PoolClosedError, CallCancelledError}
        assert PoolClosedError in errors
        with pytest.raises(PoolClosedError):
            pool.chat("a")

    def test_a_call_ends_whose_pool_a_handler_aborts(self, pool, on_signal, stuck):
        on_signal(pool.abort)
        pool.submit("another")
        stuck()
        with pytest.raises(PoolClosedError):
            pool.chat("a")

    def test_a_future_that_is_waited_for_ends_by_a_handler(self, pool, on_signal, stuck):
        futures = [pool.submit("a"), pool.submit("b")]
        on_signal(pool.abort)
        stuck()
        with pytest.raises(PoolClosedError):
            futures[0].result()
        assert wait(futures, LONG).not_done == set()

    def test_a_stream_ends_that_a_handler_closes(self, server, pool, on_signal, stuck):
        stream = pool.stream("a")
        pool.submit("another")
        on_signal(stream.close)
        stuck()
        assert list(stream) == []

    def test_a_run_ends_whose_iterator_a_handler_closes(self, pool, on_signal, stuck):
        run = pool.imap(str(number) for number in range(10**9))
        on_signal(run.close)
        stuck()
        assert len(list(run)) <= 1_000

    def test_it_sees_the_counters(self, pool, on_signal, stuck):
        seen = []

        def handler():
            seen.append(pool.stats())
            seen.append(repr(pool))
            pool.abort()

        on_signal(handler)
        stuck()
        pool.map(["a"] * 9)
        assert seen[0].in_flight >= 2
        assert seen[0].in_flight + seen[0].queued == 9
        assert list(seen[0].lines) == list(pool.stats().lines) != []
        assert "in_flight=" in seen[1]

    def test_it_cannot_make_a_call(self, pool, on_signal, stuck):
        heard = []

        def handler():
            with pytest.raises(RuntimeError, match="signal handler"):
                pool.chat("now")
            heard.append(True)
            pool.abort()

        on_signal(handler)
        stuck()
        pool.map(["a"] * 9)
        assert heard


class TestCallbacks:
    """They are called with no lock held: what they do is no interruption."""

    def test_functions_of_a_run_may_make_calls(self, pool):
        def items():
            yield pool.chat("one").text
            yield pool.chat("two").text

        replies = pool.map(
            items(),
            prompt=lambda text: pool.chat(text).text + "!",
            parse=lambda text: pool.chat(text + "?").text,
        )
        assert [reply.parsed for reply in replies] == ["one!?", "two!?"]

    def test_a_done_callback_may(self, pool):
        said = Future()
        pool.submit("one").add_done_callback(lambda future: said.set_result(pool.chat(future.result().text + "!").text))
        assert said.result(LONG) == "one!"

    def test_a_listener_and_a_retry_condition_may(self, server):
        said = []

        def listener(event):
            if event.kind == "succeeded" and not said:
                said.append(pool.stats().succeeded)
                said.append(pool.chat("from the listener").text)

        def retry_if(error):
            said.append(pool.chat("from the condition").text)
            return True

        retry = RetryPolicy(max_retries=3, retry_if=retry_if)
        with ChatPool("m", base_url=server.base_url, listeners=[listener], retry=retry, max_workers=1) as pool:
            assert pool.chat("again").text == "again"
        assert "from the listener" in said
        assert "from the condition" in said

    def test_closing_in_one_is_closing_at_once(self, pool):
        def close(event):
            if event.kind == kind:
                pool.close()

        kind = "sent"
        view = pool.with_options()
        view._core.dispatcher = pool._core.dispatcher.extended([close])
        assert view.chat("one").text == "one"
        with pytest.raises(PoolClosedError):
            pool.chat("two")

    def test_closing_before_a_call_is_queued_refuses_it(self, pool):
        pool._core.dispatcher = pool._core.dispatcher.extended([lambda event: pool.close()])
        with pytest.raises(PoolClosedError, match="the pool is closed"):
            pool.chat("one")


def test_a_flag_that_an_interruption_left_behind_refuses_nothing(pool):
    from chatpool._reentrancy import thread

    thread.busy = True  # as a Ctrl-C at a bad moment would leave it
    assert pool.chat("ping").text == "ping"
    assert not thread.busy
