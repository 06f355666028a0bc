"""Functions of the user that worker threads call: after a call, when there is no work, and when they end."""

from __future__ import annotations

import gc
import threading
from collections import Counter

import pytest

from chatpool import ChatPool
from chatpool.testing import FakeServer


class Calls:
    """A hook that counts its calls by thread."""

    def __init__(self, error=None):
        self._error = error
        self._changed = threading.Condition()
        self.counts = Counter()

    def __call__(self):
        with self._changed:
            self.counts[threading.current_thread()] += 1
            self._changed.notify_all()
        if self._error is not None:
            raise self._error

    def wait_until(self, is_met):
        """Wait until the counts are as they are to be."""
        with self._changed:
            assert self._changed.wait_for(lambda: is_met(self.counts), 30), self.counts


def test_a_thread_without_work_calls_worker_idle_once_and_again_after_more_work(serve):
    idle, after = Calls(), Calls()
    _, pool = serve(worker_idle=idle, after_call=after, max_workers=1)
    for times in (1, 2):
        assert pool.chat("ping").text == "ping"
        after.wait_until(lambda counts, times=times: sum(counts.values()) == times)  # it comes after the answer
        (worker,) = after.counts
        idle.wait_until(lambda counts, times=times, worker=worker: counts == {worker: times})


def test_every_thread_that_worked_calls_it(serve):
    idle, after = Calls(), Calls()
    _, pool = serve(worker_idle=idle, after_call=after, max_workers=8, latency=0.05)
    pool.map([str(number) for number in range(40)], progress=False)
    assert len(after.counts) > 1
    idle.wait_until(lambda counts: set(counts) >= set(after.counts))


@pytest.mark.parametrize("end", ["close", "abort"])
def test_every_thread_calls_worker_end_as_its_last(serve, end):
    ended, after = Calls(), Calls()
    _, pool = serve(worker_end=ended, after_call=after, max_workers=8, latency=0.05)
    pool.map([str(number) for number in range(40)], progress=False)
    assert not ended.counts
    getattr(pool, end)()
    ended.wait_until(lambda counts: set(counts) >= set(after.counts))
    assert set(ended.counts.values()) == {1}
    for worker in ended.counts:
        worker.join(20)
        assert not worker.is_alive()


def test_a_pool_that_is_dropped_ends_its_threads_with_it_too():
    ended = Calls()
    with FakeServer() as server:
        pool = ChatPool("m", base_url=server.base_url, worker_end=ended)
        assert pool.chat("ping").text == "ping"
        del pool
        gc.collect()
        ended.wait_until(lambda counts: len(counts) == 1)


def test_a_stream_within_a_worker_ends_its_own_thread_with_it(serve):
    ended = Calls()
    server, pool = serve(worker_end=ended)
    texts, is_watched, done = [], threading.Event(), threading.Event()

    def script(request):
        if request.prompt == "outer":
            assert is_watched.wait(30)

    def read(_):
        with pool.stream("inner") as stream:
            texts.append("".join(chunk.text for chunk in stream))
        done.set()

    server.set_script(script)
    pool.submit("outer").add_done_callback(read)
    is_watched.set()  # only now, so that it is a worker that calls it
    assert done.wait(30)
    ended.wait_until(lambda counts: len(counts) == 1)
    assert texts == ["inner"]


@pytest.mark.parametrize("name", ["worker_idle", "worker_end"])
def test_one_that_raises_is_logged_and_costs_nothing(serve, caplog, name):
    hook = Calls(SystemExit("not now"))
    _, pool = serve(**{name: hook}, max_workers=1)
    assert pool.chat("ping").text == "ping"
    if name == "worker_idle":
        hook.wait_until(lambda counts: len(counts) == 1)
        assert pool.chat("again").text == "again"
    pool.close()
    hook.wait_until(lambda counts: len(counts) == 1)
    assert f"{name} raised" in caplog.text


@pytest.mark.parametrize("name", ["after_call", "worker_idle", "worker_end"])
def test_what_cannot_be_called_is_refused(name):
    with pytest.raises(TypeError, match=f"{name} must be callable"):
        ChatPool("m", base_url="http://127.0.0.1:9", **{name: "close"})
    with pytest.raises(TypeError, match=f"{name} must be callable"):
        ChatPool.azure("https://x.openai.azure.com", "d", api_key="k", api_version="1", **{name: "close"})


@pytest.mark.parametrize("name", ["after_call", "worker_idle"])
def test_a_call_that_one_makes_runs_at_once_in_its_thread(serve, name):
    begun, answers, done = [], [], threading.Event()

    def hook():
        if not begun:  # it is called for its own call, too
            begun.append(True)
            answers.append(pool.chat("by the hook").text)
            done.set()

    _, pool = serve(max_workers=1, **{name: hook})
    pool.chat("ping")
    assert done.wait(30)
    pool.close()
    assert answers == ["by the hook"]


@pytest.mark.parametrize("name", ["after_call", "worker_idle", "worker_end"])
def test_one_may_close_the_pool(serve, caplog, name):
    closed = threading.Event()

    def hook():
        pool.close()
        closed.set()

    _, pool = serve(max_workers=1, **{name: hook})
    pool.chat("ping")
    if name == "worker_end":
        pool.close()
    assert closed.wait(30)
    assert "raised" not in caplog.text
