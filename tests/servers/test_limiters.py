"""With every default a run behind a limiter answers every row, and asks little more often than it has to.

How long that takes stands in the benchmark ``overload``.
"""

from __future__ import annotations

import json
from collections import Counter

import pytest

import chatpool
from benchmarks.overload.fronts import FRONTS
from chatpool import Outcome

pytestmark = pytest.mark.servers

HUNG = 110  # seconds: what takes as long does not end at all
PACK = 2048  # texts: as many go out in one request

# Front, rows, and how many refusals there may be.
LIMITERS = [("limit_req", 100, 100), ("limit_conn", 100, 60)]
QUIETER = [("limit_req-429", 60, 60), ("limit_conn-429", 60, 36)]  # the same shares of fewer rows
WORKERS = [16, 64]


def prompts(count):
    return [f"row {number}" for number in range(count)]


def statuses(outcomes):
    """How often which status was met, by the outcomes' histories."""
    return Counter(attempt.status for outcome in outcomes for attempt in outcome.history)


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize(("name", "rows", "most"), [*LIMITERS, *QUIETER, ("queue", 200, 100)])
def test_a_map_loses_no_row_and_learns_the_pace_from_few_refusals(start, open_pool, name, rows, most, workers):
    front = start(FRONTS[name])
    results = open_pool(front, workers).map(prompts(rows), progress=False, run_timeout=HUNG)
    assert not results.failures, results.explain()
    assert statuses(results.outcomes) == Counter(status for _, status in front.log())
    assert front.refused() <= most


@pytest.mark.parametrize("name", [pytest.param("table", marks=pytest.mark.smoke), "table-429"])
def test_a_map_loses_no_row_where_refusals_count_as_calls(start, open_pool, name):
    results = open_pool(start(FRONTS[name]), 16).map(prompts(40), progress=False, run_timeout=HUNG)
    assert not results.failures, results.explain()


@pytest.mark.parametrize(("name", "rows", "most"), LIMITERS)
def test_a_batch_run_loses_no_row(start, open_pool, tmp_path, name, rows, most):
    front, source, output = start(FRONTS[name]), tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts(rows)))
    result = chatpool.batch.run(source, output, pool=open_pool(front, 16), progress=False)
    assert (result.succeeded, result.failed) == (rows, 0)
    assert front.refused() <= most


@pytest.mark.parametrize(("name", "rows", "most"), LIMITERS)
def test_streams_in_parallel_lose_no_row(start, open_pool, name, rows, most):
    front = start(FRONTS[name])
    found = open_pool(front, 16).stream_many(prompts(rows), progress=False, run_timeout=HUNG)
    outcomes = [what for _, what in found if isinstance(what, Outcome)]
    assert [outcome.error for outcome in outcomes] == [None] * rows
    assert front.refused() <= most


@pytest.mark.parametrize(("name", "requests", "most"), LIMITERS)
def test_packed_embeddings_lose_no_text(start, open_pool, name, requests, most):
    front, texts = start(FRONTS[name]), ["a text"] * (requests * PACK)
    results = open_pool(front, 16).embed(texts, progress=False, run_timeout=HUNG)
    assert all(results), results.explain()
    assert len(front.log()) - front.refused() == requests
    assert front.refused() <= most
