"""Batch runs that end when too many of their rows fail."""

from __future__ import annotations

import json
import sys
from collections import Counter

import pytest

import chatpool
from chatpool import BadRequestError, ChatPool, ConfigurationError, TooManyFailuresError
from chatpool.testing import Answer, Error

MISSPELT = Error(400, message="Unknown parameter: 'temprature'.", code="unknown_parameter", param="temprature")

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
in_both_ways = pytest.mark.parametrize("processes", [1, pytest.param(2, marks=[posix, pytest.mark.slow])])


@pytest.fixture
def run(chatpool_server, tmp_path):
    """``run(source, step, **options)`` runs it at a server that has answered before; rows get ``step(request)``."""

    def start(source, step=lambda request: None, *, max_workers=4, **options):
        chatpool_server.set_script(lambda request: None if is_first(request) else step(request))
        with ChatPool("m", base_url=chatpool_server.base_url, max_workers=max_workers, retry=0) as pool:
            pool.chat("first")
            pool.embed("first")
            return chatpool.batch.run(source, tmp_path / "out.jsonl", pool=pool, progress=False, **options)

    return start


def is_first(request):
    return "first" in str(request.body)


def misspelt(request):
    return MISSPELT


def refused(which):
    """Refuses the rows of which the number is such, each in words of its own."""

    def step(request):
        number = int(request.prompt.split()[-1])
        return Error(400, message=f"{request.prompt!r} is not welcome") if which(number) else None

    return step


def sent(server):
    return sum(not is_first(request) for request in server.requests)


@in_both_ways
def test_rows_that_are_all_refused_in_the_same_words_are_not_all_sent(
    run, write_rows, chatpool_server, processes, tmp_path, ids
):
    result = run(write_rows(600), misspelt, processes=processes)
    assert isinstance(result.fatal, (TooManyFailuresError, BadRequestError))  # another process has had no success
    assert "Unknown parameter" in str(result.fatal)
    assert 10 <= sent(chatpool_server) < 600
    assert result.failed
    assert result.pending == 600 - result.failed
    assert len(ids(tmp_path / "out.errors.jsonl")) == result.failed


def test_the_first_fifty_are_enough(run, write_rows, chatpool_server):
    result = run(write_rows(600), misspelt)
    assert isinstance(result.fatal, TooManyFailuresError)
    assert isinstance(result.fatal.__cause__, BadRequestError)
    assert "--max-failures none" in str(result.fatal)
    assert 50 <= sent(chatpool_server) < 60


@in_both_ways
def test_the_run_goes_on_with_what_was_not_sent(run, write_rows, chatpool_server, processes, tmp_path, ids):
    source = write_rows(300)
    stopped = run(source, refused(lambda number: number >= 100), processes=processes, max_failures=10)
    assert stopped.fatal is not None
    assert stopped.succeeded
    assert stopped.pending
    result = run(source, processes=processes)
    assert (result.fatal, result.pending, result.succeeded) == (None, 0, 300 - stopped.failed)
    assert result.done_before == stopped.succeeded + stopped.failed
    asked = Counter(request.prompt for request in chatpool_server.requests if not is_first(request))
    assert set(asked.values()) == {1}
    assert len(ids(tmp_path / "out.jsonl")) == result.succeeded


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=[posix, pytest.mark.slow])])
def test_a_share_ends_the_run_from_the_twentieth_row_on(run, write_rows, chatpool_server, processes):
    step = refused(lambda number: number % 4 == 0)
    result = run(write_rows(600), step, processes=processes, max_failures=0.2, max_workers=2)
    assert isinstance(result.fatal, TooManyFailuresError)
    assert "max_failures" in str(result.fatal)
    assert 20 <= sent(chatpool_server) < 600


@in_both_ways
def test_none_sends_all_rows(run, write_rows, chatpool_server, processes):
    result = run(write_rows(120), misspelt, processes=processes, max_failures=None)
    assert (result.fatal, result.failed, sent(chatpool_server)) == (None, 120, 120)


@in_both_ways
def test_rows_of_which_no_request_can_be_made_count_too(run, tmp_path, chatpool_server, processes):
    source = tmp_path / "in.csv"
    source.write_text("id,prompt\n" + "".join(f"{number},\n" for number in range(5)) + "9,ping 9\n")
    result = run(source, processes=processes, max_failures=3)
    assert isinstance(result.fatal, TooManyFailuresError)
    assert (result.failed, result.pending) == (3, 3)
    assert sent(chatpool_server) == 0


def test_empty_cells_alone_end_nothing_by_default(run, tmp_path, chatpool_server):
    source = tmp_path / "in.csv"
    source.write_text("id,prompt\n" + "".join(f"{number},\n" for number in range(80)) + "9,ping 9\n")
    result = run(source)
    assert (result.fatal, result.failed, result.succeeded) == (None, 80, 1)


def test_what_earlier_runs_have_counts_nothing(run, write_rows, chatpool_server):
    source = write_rows(40)
    assert run(source, refused(lambda number: number < 8), limit=20).failed == 8
    result = run(source, max_failures=1)
    assert (result.fatal, result.failed, result.succeeded) == (None, 8, 32)


def test_texts_to_embed_are_counted_one_by_one(run, tmp_path, chatpool_server):
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"input": f"text {number}"}) + "\n" for number in range(200)))
    result = run(source, misspelt, url="/v1/embeddings", max_pack=1)
    assert isinstance(result.fatal, TooManyFailuresError)
    assert 50 <= sent(chatpool_server) < 200


def test_request_ids_make_no_other_words(run, write_rows, chatpool_server):
    marks = iter("abcdefghijklmnopqrstuvwxyz" * 30)
    result = run(
        write_rows(300),
        lambda request: Error(400, message="Unknown parameter.", headers={"x-request-id": "id-" + next(marks) * 5}),
    )
    assert isinstance(result.fatal, TooManyFailuresError)
    assert sent(chatpool_server) < 300


@pytest.mark.parametrize("wrong", [0, 1.0, -1, "many"])
def test_what_is_no_limit_is_refused_before_anything_is_sent(run, write_rows, chatpool_server, wrong):
    with pytest.raises(ConfigurationError, match="max_failures must"):
        run(write_rows(1), max_failures=wrong)
    assert sent(chatpool_server) == 0


@pytest.mark.usefixtures("instant_waits")
@pytest.mark.slow
def test_responses_that_fail_in_the_background_end_the_run_too(run, tmp_path, chatpool_server):
    source = tmp_path / "in.jsonl"
    body = {"input": "ping", "background": True}
    source.write_text("".join(json.dumps({**body, "custom_id": str(number)}) + "\n" for number in range(5000)))
    response = {"id": "resp_1", "object": "response", "status": "queued", "output": [], "model": "m"}
    refusal = {"code": "invalid_prompt", "message": "There is no such tool."}
    failed = {**response, "status": "failed", "error": refusal}
    result = run(source, lambda request: Answer(body=response if request.method == "POST" else failed))
    assert isinstance(result.fatal, TooManyFailuresError)
    assert "no such tool" in str(result.fatal)
    assert sent(chatpool_server) < 5000
