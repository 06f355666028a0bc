"""What a report says about the files of a run."""

from __future__ import annotations

import gzip
import json

import pytest

import chatpool
from chatpool import ChatPool, ConfigurationError
from chatpool._journal import OK, RETRY, Journal, Record
from chatpool.batch.timeline import Exchanges, Timeline
from chatpool.testing import Error
from chatpool.types import Attempt


@pytest.fixture
def made(write_rows, chatpool_server, tmp_path, instant_waits):
    """A run of ten rows: one refused, and four attempts made again."""
    chatpool_server.set_script(lambda request: Error(400, code="too_long") if request.prompt == "row 3" else None)
    chatpool_server.enqueue(*[Error(503)] * 4)
    target = tmp_path / "out.jsonl"
    chatpool.batch.run(write_rows(10), target, base_url=chatpool_server.base_url, max_workers=2, progress=False)
    return target


def test_it_counts_rows_failures_tokens_and_attempts(made):
    report = chatpool.batch.report(made, prices=(1_000_000, 0))
    assert (report.rows, report.succeeded, report.failed) == (10, 9, 1)
    assert dict(report.failures) == {"HTTP 400 too_long": 1}
    assert report.usage.total_tokens == 9 * 4
    assert report.cost == report.usage.prompt_tokens
    assert dict(report.models) == {"m": 9}
    assert report.attempts == 14
    assert report.waited > 0
    assert len(report.latencies) == 10
    assert report.percentiles()[1.0] == max(report.latencies)


def test_its_text_is_for_a_terminal(made):
    lines = chatpool.batch.report(made, prices=(2, 8)).text().splitlines()
    assert lines[0] == "rows        10: 9 answered, 1 failed"
    assert lines[1] == "            1 x HTTP 400 too_long"
    assert [line.split()[0] for line in lines[2:]] == ["tokens", "cost", "latency", "time", "attempts", "waits"]
    assert "14, 4 of them made again" in lines[-2]


def test_a_run_that_went_on_counts_every_row_once(made, write_rows, chatpool_server, tmp_path):
    chatpool_server.set_script(None)
    source = tmp_path / "in.jsonl"
    chatpool.batch.run(source, made, base_url=chatpool_server.base_url, progress=False, retry_failed=True)
    report = chatpool.batch.report(made)
    assert (report.rows, report.failed, report.attempts) == (10, 0, 15)


def test_without_a_journal_it_says_what_the_outputs_say(made, tmp_path):
    (tmp_path / "out.journal").unlink()
    report = chatpool.batch.report(made)
    assert (report.rows, report.failed, report.attempts, report.seconds) == (10, 1, 0, 0.0)
    assert dict(report.failures) == {"HTTP 400 too_long": 1}
    assert [line.split()[0] for line in report.text().splitlines()] == ["rows", "1", "tokens"]


BATCH_API = [
    {
        "id": "batch_req_1",
        "custom_id": "request-2",
        "response": {
            "status_code": 200,
            "request_id": "req_1",
            "body": {
                "id": "chatcmpl-1",
                "model": "gpt-4o-mini",
                "choices": [{"message": {"role": "assistant", "content": "Hello."}}],
                "usage": {"prompt_tokens": 22, "completion_tokens": 2, "total_tokens": 24},
            },
        },
        "error": None,
    },
    {"id": "b", "custom_id": "x", "response": None, "error": {"code": "batch_expired", "message": "too late"}},
    {
        "id": "c",
        "custom_id": "y",
        "response": {"status_code": 400, "request_id": "r", "body": {"error": {"code": "bad", "message": "m"}}},
        "error": None,
    },
    {"id": "vllm-1", "custom_id": "z", "response": {"status_code": 500, "body": None}, "error": "boom"},
    [{"model": "m"}, {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}, {"row": 1}],
    [{"model": "m"}, [{"error": {"type": "server_error"}}]],
    [{"model": "m"}, ["timed out"]],
]


@pytest.mark.parametrize("name", ["batch_output.jsonl", "batch_output.jsonl.gz"])
def test_files_of_the_batch_api_of_vllm_and_of_the_cookbook_are_read(tmp_path, name):
    path = tmp_path / name
    text = "".join(json.dumps(line) + "\n" for line in BATCH_API).encode()
    path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    report = chatpool.batch.report(path)
    assert (report.succeeded, report.failed, report.usage.prompt_tokens) == (2, 5, 23)
    assert dict(report.failures) == {
        "batch_expired": 1,
        "HTTP 400 bad": 1,
        "HTTP 500 boom": 1,
        "server_error": 1,
        "timed out": 1,
    }


def test_absurd_numbers_of_one_answer_cost_the_report_nothing_else(tmp_path):
    lines = [
        '{"response": {"body": {"usage": {"prompt_tokens": ' + number + "}}}}"
        for number in ("9" * 5000, "9" * 400, "7", "1e400")
    ]
    output = tmp_path / "out.jsonl"
    output.write_text("\n".join(lines))
    made = chatpool.batch.report(output)
    assert (made.succeeded, made.usage.prompt_tokens) == (4, 7)
    assert "7 read" in made.text()


def test_a_journal_of_map_is_read(tmp_path, chatpool_server):
    with ChatPool("m", base_url=chatpool_server.base_url) as pool:
        pool.map(["a", "b"], journal=tmp_path / "run.journal")
    report = chatpool.batch.report(tmp_path / "run.journal")
    assert (report.rows, report.attempts) == (2, 2)


def test_a_run_that_is_under_way_can_be_looked_at(made, tmp_path):
    with Journal(tmp_path / "out.journal"):
        assert chatpool.batch.report(made).rows == 10


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}\n", "line 1 of .* is no line of a batch output"),
        ("oops\n", "line 1 of"),
        ("", "has no line"),
        (None, "No such"),
    ],
)
def test_other_files_are_refused(tmp_path, content, words):
    path = tmp_path / "x.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=words):
        chatpool.batch.report(path)


def test_of_a_table_whose_journal_has_another_name_the_error_names_the_journal(write_rows, chatpool_server, tmp_path):
    target, journal = tmp_path / "out.csv", tmp_path / "a.journal"
    chatpool.batch.run(write_rows(2), target, journal=journal, base_url=chatpool_server.base_url, progress=False)
    with pytest.raises(
        ConfigurationError, match="no line of a batch output.*whose output is a table, name the journal"
    ):
        chatpool.batch.report(target)
    assert chatpool.batch.report(journal).succeeded == 2


# -- time -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ended():
    """``ended(at, (seconds, wait), ...)`` makes the record of a row with these attempts."""

    def make(at, *attempts, state=OK):
        elapsed = sum(seconds + (wait or 0.0) for seconds, wait in attempts)
        history = tuple(Attempt("ok", 200, wait, seconds, None) for seconds, wait in attempts)
        return Record(1, state, "0" * 32, "a", 0, at, elapsed, history)

    return make


def timeline_of(*records, runs=()):
    timeline, exchanges = Timeline(runs), Exchanges()
    for record in records:
        timeline.add(record, exchanges.of(record))
    return timeline


def test_a_pause_between_runs_is_left_out(ended):
    assert timeline_of(*(ended(at, (1.0, None)) for at in (1001.0, 1002.0, 9001.0, 9002.0))).seconds == pytest.approx(4)


def test_slots_add_up_to_what_happened(ended):
    slots = timeline_of(ended(1010.0, (2.0, 3.0), (5.0, None)), ended(1011.0, (1.0, None), state=RETRY)).histogram()
    assert (sum(slots.answered), sum(slots.failed), sum(slots.refused)) == (1, 1, 1)
    assert sum(slots.in_flight) * slots.width == pytest.approx(8.0)
    assert max(slots.in_flight) <= 1.01


def test_a_wait_that_took_longer_than_was_decided_is_between_the_attempts():
    """No worker was free at its end: the first attempt begins with the row, and the last ends with it."""
    history = (Attempt("503", 503, 2.0, 1.0, None), Attempt("ok", 200, None, 1.0, None))
    bins = timeline_of(Record(1, OK, "0" * 32, "a", 0, 1010.0, 10.0, history)).histogram()
    assert bins.width == 1.0
    assert [index for index, busy in enumerate(bins.in_flight) if busy > 0.5] == [0, 9]
    assert bins.refused[1] == 1


def test_bins_are_a_second_long_at_least(ended):
    assert timeline_of(ended(1000.2, (0.2, None))).histogram().width == 1.0
