"""Many threads that read, leave, drop and close streams at any moment: nothing is lost, nothing hangs."""

from __future__ import annotations

import random
import threading

import pytest

from chatpool import ChatPoolError, RetryPolicy
from chatpool.testing import Error, Reset, Stream

WORKERS, READERS, TURNS = 3, 6, 40


def choose_fault(request):
    chance = random.Random(request.number).random()
    if chance < 0.05:
        return Error(500)
    if chance < 0.1:
        return Reset(after=200, then=Stream(["Once", " upon"]))
    return Stream(["Once", " upon"], end="cut") if chance < 0.15 else None


def read_all(stream, prompt):
    assert "".join(map(str, stream)) == prompt
    assert stream.completion.text == prompt


def read_some(stream, prompt):
    with stream:
        next(stream)
        next(stream)


def drop(stream, prompt):
    next(stream)


def close_from_another_thread(stream, prompt):
    closer = threading.Timer(0.001, stream.close)
    closer.start()
    try:
        read_all(stream, prompt)  # or it raises: half an answer never looks whole
    finally:
        closer.join()


WAYS = (read_all, read_some, drop, close_from_another_thread)


def test_streams_used_in_every_way_at_once_leave_nothing_behind(serve):
    server, pool = serve(max_workers=WORKERS, retry=RetryPolicy(max_retries=5, wait_initial=0.01))
    server.set_script(choose_fault)
    problems = []

    def use(name):
        chance = random.Random(name)
        for turn in range(TURNS):
            prompt = f"reader {name} turn {turn}"
            try:
                if turn % 10 == 9:
                    assert pool.chat(prompt).text in (prompt, "Once upon")
                else:
                    chance.choice(WAYS)(pool.stream(prompt), prompt)
            except ChatPoolError:
                continue
            except BaseException as problem:
                problems.append(problem)
                return

    threads = [threading.Thread(target=use, args=(name,), daemon=True) for name in range(READERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert problems == []
    server.wait_until(lambda: server.in_flight == 0)
    server.set_script(None)
    assert pool.chat("after all").text == "after all"
    stats = pool.stats()
    assert (stats.queued, stats.parked, stats.in_flight) == (0, 0, 0)
    assert READERS * TURNS * 0.8 < stats.succeeded + stats.failed <= READERS * TURNS + 1  # some were closed unsent


@pytest.mark.parametrize("moment", [0.0, 0.02, 0.1])
def test_abort_at_any_moment_ends_all_of_them(serve, moment):
    server, pool = serve(max_workers=WORKERS)
    server.set_script(lambda request: Stream(["word "] * 200, every=0.002))
    ends = []

    def use():
        try:
            while True:
                list(pool.stream("tell"))
        except ChatPoolError as error:
            ends.append(type(error).__name__)

    threads = [threading.Thread(target=use, daemon=True) for _ in range(READERS)]
    for thread in threads:
        thread.start()
    server.wait_for(1)
    aborting = threading.Timer(moment, pool.abort)
    aborting.start()
    for thread in threads:
        thread.join(20)
    assert ends == ["PoolClosedError"] * READERS
    server.wait_until(lambda: server.open_connections == 0)
