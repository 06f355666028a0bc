"""Identical requests of one run: sent once, answered everywhere."""

from __future__ import annotations

import os
import threading

import pytest

from chatpool import BadRequestError, ChatPool
from chatpool.testing import Answer, Delay, Error, FakeServer, Stall


def test_each_request_is_sent_once_and_answered_in_every_place(serve):
    server, pool = serve()
    results = pool.map(["a", "b"] * 20, dedupe=True, progress=False)
    assert [str(one) for one in results] == ["a", "b"] * 20
    assert len(server.requests) == 2


def test_without_it_each_item_is_sent(serve):
    server, pool = serve()
    pool.map(["a"] * 5, progress=False)
    assert len(server.requests) == 5


def test_an_item_that_comes_after_the_answer_gets_it_too(serve):
    server, pool = serve()
    outcomes = pool.imap(["a", "b", "a", "a"], buffersize=1, dedupe=True)
    assert [outcome.value.text for outcome in outcomes] == ["a", "b", "a", "a"]
    assert len(server.requests) == 2


def test_lazy_runs_take_it_too(serve):
    server, pool = serve()
    outcomes = list(pool.as_completed((text for text in ["a", "b", "a", "b"]), dedupe=True))
    assert sorted((outcome.index, outcome.value.text) for outcome in outcomes) == [
        (0, "a"),
        (1, "b"),
        (2, "a"),
        (3, "b"),
    ]
    assert len(server.requests) == 2


def test_vectors_are_shared_as_well(serve):
    server, pool = serve()
    vectors = pool.embed(["x", "y", "x"], dedupe=True, progress=False)
    assert vectors[0] == vectors[2] != vectors[1]
    vectors[0].append(1.0)
    assert len(vectors[2]) == len(vectors[0]) - 1
    assert len(server.requests) == 2


def test_requests_that_differ_in_anything_are_sent(serve):
    server, pool = serve()
    items = [{"messages": [{"role": "user", "content": "a"}], "temperature": t} for t in (0, 1)]
    items += [{"prompt": "a"}, {"messages": [{"role": "user", "content": "a"}], "model": "other", "temperature": 0}]
    pool.map(items, dedupe=True, progress=False)
    assert len(server.requests) == 4


def test_another_run_sends_again(serve):
    server, pool = serve()
    for _ in range(2):
        pool.map(["a", "a"], dedupe=True, progress=False)
    assert len(server.requests) == 2


def test_the_row_of_each_place_is_kept(serve):
    _, pool = serve()
    rows = [{"id": 1, "text": "a"}, {"id": 2, "text": "a"}]
    results = pool.map(rows, prompt=lambda row: row["text"], dedupe=True, progress=False)
    assert [outcome.item["id"] for outcome in results.outcomes] == [1, 2]


def test_tokens_are_counted_once(serve):
    _, pool = serve()
    results = pool.map(["a"] * 10, dedupe=True, progress=False)
    alone = pool.map(["a"], progress=False)
    assert results.usage == alone.usage
    assert [outcome.attempts for outcome in results.outcomes] == [1] + [0] * 9
    assert pool.stats().succeeded == 11


def test_an_answer_that_is_changed_in_one_place_is_the_same_in_the_others(serve):
    _, pool = serve()
    first, second = pool.map(["a", "a"], dedupe=True, progress=False)
    first.message["content"] = "changed"
    assert second.message["content"] == "a"


def test_a_failure_is_everybodys(always):
    server, pool = always(Error(400, "no", code="bad"))
    results = pool.map(["a", "a", "a"], dedupe=True, on_error="return", progress=False)
    assert [type(one) for one in results] == [BadRequestError] * 3
    assert [one.attempts for one in results] == [1, 0, 0]
    assert len({id(one) for one in results}) == 3
    assert len(server.requests) == 1


def test_the_first_failure_still_ends_a_run_that_asks_for_it(always):
    _, pool = always(Error(400, "no", code="bad"))
    with pytest.raises(BadRequestError) as caught:
        pool.map(["a", "a"], dedupe=True, on_error="raise", progress=False)
    assert len(caught.value.results) == 2


def test_a_run_that_ends_early_leaves_nobody_waiting(always):
    _, pool = always(Stall())
    results = pool.map(["a"] * 30 + ["b"] * 30, dedupe=True, run_timeout=0.2, on_error="return", progress=False)
    assert [type(one).__name__ for one in results] == ["DeadlineExceededError"] * 60


def test_a_pool_that_was_closed_leaves_nobody_waiting(serve):
    _, pool = serve()
    pool.close()
    results = pool.map(["a", "a", "b"], dedupe=True, on_error="return", progress=False)
    assert [type(one).__name__ for one in results] == ["PoolClosedError"] * 3


def test_dropping_the_run_leaves_the_pool_usable(always):
    _, pool = always(Delay(0.05))
    outcomes = pool.imap(["a", "a", "b"], dedupe=True)
    next(outcomes)
    outcomes.close()
    assert pool.chat("c").text == "c"


def test_what_cannot_be_read_fails_in_its_own_place(serve):
    _, pool = serve()
    results = pool.map(["a", 5, 5, "a"], dedupe=True, progress=False)
    assert [str(one) for one in results] == ["a", "None", "None", "a"]


def test_every_item_is_counted_by_whoever_listens(serve):
    heard = []
    _, pool = serve(listeners=[heard.append])
    pool.map(["a"] * 4, dedupe=True, progress=False)
    ends = [event for event in heard if event.kind == "succeeded"]
    assert len(ends) == 4
    assert sorted(event.attempt for event in ends) == [0, 0, 0, 1]


def test_a_journal_holds_every_place_and_nothing_is_sent_again(serve, tmp_path):
    server, pool = serve()
    for _ in range(2):
        results = pool.map(["a", "b", "a"], dedupe=True, journal=tmp_path / "run.journal", progress=False)
        assert [str(one) for one in results] == ["a", "b", "a"]
    assert len(server.requests) == 2


def test_a_journal_keeps_a_failure_that_would_repeat_itself_for_every_place(always, tmp_path):
    server, pool = always(Error(400, "no", code="bad"))
    for _ in range(2):
        pool.map(["a", "a"], dedupe=True, journal=tmp_path / "run.journal", progress=False, on_error="return")
    assert len(server.requests) == 1


def test_it_is_no_keyword_of_a_single_call(serve):
    _, pool = serve()
    with pytest.raises(TypeError, match=r"chat\(\) got an unexpected keyword argument 'dedupe'"):
        pool.chat("a", dedupe=True)


def test_anything_but_a_bool_is_refused(serve):
    _, pool = serve()
    with pytest.raises(TypeError, match="dedupe must be True or False"):
        pool.map(["a"], dedupe="yes")


def test_many_twins_of_many_requests_from_many_threads():
    with FakeServer(lambda request: Answer(request.prompt.upper())) as server:
        with ChatPool("m", base_url=server.base_url, max_workers=16) as pool:
            items = [f"item {number % 37}" for number in range(1500)]
            found = {}

            def run(name):
                found[name] = pool.map(items, dedupe=True, progress=False)

            threads = [threading.Thread(target=run, args=(name,)) for name in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        for name in range(3):
            assert [str(one) for one in found[name]] == [item.upper() for item in items]
        assert len(server.requests) == 3 * 37


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_in_a_forked_child_every_place_says_that_the_call_was_the_parents(always):
    server, pool = always(Stall())
    outcomes = pool.imap(["a", "a", "b"], dedupe=True)
    run = outcomes._run
    run._feed(0)
    server.wait_for(2)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, repr([type(outcome.error).__name__ for outcome in outcomes]).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    assert os.read(reader, 1000).decode() == repr(["CallCancelledError"] * 3)
    os.close(reader)
    outcomes.close()
