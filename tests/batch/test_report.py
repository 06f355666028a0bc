"""What a report says about the files of a run."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import re
from pathlib import Path

import pytest

import chatpool
from chatpool import ChatPool, ConfigurationError
from chatpool._journal import OK, RETRY, Journal, Record, decode_record
from chatpool._journal.record import encode_record
from chatpool.batch.timeline import Exchanges, Timeline
from chatpool.testing import Delay, Error
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


def test_bins_divide_the_time_evenly_and_the_first_row_to_end_need_not_be_the_first_to_start(ended):
    bins = timeline_of(ended(1009.0, (1.0, None)), ended(1010.5, (10.5, None))).histogram()
    assert (bins.width, len(bins.in_flight)) == (1.05, 10)
    assert (bins.in_flight[0], bins.in_flight[-1]) == pytest.approx((1.0, 1.0))


def simulated_records(workers, rng):
    """The records of a run whose rows fail up to five times and wait for a worker longer than was decided."""
    free, due = [0.0] * workers, [(0.0, row, ()) for row in range(600)]
    ends = {}
    while due:
        due.sort()
        worker = min(range(workers), key=free.__getitem__)
        ready, row, attempts = due.pop(0)
        start, seconds = max(free[worker], ready), rng.uniform(0.05, 0.6)
        if attempts:
            first_sent, ended_before = ends[row]
            attempts = (*attempts[:-1], attempts[-1]._replace(wait=start - ended_before))
        else:
            first_sent = start
        free[worker] = end = start + seconds
        ends[row] = first_sent, end
        if len(attempts) < 5 and rng.random() < 0.4:
            failed = Attempt("503", 503, 0.0, seconds, None)
            due.append((end + rng.uniform(0.0, 3.0), row, (*attempts, failed)))
        else:
            attempts = (*attempts, Attempt("ok", 200, None, seconds, None))
            yield Record(row + 1, OK, "0" * 32, str(row), row, 1e9 + end, end - first_sent, attempts)


def test_no_bin_has_more_attempts_in_flight_than_there_are_workers():
    records = list(simulated_records(16, random.Random(1)))
    stored = [decode_record(encode_record(record)) for record in sorted(records, key=lambda record: record.at)]
    bins = timeline_of(*stored, runs=[1e9]).histogram()
    assert max(bins.in_flight) <= 16.02  # times are rounded to milliseconds
    busy_seconds = sum(attempt.elapsed for record in records for attempt in record.attempts)
    assert sum(bins.in_flight) * bins.width == pytest.approx(busy_seconds, rel=1e-3)


@pytest.mark.slow
def test_nor_has_one_in_the_journal_of_a_run_with_many_retries(write_rows, chatpool_server, tmp_path):
    numbers = itertools.count()
    chatpool_server.set_script(lambda request: Error(503) if next(numbers) % 3 == 0 else Delay(0.02))
    options = {"base_url": chatpool_server.base_url, "max_workers": 4, "progress": False}
    chatpool.batch.run(write_rows(400), tmp_path / "out.jsonl", **options)
    report = chatpool.batch.report(tmp_path / "out.jsonl")
    assert report.attempts > 500
    assert max(report.timeline.histogram().in_flight) <= 4.05


def test_the_time_between_two_runs_is_left_out_however_short_it_is(ended):
    records = [ended(1001.0, (1.0, None)), ended(1012.0, (2.0, None))]
    assert timeline_of(*records, runs=[1000.0, 1009.5]).seconds == pytest.approx(3.5)
    assert timeline_of(*records).seconds == pytest.approx(12.0)


# -- what is one exchange -------------------------------------------------------------------------------------------


@pytest.fixture
def embedded(chatpool_server, tmp_path):
    """``embedded(count, **options)`` embeds so many texts and returns the report."""

    def make(count, **options):
        source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
        source.write_text("".join(f"text {number}\n" for number in range(count)))
        options = {"url": "/v1/embeddings", "model": "e", "base_url": chatpool_server.base_url, **options}
        chatpool.batch.run(source, target, progress=False, **options)
        return chatpool.batch.report(target)

    return make


def test_rows_of_one_request_are_one_exchange(embedded, chatpool_server):
    report = embedded(20, max_pack=5)
    assert (report.rows, report.attempts, len(report.latencies)) == (20, len(chatpool_server.requests), 4)


def test_a_request_that_was_sent_again_in_parts_is_counted_once(embedded, chatpool_server):
    chatpool_server.enqueue(Error(400))
    report = embedded(8)
    assert report.succeeded == 8
    assert report.attempts == len(chatpool_server.requests) > 1
    assert len(report.refused_latencies) == 1


def test_attempts_before_a_retry_are_counted_once(tmp_path, chatpool_server, instant_waits):
    journal = tmp_path / "run.journal"
    with ChatPool("m", base_url=chatpool_server.base_url, retry=1) as pool:
        chatpool_server.set_script({"a": Error(503)})
        replies = pool.map(["a", "b"], journal=journal, progress=False)
        pool.retry(replies, progress=False)
        chatpool_server.set_script(None)
        pool.retry(replies, progress=False)
    report = chatpool.batch.report(journal)
    assert (report.rows, report.failed) == (2, 0)
    assert report.attempts == len(chatpool_server.requests) == 6


# -- options --------------------------------------------------------------------------------------------------------


def test_it_knows_the_options_of_each_run(write_rows, chatpool_server, tmp_path):
    target, rows = tmp_path / "out.jsonl", write_rows(4)
    options = {"base_url": chatpool_server.base_url, "progress": False, "temperature": 0.5}
    chatpool.batch.run(rows, target, limit=2, max_workers=3, **options)
    chatpool.batch.run(rows, target, timeout=7, retry=2, **options)
    chatpool.batch.run(rows, target, **options)  # sends nothing
    (first_at, first), (second_at, second) = chatpool.batch.report(target).runs
    assert first_at <= second_at
    assert (first["max_workers"], second["max_workers"]) == (3, 16)
    assert first["base_url"] == chatpool_server.base_url
    assert first["parameters"] == {"temperature": 0.5}
    assert (second["timeout"]["attempt"], second["retry"]["max_retries"]) == (7, 2)


@pytest.mark.slow
def test_several_processes_note_one_run(write_rows, chatpool_server, tmp_path):
    target = tmp_path / "out.jsonl"
    chatpool.batch.run(write_rows(6), target, base_url=chatpool_server.base_url, progress=False, processes=2)
    report = chatpool.batch.report(target)
    assert (report.rows, [options["processes"] for _, options in report.runs]) == (6, [2])


def test_its_repr_is_one_line_and_a_notebook_shows_its_facts(made):
    report = chatpool.batch.report(made, prices=(20, 80))
    assert re.fullmatch(
        r"<Report of \S+out.jsonl: 10 rows, 9 answered, 1 failed; 36 tokens; \$0.0018; [\d.]+ s>", repr(report)
    )
    shown = report._repr_html_()
    for words in ("1 x HTTP 400 too_long", "14, 4 of them made again", "change the request", "$0.0018"):
        assert words in shown


@pytest.mark.parametrize("name", ["mixed.jsonl.out.jsonl", "odd.csv.out.journal"])
def test_files_of_version_0_1_0_have_no_options_and_all_of_the_rest(name):
    report = chatpool.batch.report(Path(__file__).with_name("written_by_0_1_0") / name)
    assert (report.runs, report.failed) == ([], 0)
    assert report.attempts == report.rows == len(report.latencies) > 0
    assert "Options" not in report.html()
