"""imap and as_completed: endless inputs, bounded look-ahead."""

from __future__ import annotations

import itertools

import pytest

from chatpool import ConfigurationError, DeadlineExceededError
from chatpool.testing import Error, Stall


def counting(read):
    """An endless input that notes how far it has been read."""
    for number in itertools.count():
        read.append(number)
        yield str(number)


def test_imap_yields_outcomes_in_input_order(serve):
    _, pool = serve(max_workers=8, latency=0.001)
    outcomes = list(pool.imap(str(number) for number in range(200)))
    assert [outcome.index for outcome in outcomes] == list(range(200))
    assert [outcome.value.text for outcome in outcomes] == [str(number) for number in range(200)]


def test_as_completed_yields_each_outcome_once(serve):
    _, pool = serve(max_workers=8, latency=0.001)
    outcomes = list(pool.as_completed([str(number) for number in range(200)]))
    assert sorted(outcome.index for outcome in outcomes) == list(range(200))
    assert all(outcome.value.text == outcome.item for outcome in outcomes)


def test_as_completed_does_not_wait_for_a_slow_first_item(serve):
    server, pool = serve(max_workers=2)
    server.set_script(lambda request: Stall() if request.body["messages"][-1]["content"] == "slow" else None)
    outcomes = pool.as_completed(["slow", "quick"])
    assert next(outcomes).item == "quick"
    outcomes.close()


@pytest.mark.parametrize("method", ["imap", "as_completed"])
def test_an_endless_input_is_read_only_so_far_ahead(serve, method):
    _, pool = serve()
    read = []
    outcomes = getattr(pool, method)(counting(read), buffersize=20)
    taken = list(itertools.islice(outcomes, 50))
    assert len(taken) == 50
    assert len(read) <= 50 + 20
    outcomes.close()


@pytest.mark.parametrize("method", ["imap", "as_completed"])
def test_the_first_outcome_comes_before_the_look_ahead_is_full(serve, method):
    server, pool = serve(max_workers=1)

    def rows():
        yield "first"
        server.wait_until(lambda: len(server.requests) == 1)  # sent before the second is read
        yield "second"

    assert [outcome.item for outcome in getattr(pool, method)(rows())] == ["first", "second"]


@pytest.mark.parametrize("method", ["imap", "as_completed"])
def test_leaving_early_cancels_the_rest(serve, method):
    server, pool = serve(max_workers=1)
    outcomes = getattr(pool, method)([str(number) for number in range(500)])
    next(outcomes)
    outcomes.close()
    sent = len(server.requests)
    assert sent < 500
    assert pool.chat("again").text == "again"
    assert pool.stats().queued == 0


def test_failures_are_outcomes_not_exceptions(always):
    _, pool = always(Error(400))
    outcomes = list(pool.imap(["a", "b"]))
    assert [outcome.ok for outcome in outcomes] == [False, False]


def test_a_fatal_error_gives_every_later_item_the_reason(always):
    server, pool = always(Error(401), max_workers=2)
    outcomes = list(itertools.islice(pool.imap(itertools.repeat("x")), 300))
    assert {outcome.error.status_code for outcome in outcomes} == {401}
    assert len(server.requests) <= 2


def test_run_timeout_ends_what_is_unfinished(always):
    _, pool = always(Stall(), max_workers=2)
    outcomes = list(pool.imap(["a", "b", "c"], run_timeout=0.3))
    assert [type(outcome.error) for outcome in outcomes] == [DeadlineExceededError] * 3


def test_a_wrong_argument_is_raised_at_the_call_not_at_the_first_item(serve):
    _, pool = serve()
    with pytest.raises(ConfigurationError, match="buffersize must be at least 1"):
        pool.imap(["a"], buffersize=0)
    with pytest.raises(TypeError, match="items must be an iterable"):
        pool.as_completed("text")


def test_a_progress_bar_counts_the_items(serve, capsys):
    _, pool = serve()
    list(pool.imap(["a", "b", "c"], progress=True))
    assert "3/3" in capsys.readouterr().err


def test_cancelled_items_are_counted_as_failed(serve):
    server, pool = serve(max_workers=1)
    server.set_script(lambda request: Stall())
    outcomes = pool.as_completed(["a"] * 10, buffersize=10, run_timeout=0.2)
    assert {type(outcome.error) for outcome in outcomes} == {DeadlineExceededError}
    assert pool.stats().failed == 10
