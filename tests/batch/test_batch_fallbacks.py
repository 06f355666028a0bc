"""Batch runs with fallbacks: what answers, what it costs, and what a later run knows of it."""

from __future__ import annotations

import csv

import pytest

from chatpool import Budget, ChatPool, Endpoint, NotFoundError, batch
from chatpool.batch import shards
from chatpool.batch.report import report
from chatpool.testing import Answer, Error, FakeServer, chat_completion

GONE = Error(404, message="The model `m` does not exist.", code="model_not_found")
PRICES = {"m": (1e6, 1e6), "other": (1e3, 1e3)}  # a dollar, and a tenth of a cent, a token
ROWS = 30
COST = ROWS * (7 * 1 + 30 * 0.001)


def answer(model, finish_reason, read, written):
    body = chat_completion("text", model=model, finish_reason=finish_reason)
    body["usage"] = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    return Answer(body=body)


REJECTED, ACCEPTED = answer("m", "length", 3, 4), answer("other", "stop", 10, 20)


def cut(request):
    """The model m is cut each time, others are not."""
    return REJECTED if request.body["model"] == "m" else ACCEPTED


@pytest.fixture
def server():
    with FakeServer() as server:
        yield server


@pytest.fixture
def run(server, write_rows, tmp_path):
    """``run(**options)`` runs the same rows to the same output."""
    source = write_rows(ROWS)

    def go(output="out.jsonl", **options):
        keywords = {"model": "m", "base_url": server.base_url, "api_key": "k", "progress": False, "max_workers": 4}
        return batch.run(source, tmp_path / output, **{**keywords, **options})

    return go


def models(server):
    return [request.body["model"] for request in server.requests]


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_refused_model_ends_no_run(run, server, processes):
    server.set_script(lambda request: GONE if request.body["model"] == "m" else None)
    result = run(fallbacks=["other"], processes=processes)
    assert (result.succeeded, result.failed, result.pending, result.fatal) == (ROWS, 0, 0, None)
    assert models(server).count("other") == ROWS
    assert models(server).count("m") <= 4


def test_what_a_fallback_has_answered_is_done(run, server):
    server.set_script(lambda request: GONE if request.body["model"] == "m" else None)
    run(fallbacks=["other"])
    sent = len(server.requests)
    again = run()
    assert (again.done_before, len(server.requests)) == (ROWS, sent)
    assert again.changed == 0


def test_where_all_refuse_the_rows_stay_pending(run, server):
    server.set_script(GONE)
    result = run(fallbacks=["b", "c"])
    assert isinstance(result.fatal, NotFoundError)
    assert (result.succeeded, result.failed) == (0, result.rows - result.pending)
    assert result.pending >= ROWS - 4
    server.set_script(lambda request: GONE if request.body["model"] == "m" else None)
    assert run(fallbacks=["b"], retry_failed=False).pending == 0


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_each_answer_is_priced_by_the_model_that_gave_it(server, write_rows, tmp_path, processes):
    server.set_script(cut)
    budget = Budget(cost=1e6, prices=PRICES)
    with ChatPool("m", base_url=server.base_url, api_key="k", budget=budget, fallbacks=["other"]) as pool:
        options = {"accept": "stop", "prices": PRICES, "progress": False, "processes": processes}
        result = batch.run(write_rows(ROWS), tmp_path / "o.jsonl", pool=pool, **options)
        assert pool._core.engine._budget_tracker.cost == pytest.approx(COST)
    assert result.usage.total_tokens == ROWS * 37
    assert result.cost == pytest.approx(COST)
    assert report(tmp_path / "o.jsonl", prices=PRICES).cost == pytest.approx(COST)


def test_rows_that_fail_in_the_end_have_their_price_too(run, server, tmp_path):
    server.set_script(REJECTED)
    result = run(fallbacks=["other"], accept="stop", prices=PRICES)
    assert result.failed == ROWS
    assert result.cost == pytest.approx(ROWS * (7 + 0.007))
    assert report(tmp_path / "out.jsonl", prices=PRICES).cost == pytest.approx(result.cost)


def test_a_tier_has_its_own_price_in_reports_too(run, server, tmp_path):
    server.set_script(answer("m", "stop", 10, 20))
    prices = {"m": {"input_cost_per_token": 1.0, "output_cost_per_token": 1.0, "input_cost_per_token_flex": 0.5}}
    result = run(service_tier="flex", prices=prices)
    assert result.cost == pytest.approx(ROWS * (10 * 0.5 + 20))
    assert report(tmp_path / "out.jsonl", prices=prices).cost == pytest.approx(result.cost)


def test_a_table_says_which_has_answered(run, server, tmp_path):
    server.set_script(lambda request: REJECTED if request.prompt == "row 3" and "top_p" not in request.body else None)
    run("out.csv", accept="stop", fallbacks=[{"top_p": 1}], fields="id,fallback,attempts")
    with open(tmp_path / "out.csv", newline="") as file:
        rows = {row["id"]: (row["fallback"], row["attempts"]) for row in csv.DictReader(file)}
    assert rows["row 3"] == ("1", "2")
    assert rows["row 4"] == ("0", "1")


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_endpoint_that_is_kept_for_fallbacks(run, server, processes):
    server.set_script(Error(401))
    with FakeServer() as standby:
        result = run(fallbacks=[Endpoint(standby.base_url, "its-key")], processes=processes)
        assert (result.succeeded, result.fatal) == (ROWS, None)
        assert {request.headers["authorization"] for request in standby.requests} == {"Bearer its-key"}


@pytest.mark.slow
def test_one_of_several_endpoints_in_several_processes(server, write_rows, tmp_path):
    server.set_script(REJECTED)
    with FakeServer() as second:
        one, two = Endpoint(server.base_url, "k", name="one"), Endpoint(second.base_url, "k", name="two")
        with ChatPool("m", endpoints=[one, two], fallbacks=[two]) as pool:
            options = {"accept": "stop", "processes": 2, "progress": False}
            result = batch.run(write_rows(ROWS), tmp_path / "out.jsonl", pool=pool, **options)
    assert (result.succeeded, result.failed, result.pending) == (ROWS, 0, 0)


def test_the_shards_of_a_run_count_the_same(server, write_rows, tmp_path):
    server.set_script(cut)
    plan = shards.split(write_rows(ROWS), tmp_path / "plan", rows=ROWS // 2)
    with ChatPool("m", base_url=server.base_url, api_key="k", fallbacks=["other"]) as pool:
        for index in range(2):
            shards.run(plan, index, pool=pool, accept="stop", progress=False)
    assert sum(shards.bill(plan, index, PRICES).cost for index in range(2)) == pytest.approx(COST)
