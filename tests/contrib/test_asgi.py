"""A blocking generator as an asynchronous one: whoever leaves, and however, it is closed, in its own thread."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading

import pytest

from chatpool import ChatPool
from chatpool.contrib.asgi import closing
from chatpool.testing import FakeServer, Stream

HUNG = 30  # seconds

visitor = contextvars.ContextVar("visitor", default="nobody")


class Numbers:
    """A generator that says which threads ran it, and waits where it is told to."""

    def __init__(self, count=3, wait_at=None):
        self._count = count
        self._wait_at = wait_at
        self.is_waiting = threading.Event()
        self.go_on = threading.Event()
        self.threads = []
        self.closed = threading.Event()
        self.closed_in = None

    def __call__(self):
        try:
            for number in range(self._count):
                self.threads.append(threading.current_thread())
                if number == self._wait_at:
                    self.is_waiting.set()
                    assert self.go_on.wait(HUNG)
                yield number
        finally:
            self.closed_in = threading.current_thread()
            self.closed.set()


async def until(event):
    """Wait for an event of a thread, and leave the loop free."""
    assert await asyncio.get_running_loop().run_in_executor(None, event.wait, HUNG)


def all_of(generator):
    async def collect():
        return [item async for item in closing(generator)]

    return asyncio.run(collect())


def test_what_the_generator_yields_comes_in_order_from_one_thread_that_ends():
    numbers = Numbers(5)
    assert all_of(numbers()) == [0, 1, 2, 3, 4]
    assert len(set(numbers.threads)) == 1
    assert numbers.threads[0] is not threading.current_thread()
    numbers.threads[0].join(HUNG)
    assert not numbers.threads[0].is_alive()


def test_a_visitor_who_leaves_during_a_wait_ends_it_without_holding_up_the_loop():
    numbers = Numbers(wait_at=1)

    async def serve():
        async for _ in closing(numbers()):
            pass

    async def leave():
        task = asyncio.ensure_future(serve())
        await until(numbers.is_waiting)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):  # at once, while the generator still waits
            await task
        assert not numbers.closed.is_set()
        numbers.go_on.set()
        await until(numbers.closed)

    asyncio.run(leave())
    assert numbers.closed_in is numbers.threads[0]
    assert len(numbers.threads) == 2, "it went on"


def test_one_who_leaves_between_two_chunks_ends_it_too():
    numbers = Numbers()

    async def serve(is_sending):
        async for _ in closing(numbers()):
            is_sending.set()
            await asyncio.sleep(HUNG)  # a socket that takes nothing

    async def leave():
        is_sending = asyncio.Event()
        task = asyncio.ensure_future(serve(is_sending))
        await is_sending.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gc.collect()
        await until(numbers.closed)

    asyncio.run(leave())
    assert numbers.closed_in is numbers.threads[0]


def test_aclose_ends_it():
    numbers = Numbers()

    async def begin_and_close():
        chunks = closing(numbers())
        assert await chunks.__anext__() == 0
        await chunks.aclose()
        await until(numbers.closed)

    asyncio.run(begin_and_close())
    assert numbers.closed_in is numbers.threads[0]


def test_its_errors_arrive():
    def fails():
        yield 1
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        all_of(fails())


def test_an_error_while_it_is_closed_is_logged(caplog):
    has_failed = threading.Event()

    def fails_when_closed():
        try:
            yield 1
        finally:
            has_failed.thread = threading.current_thread()
            has_failed.set()
            raise LookupError("not to be closed")

    async def begin_and_close():
        chunks = closing(fails_when_closed())
        await chunks.__anext__()
        await chunks.aclose()
        await until(has_failed)

    asyncio.run(begin_and_close())
    has_failed.thread.join(HUNG)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("chatpool", "ERROR")
    assert "not to be closed" in str(record.exc_info[1])


def test_it_has_the_context_variables_of_the_request():
    def who():
        yield visitor.get()
        yield visitor.get()

    visitor.set("Ada")
    assert all_of(who()) == ["Ada", "Ada"]


def test_fifty_may_wait_at_the_same_time():
    everyone = threading.Barrier(50)

    def waits():
        everyone.wait(HUNG)
        yield "met"

    async def visit():
        return [chunk async for chunk in closing(waits())]

    async def visitors():
        return await asyncio.gather(*(visit() for _ in range(50)))

    assert asyncio.run(visitors()) == [["met"]] * 50


def test_a_visitor_who_leaves_a_silent_model_closes_its_connection():
    with FakeServer(Stream(["Once"], end="stall")) as server, ChatPool("m", base_url=server.base_url) as pool:

        def chunks():
            with pool.stream("Tell a story.") as stream:
                yield from stream.events(heartbeat=0.05)

        async def leave():
            body = closing(chunks())
            async for chunk in body:
                if chunk is None:  # the model thinks
                    break
            await body.aclose()

        asyncio.run(leave())
        server.wait_until(lambda: server.open_connections == 0, HUNG)
        pool.close()  # once the generator's thread has left the stream
        assert pool.stats().in_flight == 0


async def asynchronous():
    yield 1


@pytest.mark.parametrize("thing", [asynchronous(), [1, 2], iter([1]), "text"], ids=lambda thing: type(thing).__name__)
def test_only_what_can_be_closed_is_taken(thing):
    with pytest.raises(TypeError, match=f"closing.*got {type(thing).__name__}"):
        closing(thing)
