"""Several callers of one pool: who is sent first, by what arrives at the server."""

from __future__ import annotations

import threading

import pytest

from chatpool.testing import FakeServer

ROWS = [f"row {number}" for number in range(20)]


@pytest.fixture
def arrivals(serve):
    """A function: the prompts as they arrive when ``interrupt(pool)`` queues ``more`` calls while row 2 is answered."""

    def record(interrupt, more=1):
        server, pool = serve(max_workers=1)
        started = []

        def answer(request):
            if request.body["messages"][-1]["content"] == "row 2" and not started:
                started.append(threading.Thread(target=interrupt, args=(pool,), daemon=True))
                queued = pool.stats().queued
                started[0].start()
                while pool.stats().queued < queued + more:
                    started[0].join(0.01)

        server.set_script(answer)
        pool.map(ROWS, progress=False)
        started[0].join(30)
        return [request.body["messages"][-1]["content"] for request in server.requests]

    return record


@pytest.mark.parametrize(
    "call",
    [
        lambda pool: pool.chat("single"),
        lambda pool: pool.submit("single").result(),
        lambda pool: list(pool.stream("single")),
        lambda pool: pool.request("/chat/completions", {"messages": [{"role": "user", "content": "single"}]}),
    ],
    ids=["chat", "submit", "stream", "request"],
)
def test_a_single_call_does_not_wait_for_a_run(arrivals, call):
    prompts = arrivals(call)
    assert prompts.index("single") == 3
    assert len(prompts) == 21


@pytest.mark.parametrize("method", ["map", "imap", "as_completed", "stream_many"])
def test_a_run_of_a_higher_priority_goes_first_and_no_row_is_lost(arrivals, method):
    urgent = ["urgent 1", "urgent 2", "urgent 3"]
    prompts = arrivals(lambda pool: list(getattr(pool, method)(urgent, priority=1, progress=False)))
    assert prompts[3:6] == urgent
    assert sorted(prompts) == sorted(ROWS + urgent)


def test_runs_of_one_priority_take_turns(arrivals):
    prompts = arrivals(lambda pool: pool.map(["other 1", "other 2"], progress=False))
    assert prompts[3:7] in (["other 1", "row 3", "other 2", "row 4"], ["row 3", "other 1", "row 4", "other 2"])


def test_a_view_gives_its_calls_a_priority_and_a_call_may_say_otherwise(arrivals):
    def interrupt(pool):
        background = pool.with_options(priority=-1)
        futures = [background.submit("last"), background.submit("soon", priority=3)]
        for future in futures:
            future.result()

    prompts = arrivals(interrupt, more=2)
    assert prompts.index("soon") == 3
    assert prompts[-1] == "last"


@pytest.mark.parametrize("priority", [True, 1.5, "high"])
def test_a_priority_is_a_whole_number(priority):
    from chatpool import ChatPool

    with FakeServer() as server, ChatPool("m", base_url=server.base_url) as pool:
        for method, item in (("chat", "x"), ("map", ["x"]), ("stream_many", ["x"]), ("embed", "x")):
            with pytest.raises(TypeError, match="priority must be a whole number"):
                getattr(pool, method)(item, priority=priority)
        with pytest.raises(TypeError, match="priority must be a whole number"):
            pool.with_options(priority=priority)
        assert not server.requests
