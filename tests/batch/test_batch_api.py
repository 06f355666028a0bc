"""The Batch API from submitting to collecting: answers as a run writes them, and what is left goes on as one."""

from __future__ import annotations

import json
import os
import re
import stat
import sys

import pytest
from batch_api_rows import AT_ONCE, batch_rows_at, prompts_asked
from batch_rows import batch_line

from chatpool import ChatPool, ConfigurationError, batch
from chatpool.batch import BatchResult
from chatpool.testing import BatchScenario, Error

EXPIRED = BatchScenario(polls=0, end="expired")


# -- the whole way -------------------------------------------------------------------------------------------------


def test_answers_come_in_the_order_of_the_input(api_with, write_rows, ids, read_lines):
    api = api_with()
    result = api.answer(write_rows(7), rows_per_batch=3)
    assert (result.rows, result.succeeded, result.failed, result.pending) == (7, 7, 0, 0)
    assert ids(api.output) == [f"row {number}" for number in range(7)]
    texts = [line["response"]["body"]["choices"][0]["message"]["content"] for line in read_lines(api.output)]
    assert texts == [f"row {number}" for number in range(7)]
    assert len(api.server.batches) == 3
    assert prompts_asked(api) == []


def without_request_names(text):
    """A text without what is new for every request."""
    return re.sub(rb'"(request_id|id)": ?"(req_|chatcmpl-)\d+"', b"", text).replace(b'": ', b'":').replace(b", ", b",")


@pytest.mark.parametrize("ending", ["jsonl", "csv", "tsv", "txt", "parquet"])
def test_the_output_is_that_of_a_run(ending, api_with, tmp_path):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    source = tmp_path / "in.csv"
    source.write_text("name,text\n" + "".join(f"n{number},hello {number}\n" for number in range(5)))
    options = {"template": "Say {text}", "id_field": "name", "temperature": 0}
    api = api_with()
    ran, collected = tmp_path / f"ran.{ending}", tmp_path / f"collected.{ending}"
    batch.run(source, ran, pool=api.pool, in_order=True, progress=False, **options)
    batch.submit(source, collected, pool=api.pool, rows_per_batch=2, **options)
    batch.wait(collected, pool=api.pool, progress=False)
    batch.collect(collected, pool=api.pool)
    if ending == "parquet":
        import pyarrow.parquet

        assert pyarrow.parquet.read_table(collected).equals(pyarrow.parquet.read_table(ran))
    else:
        assert without_request_names(collected.read_bytes()) == without_request_names(ran.read_bytes())
    assert b"Say hello 4" in collected.read_bytes()


def test_embeddings_become_a_matrix(api_with, tmp_path):
    numpy = pytest.importorskip("numpy")
    source, output = tmp_path / "in.txt", tmp_path / "out.npy"
    source.write_text("one\ntwo\nthree\n")
    api = api_with()
    api.pool = api.pool.with_options(model="text-embedding-x")
    api.output = output
    api.answer(source, url="/v1/embeddings", rows_per_batch=2)
    expected = tmp_path / "ran.npy"
    batch.run(source, expected, pool=api.pool, url="/v1/embeddings", progress=False)
    assert numpy.array_equal(numpy.load(output), numpy.load(expected))
    assert [each["endpoint"] for each in api.server.batches] == ["/v1/embeddings"] * 2


def test_requests_are_completed_as_in_a_run(api_with, tmp_path, read_lines):
    source = tmp_path / "in.txt"
    source.write_text("ping\n")
    api = api_with()
    api.pool = api.pool.with_options(system="Be brief.", defaults={"seed": 7})
    api.submit(source, temperature=0.5, extra_body={"timeout": 5})
    file = tmp_path / "sent.jsonl"
    file.write_bytes(api.server.files[0].content)
    body = {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "ping"}],
        "seed": 7,
        "temperature": 0.5,
        "timeout": 5,
    }
    line = {"custom_id": "row-1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    assert read_lines(file) == [line]


def test_a_submission_is_found_by_its_output_alone(api_with, write_rows, monkeypatch, tmp_path):
    api = api_with()
    api.submit(write_rows(2))
    monkeypatch.chdir(tmp_path)
    assert batch.wait("out.jsonl", base_url=api.server.base_url, api_key="k", progress=False).is_over
    assert batch.collect("out.jsonl", base_url=api.server.base_url, api_key="k").succeeded == 2


def test_the_defaults_of_the_pool_that_collects_do_not_matter(api_with, write_rows, tmp_path):
    source = tmp_path / "in.txt"
    source.write_text("ping\npong\n")
    api = api_with(batches=EXPIRED)
    api.pool = api.pool.with_options(system="Be brief.")
    api.submit(source)
    with ChatPool("other", system="Be long.", base_url=api.server.base_url, api_key="k") as other:
        result = batch.collect(api.output, pool=other, finish_now=True, progress=False)
    assert result.succeeded == 2
    (request,) = api.sent("POST", "/chat/completions")
    assert request.body["model"] == "m"
    assert request.body["messages"][0]["content"] == "Be brief."


def test_answers_may_be_larger_than_an_answer_of_the_pool(api_with, write_rows):
    api = api_with()
    source = write_rows(20)
    api.submit(source)
    with ChatPool("m", base_url=api.server.base_url, api_key="k", max_response_bytes=2000) as pool:
        assert batch.collect(api.output, pool=pool).succeeded == 20
    assert len(api.server.files[-1].content) > 2000


def test_files_may_take_longer_than_an_answer(api_with, write_rows, monkeypatch):
    api, seen, request = api_with(), {}, ChatPool.request

    def note(pool, path, *arguments, **options):
        seen[path] = options.get("timeout")
        return request(pool, path, *arguments, **options)

    monkeypatch.setattr(ChatPool, "request", note)
    api.pool = api.pool.with_options(timeout=30)
    api.answer(write_rows(1))
    assert [(seen[path].attempt, seen[path].total) for path in ("/files", "/files/file-2/content")] == [
        (3600, 7200)
    ] * 2
    assert seen["/batches"] is seen["/batches/batch_1"] is None


# -- what a status says --------------------------------------------------------------------------------------------


def test_the_status_follows_the_batches(api_with, write_rows):
    api = api_with(batches=BatchScenario(polls=None, done=1))
    assert [each.status for each in api.submit(write_rows(4), rows_per_batch=2).batches] == ["validating"] * 2
    api.server.advance()
    status = api.status()
    assert [(each.status, each.completed, each.is_over) for each in status.batches] == [("in_progress", 1, False)] * 2
    assert (status.rows, status.completed, status.is_over, status.is_collected) == (4, 2, False, False)
    assert "2 of 4 rows answered, 0 failed; 2 batches: 2 in_progress" in repr(status)
    while api.server.advance():
        pass
    assert api.status().is_over
    api.collect()
    assert api.status().is_collected
    assert api.status().to_dict()["batches"][1]["number"] == 2


def test_a_status_changes_nothing(api_with, write_rows):
    api = api_with(batches=BatchScenario(polls=None))
    api.submit(write_rows(2))
    before = api.journal
    api.server.advance()
    assert api.status().batches[0].status == "in_progress"
    assert api.journal == before


def test_a_collected_submission_needs_no_server_for_its_status(api_with, write_rows):
    api = api_with()
    api.answer(write_rows(2))
    seen = len(api.server.requests)
    assert api.status().summary() == "2 of 2 rows answered, 0 failed; 1 batch: 1 collected"
    assert len(api.server.requests) == seen


def test_wait_tells_a_function_of_every_look(api_with, write_rows):
    api = api_with(batches=BatchScenario())
    api.submit(write_rows(2))
    seen = []
    batch.wait(api.output, pool=api.pool, progress=lambda facts: seen.append(facts["batches"][0]["status"]))
    assert seen == ["validating", "in_progress", "finalizing", "completed"]


def test_wait_ends_when_its_time_is_over(api_with, write_rows):
    api = api_with(batches=BatchScenario(polls=None))
    api.submit(write_rows(2))
    assert not api.wait(timeout=30).is_over
    looks = len(api.sent("GET", "/batch_1"))
    assert looks > 3
    assert not api.wait(timeout=0).is_over
    assert len(api.sent("GET", "/batch_1")) == looks + 1


def test_the_longer_nothing_changes_the_rarer_the_server_is_asked(api_with, write_rows):
    api = api_with(batches=BatchScenario(polls=None))
    api.submit(write_rows(2))
    api.wait(timeout=3600)
    assert 60 <= len(api.sent("GET", "/batch_1")) <= 75  # two dozen in the first minutes, then once a minute


def test_a_deadline_around_ends_the_wait(api_with, write_rows):
    from chatpool import deadline

    api = api_with(batches=BatchScenario(polls=None))
    api.submit(write_rows(2))
    with deadline(30):
        assert not api.wait().is_over


# -- what is left --------------------------------------------------------------------------------------------------


def test_what_has_expired_is_listed_and_a_run_goes_on(api_with, write_rows, ids, read_lines):
    source = write_rows(4)
    api = api_with(batches=EXPIRED)
    result = api.answer(source)
    assert (result.succeeded, result.failed, result.causes) == (2, 2, {"batch_expired": 2})
    assert ids(api.output) == ["row 0", "row 1"]
    errors = read_lines(api.folder / "out.errors.jsonl")
    assert [(line["custom_id"], line["error"]["code"]) for line in errors] == [
        ("row 2", "batch_expired"),
        ("row 3", "batch_expired"),
    ]
    assert api.run(source).succeeded == 4
    assert sorted(prompts_asked(api)) == ["row 2", "row 3"]
    assert sorted(ids(api.output)) == [f"row {number}" for number in range(4)]


def test_finish_now_sends_what_has_no_answer(api_with, write_rows, ids):
    api = api_with(batches=EXPIRED)
    api.submit(write_rows(4))
    api.wait()
    result = api.collect(finish_now=True)
    assert (result.succeeded, result.failed, result.pending) == (4, 0, 0)
    assert sorted(prompts_asked(api)) == ["row 2", "row 3"]
    assert ids(api.output) == [f"row {number}" for number in range(4)]
    assert api.collect(finish_now=True).succeeded == 4
    assert len(prompts_asked(api)) == 2


def test_finish_now_waits_for_no_batch_that_is_under_way(api_with, write_rows):
    api = api_with(batches=BatchScenario(polls=None))
    api.submit(write_rows(4))
    with pytest.raises(ConfigurationError, match="finish_now would pay rows twice"):
        api.collect(finish_now=True)
    assert prompts_asked(api) == []


def test_a_run_is_refused_while_its_rows_are_in_batches(api_with, write_rows):
    source = write_rows(4)
    api = api_with()
    api.submit(source)
    with pytest.raises(ConfigurationError, match="in a batch of the Batch API and would be paid twice"):
        api.run(source)
    api.wait()
    with pytest.raises(ConfigurationError, match="would be paid twice"):
        api.run(source)
    api.collect()
    assert api.run(source).done_before == 4
    assert prompts_asked(api) == []


def test_rows_that_a_run_has_answered_are_not_submitted(api_with, write_rows, ids):
    source = write_rows(6)
    api = api_with()
    api.run(source, limit=2)
    result = api.answer(source)
    assert batch_rows_at(api.server) == [f"row {number}" for number in range(2, 6)]
    assert result.succeeded == 6
    assert ids(api.output) == [f"row {number}" for number in range(6)]


def test_another_submit_after_collecting_submits_what_has_no_answer(api_with, write_rows, ids):
    source = write_rows(6)
    api = api_with(batches=[EXPIRED, AT_ONCE])
    api.answer(source)
    assert api.answer(source).succeeded == 6
    assert batch_rows_at(api.server)[6:] == ["row 3", "row 4", "row 5"]
    assert ids(api.output) == [f"row {number}" for number in range(6)]
    status = api.submit(source)
    assert (status.batches, status.summary()) == ((), "every row has ended: there is nothing to submit")
    assert len(api.server.batches) == 2


def test_rows_that_the_server_refuses_fail(api_with, write_rows, read_lines):
    api = api_with(batches=BatchScenario(polls=0, rows={"row 1": Error(400), "row 2": Error(500)}))
    source = write_rows(4)
    result = api.answer(source)
    assert (result.succeeded, result.failed) == (2, 2)
    assert result.causes == {"BadRequestError": 1, "InternalServerError": 1}
    errors = {
        line["custom_id"]: line["response"]["status_code"] for line in read_lines(api.folder / "out.errors.jsonl")
    }
    assert errors == {"row 1": 400, "row 2": 500}
    api.run(source)
    assert prompts_asked(api) == ["row 2"]  # the 400 would come again


def test_answers_are_reviewed_by_the_rules_of_a_run(api_with, write_rows):
    api = api_with()
    api.submit(write_rows(3))
    result = api.collect(parse=json.loads)
    assert (result.succeeded, result.failed, result.causes) == (0, 3, {"ParseError": 3})


def test_what_is_over_can_be_collected_while_the_rest_is_under_way(api_with, write_rows, ids):
    api = api_with(batches=[AT_ONCE, BatchScenario(polls=None)])
    api.submit(write_rows(4), rows_per_batch=2)
    result = api.collect()
    assert (result.succeeded, result.pending) == (2, 2)
    assert ids(api.output) == ["row 0", "row 1"]
    while api.server.advance():
        pass
    assert api.collect().succeeded == 4
    assert len(api.sent("GET", "/content")) == 2  # nothing is fetched twice
    assert ids(api.output) == [f"row {number}" for number in range(4)]


# -- the files of a submission -------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="modes of files")
def test_nobody_else_may_read_what_was_submitted(api_with, write_rows):
    api = api_with(batches=BatchScenario(polls=None))
    api.submit(write_rows(2))
    folder = api.folder / "out.batches"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()}
    assert set(modes) >= {"journal", "0001.names"}
    assert {name for name, mode in modes.items() if mode & 0o077} <= {"rows"}  # hashes
    assert not any(b"Bearer" in each.read_bytes() for each in folder.iterdir())


def test_input_files_are_gone_once_their_answers_are_there(api_with, write_rows):
    api = api_with()
    api.answer(write_rows(2))
    assert sorted(os.listdir(api.folder / "out.batches")) == ["journal", "rows"]


def test_lines_are_collected_although_the_input_is_gone(api_with, write_rows, ids):
    source = write_rows(3)
    api = api_with()
    api.submit(source)
    source.unlink()
    assert api.collect().succeeded == 3
    assert ids(api.output) == ["row 0", "row 1", "row 2"]


def test_a_table_needs_the_input_as_it_was(api_with, tmp_path):
    source = tmp_path / "in.csv"
    source.write_text("prompt\none\ntwo\n")
    api = api_with()
    api.output = tmp_path / "out.csv"
    api.submit(source)
    source.write_text("prompt\nanother\n")
    with pytest.raises(ConfigurationError, match=r"the answers are safe in .*out.csv.journal, but .*in.csv is not"):
        api.collect()
    source.write_text("prompt\none\ntwo\n")
    api.collect(fields="prompt,answer")
    assert api.output.read_text() == "prompt,answer\none,one\ntwo,two\n"
    assert len(api.sent("GET", "/content")) == 1


# -- prices --------------------------------------------------------------------------------------------------------


def test_answers_of_the_batch_api_count_half(api_with, write_rows):
    source = write_rows(4)  # two words each, read and written
    api = api_with(batches=EXPIRED)
    api.submit(source)
    result = api.collect(prices=(1e6, 1e6))
    assert (result.usage.total_tokens, result.cost) == (8, pytest.approx(4.0))
    finished = api.collect(prices=(1e6, 1e6), finish_now=True)
    assert finished.cost == pytest.approx(8.0)
    report = batch.report(api.output, prices=(1e6, 1e6))
    assert report.cost == pytest.approx(12.0)
    assert (report.batched, report.attempts, len(report.latencies)) == (2, 2, 2)
    assert "Batch API   2 answers, at half the price" in report.text()


def test_one_call_that_collects_and_finishes_has_the_cost_of_both(api_with, write_rows):
    api = api_with(batches=EXPIRED)
    api.submit(write_rows(4))
    result = api.collect(prices=(1e6, 1e6), finish_now=True)
    assert (result.usage.total_tokens, result.cost) == (16, pytest.approx(12.0))
    assert isinstance(result, BatchResult)


# -- cancelling ----------------------------------------------------------------------------------------------------


def test_cancelled_batches_have_what_was_answered_by_then(api_with, write_rows, ids):
    api = api_with(batches=BatchScenario(polls=None, done=2))
    api.submit(write_rows(4))
    api.server.advance()
    assert [each.status for each in api.cancel().batches] == ["cancelling"]
    while api.server.advance():
        pass
    assert api.wait().batches[0].status == "cancelled"
    result = api.collect()
    assert (result.succeeded, result.causes) == (2, {"batch_cancelled": 2})
    assert ids(api.output) == ["row 0", "row 1"]


def test_to_cancel_what_is_over_changes_nothing(api_with, write_rows):
    api = api_with(batches=BatchScenario(polls=None))
    api.submit(write_rows(4))
    while api.server.advance():
        pass
    assert [each.status for each in api.cancel().batches] == ["completed"]  # it was over before anybody looked
    assert api.collect().succeeded == 4


# -- what cannot work ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [batch.status, batch.wait, batch.collect, batch.cancel])
def test_an_output_without_a_submission_is_refused(function, tmp_path, chatpool_pool):
    with pytest.raises(ConfigurationError, match="nothing was submitted for this output"):
        function(tmp_path / "out.jsonl", pool=chatpool_pool)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("function", [batch.status, batch.wait, batch.collect, batch.cancel])
def test_a_body_field_has_no_place_after_submitting(function, api_with, write_rows):
    api = api_with(batches=BatchScenario(polls=None))
    api.submit(write_rows(1))
    with pytest.raises(TypeError, match="unexpected keyword argument 'temperature'"):
        function(api.output, base_url=api.server.base_url, temperature=0)


def test_a_pool_of_another_server_is_refused(api_with, write_rows, chatpool_server_factory):
    api = api_with(batches=BatchScenario(polls=None))
    api.submit(write_rows(1))
    other = chatpool_server_factory()
    for function in (batch.status, batch.wait, batch.collect, batch.cancel):
        with pytest.raises(ConfigurationError, match="pass the base_url that they were submitted with"):
            function(api.output, base_url=other.base_url, api_key="k")
    assert other.requests == []


def test_another_input_to_the_same_output_is_refused_until_the_answers_are_there(api_with, write_rows):
    source, other = write_rows(2), write_rows(3, "other.jsonl")
    api = api_with(batches=BatchScenario(polls=None))
    api.submit(source)
    with pytest.raises(ConfigurationError, match="another input and fingerprint: collect their answers first"):
        api.submit(other)
    with pytest.raises(ConfigurationError, match="another request"):
        api.submit(source, temperature=0)
    source.write_text(batch_line("row 0", "changed"))
    with pytest.raises(ConfigurationError, match="another fingerprint"):
        api.submit(source)
    assert len(api.server.batches) == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rows_per_batch": 0}, ConfigurationError, "rows_per_batch"),
        ({"rows_per_batch": 50_001}, ConfigurationError, "rows_per_batch must be 50,000 at most"),
        ({"tokens_per_batch": "many"}, TypeError, "tokens_per_batch"),
        ({"completion_window": 24}, TypeError, "completion_window must be a text"),
        ({"metadata": {"run": 7}}, TypeError, "metadata must map texts to texts"),
        ({"metadata": {"run": "7" * 513}}, ConfigurationError, "metadata must have names of 64 characters"),
        ({"metadata": {"chatpool_try": "7"}}, ConfigurationError, "none of chatpool_submission"),
        ({"metadata": "run"}, TypeError, "metadata must be a dict"),
        ({"metadata": {str(number): "" for number in range(14)}}, ConfigurationError, "metadata must have 13 names"),
        ({"limit": 0}, ConfigurationError, "limit"),
        ({"parse": {}}, TypeError, "parse"),
        ({"stream": True}, TypeError, "stream"),
    ],
)
def test_a_wrong_argument_is_named(options, error, message, api_with, write_rows):
    api = api_with()
    with pytest.raises(error, match=message):
        api.submit(write_rows(1), **options)
    assert api.server.requests == []
    assert not (api.folder / "out.batches").exists()


def test_standard_streams_are_refused(api_with, write_rows):
    api = api_with()
    with pytest.raises(ConfigurationError, match="input must be a file"):
        api.submit("-")
    with pytest.raises(ConfigurationError, match="output must be a file"):
        batch.submit(write_rows(1), "-", pool=api.pool)


def test_a_wrong_timeout_is_named(api_with, write_rows):
    api = api_with()
    api.submit(write_rows(1))
    with pytest.raises(ConfigurationError, match="timeout"):
        api.wait(timeout=-1)
