"""Batch runs: what is written, what a second run does, and what ends one."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import re
import socket
import subprocess
import sys
import tempfile

import pytest
from batch_rows import ROOT, batch_line

import chatpool
from chatpool import ChatPoolError, ConfigurationError, JournalBusyError, errors
from chatpool._journal import Journal
from chatpool.batch import BatchResult
from chatpool.prices import dollars
from chatpool.testing import Answer, EachCall, Error, FakeServer, Stall


@pytest.fixture
def target(tmp_path):
    return tmp_path / "out.jsonl"


@pytest.fixture
def run(pool, target):
    """``run(source, **options)`` runs it against the test's server, without a bar."""
    return lambda source, **options: chatpool.batch.run(source, target, pool=pool, progress=False, **options)


def test_answers_are_lines_as_the_batch_api_writes_them(run, write_rows, target, read_lines, chatpool_server):
    result = run(write_rows(1))
    (line,) = read_lines(target)
    assert list(line) == ["id", "custom_id", "response", "error"]
    assert list(line["response"]) == ["status_code", "request_id", "body"]
    assert (line["custom_id"], line["error"]) == ("row 0", None)
    assert (line["response"]["status_code"], line["response"]["request_id"]) == (200, "req_0")
    assert line["response"]["body"]["choices"][0]["message"]["content"] == "row 0"
    assert line["id"].startswith("batch_req_")
    assert chatpool_server.requests[0].path == "/v1/chat/completions"
    assert (result.rows, result.succeeded, result.failed, result.pending) == (1, 1, 0, 0)


def test_refusals_are_lines_of_the_error_file(run, write_rows, chatpool_server, tmp_path, read_lines, target):
    chatpool_server.set_script({"row 1": Error(400, "too long", code="context_length_exceeded")})
    result = run(write_rows(3))
    (line,) = read_lines(tmp_path / "out.errors.jsonl")
    assert list(line) == ["id", "custom_id", "response", "error"]
    assert (line["custom_id"], line["error"], line["response"]["status_code"]) == ("row 1", None, 400)
    assert line["response"]["body"]["error"]["code"] == "context_length_exceeded"
    assert (result.succeeded, result.failed, result.causes) == (2, 1, {"BadRequestError": 1})
    assert len(read_lines(target)) == 2


@pytest.mark.parametrize(
    ("step", "code"), [(Answer(body=b"<html>"), "unusable_answer"), (Stall(), "timeout"), (None, "connection_error")]
)
def test_what_got_no_answer_says_why(write_rows, tmp_path, read_lines, target, step, code):
    with FakeServer(step) as server:
        url = server.base_url if step else "http://127.0.0.1:1/v1"
        chatpool.batch.run(write_rows(1), target, base_url=url, retry=0, timeout=0.2, progress=False)
    (line,) = read_lines(tmp_path / "out.errors.jsonl")
    assert (line["response"], line["error"]["code"]) == (None, code)
    assert line["error"]["message"]


def test_errors_of_other_shapes_are_put_into_that_of_openai(run, write_rows, chatpool_server, tmp_path, read_lines):
    chatpool_server.set_script(Answer(status=422, body={"detail": [{"msg": "bad field"}]}))
    run(write_rows(1))
    (line,) = read_lines(tmp_path / "out.errors.jsonl")
    assert list(line["response"]["body"]["error"]) == ["message", "type", "param", "code"]
    assert "bad field" in line["response"]["body"]["error"]["message"]


def test_a_row_that_cannot_be_sent_is_a_failure_and_costs_no_request(run, tmp_path, read_lines, chatpool_server):
    source = tmp_path / "in.jsonl"
    source.write_text(batch_line("good", "x") + batch_line("streams", "x", stream=True))
    for done_before in (0, 2):
        result = run(source)
        assert (result.succeeded, result.failed, result.done_before) == (1, 1, done_before)
    (line,) = read_lines(tmp_path / "out.errors.jsonl")
    assert line["error"]["code"] == "invalid_request"
    assert line["error"]["message"].startswith("line 2: ")
    assert len(chatpool_server.requests) == 1


# -- the second run -------------------------------------------------------------------------------------------------


def test_a_second_run_sends_nothing_that_is_done_or_can_never_be(
    run, write_rows, chatpool_server, ids, target, tmp_path
):
    chatpool_server.set_script({"row 1": Error(400), "row 2": Error(503), "row 3": Error(429, code="slow_down")})
    source = write_rows(5)
    assert run(source).failed == 3
    chatpool_server.set_script(None)
    before = len(chatpool_server.requests)
    result = run(source)
    assert sorted(request.prompt for request in chatpool_server.requests[before:]) == ["row 2", "row 3"]
    assert (result.succeeded, result.failed, result.done_before) == (4, 1, 3)
    assert sorted(ids(target)) == ["row 0", "row 2", "row 3", "row 4"]
    assert ids(tmp_path / "out.errors.jsonl") == ["row 1"]


def test_a_changed_row_runs_again_and_its_old_answer_is_gone(run, write_rows, chatpool_server, read_lines, target):
    run(write_rows(3))
    source = write_rows(3)
    source.write_text(source.read_text().replace('"content": "row 1"', '"content": "changed"'))
    result = run(source)
    assert [request.prompt for request in chatpool_server.requests[3:]] == ["changed"]
    assert result.done_before == 2
    said = {
        line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"] for line in read_lines(target)
    }
    assert said == {"row 0": "row 0", "row 1": "changed", "row 2": "row 2"}


def test_another_model_is_another_request(pool, tmp_path, target, chatpool_server):
    source = tmp_path / "in.txt"
    source.write_text("one\ntwo\n")
    for model in ("m", "n", "n"):
        chatpool.batch.run(source, target, pool=pool.with_options(model=model), progress=False)
    assert [request.body["model"] for request in chatpool_server.requests] == ["m", "m", "n", "n"]
    assert len(target.read_text().splitlines()) == 2


def test_rows_without_names_are_known_by_their_place_and_content(run, tmp_path, chatpool_server, ids, target):
    source = tmp_path / "in.txt"
    source.write_text("same\nsame\n")
    assert run(source).succeeded == 2
    assert sorted(ids(target)) == ["row-1", "row-2"]
    source.write_text("same\nother\nthird\n")
    run(source)
    assert sorted(request.prompt for request in chatpool_server.requests) == ["other", "same", "same", "third"]
    assert sorted(ids(target)) == ["row-1", "row-2", "row-3"]


def test_outputs_that_were_lost_are_made_again_from_the_journal(run, write_rows, target, chatpool_server, tmp_path):
    chatpool_server.set_script({"row 1": Error(400)})
    source = write_rows(3)
    run(source)
    files = [target, tmp_path / "out.errors.jsonl"]
    before = [file.read_bytes() for file in files]
    target.write_bytes(before[0][:-20])
    files[1].unlink()
    run(source)
    # The journal has the order in which calls ended, the output that in which they were written: lines have none.
    assert [sorted(file.read_bytes().splitlines()) for file in files] == [sorted(old.splitlines()) for old in before]
    assert len(chatpool_server.requests) == 3


def test_retry_failed_runs_only_failures(run, write_rows, chatpool_server, tmp_path, ids):
    chatpool_server.set_script({"row 1": Error(400), "row 2": Error(503)})
    run(write_rows(3), limit=3)
    source = write_rows(5)
    chatpool_server.set_script(None)
    result = run(source, retry_failed="503")
    assert [request.prompt for request in chatpool_server.requests[3:]] == ["row 2"]
    assert (result.rows, result.succeeded) == (1, 1)
    result = run(source, retry_failed=True)
    assert [request.prompt for request in chatpool_server.requests[4:]] == ["row 1"]
    assert ids(tmp_path / "out.errors.jsonl") == []
    assert run(source, retry_failed=True).rows == 0
    assert run(source).succeeded == 5


@pytest.mark.parametrize("is_stream", [False, True])
def test_where_no_run_was_before_none_has_failed(run, write_rows, chatpool_server, caplog, monkeypatch, is_stream):
    source = write_rows(3)
    if is_stream:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(source.read_bytes())))
    result = run("-" if is_stream else source, retry_failed=True)
    assert (result.rows, result.pending, chatpool_server.requests) == (0, 0, [])
    assert "no earlier run is in " in caplog.text
    assert run(source).succeeded == 3


@pytest.mark.parametrize("kind", ["BadRequestError", "badrequesterror, timeout", ["400"], "invalid_request_error"])
def test_kinds_of_failures_are_classes_statuses_and_codes(run, write_rows, chatpool_server, kind):
    chatpool_server.set_script({"row 1": Error(400), "row 2": Error(503)})
    source = write_rows(3)
    run(source)
    run(source, retry_failed=kind)
    assert [request.prompt for request in chatpool_server.requests[3:]] == ["row 1"]


# -- which rows -----------------------------------------------------------------------------------------------------


def test_a_limit_takes_the_first_rows_and_the_rest_can_follow(run, write_rows, chatpool_server, ids, target):
    source = write_rows(6)
    assert run(source, limit=2).rows == 2
    assert sorted(ids(target)) == ["row 0", "row 1"]
    assert run(source).rows == 6
    assert len(chatpool_server.requests) == 6
    assert run(source, limit=1).done_before == 1
    assert len(ids(target)) == 6


def test_a_sample_is_the_same_every_time(run, write_rows, chatpool_server, ids, target):
    source = write_rows(40)
    for _ in range(2):
        assert run(source, sample=5).rows == 5
    assert len(chatpool_server.requests) == 5
    assert len(set(ids(target)) - {f"row {number}" for number in range(5)}) > 0
    assert run(source, sample=100).rows == 40


def test_a_dry_run_sends_and_writes_nothing(run, write_rows, chatpool_server, target, tmp_path):
    source = write_rows(4)
    result = run(source, dry_run=True)
    assert (result.rows, result.pending, result.estimated_tokens) == (4, 4, 21)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    run(source, limit=3)
    result = run(source, dry_run=True)
    assert (result.pending, result.done_before) == (1, 3)
    assert len(chatpool_server.requests) == 3


def test_in_order_puts_the_output_into_the_order_of_the_input(run, write_rows, chatpool_server, ids, target, tmp_path):
    chatpool_server.set_script({"row 2": EachCall(Answer("late"))})
    run(write_rows(3, "other.jsonl").rename(tmp_path / "first.jsonl"), limit=1)
    source = write_rows(50)
    result = run(source, in_order=True)
    assert result.succeeded == 50
    assert ids(target) == [f"row {number}" for number in range(50)]


@pytest.mark.parametrize("in_order", [False, True])
def test_rows_that_have_left_the_input_leave_the_output_and_come_back_with_it(
    run, write_rows, ids, target, tmp_path, chatpool_server, in_order
):
    run(write_rows(4))
    source = tmp_path / "two.jsonl"
    source.write_text(batch_line("new", "new") + batch_line("row 2", "row 2"))
    result = run(source, in_order=in_order)
    assert sorted(ids(target)) == ["new", "row 2"]
    assert (result.rows, result.succeeded, result.removed_rows) == (2, 2, 3)
    assert "3 have left the input and are left out of the output" in result.summary()
    assert chatpool.batch.report(target).rows == 2
    assert run(source).removed_rows == 0
    result = run(write_rows(4), in_order=in_order)
    assert (result.succeeded, result.done_before, result.removed_rows) == (4, 4, 1)
    assert sorted(ids(target)) == [f"row {number}" for number in range(4)]
    assert chatpool.batch.report(target).rows == 4
    assert len(chatpool_server.requests) == 5


# -- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{oops", "not JSON: Expecting property name"),
        ('{"custom_id": "a", "body": {"messages": [], "seed": ' + "9" * 5000 + "}}", "not JSON that can be read"),
        ("[1]", "a line that is a list must be"),
        ("7", "a line must be a JSON object, got a number"),
        ('{"custom_id": "x", "url": "/v1/chat/completions", "body": []}', "'body' must be an object, got a list"),
        ('{"custom_id": 7, "url": "/v1/chat/completions", "body": {}}', "'custom_id' must be a text"),
        ('{"custom_id": "x", "url": "http://x", "body": {}}', "'url' must be a path"),
        ('{"custom_id": "x", "method": "GET", "url": "/v1/x", "body": {}}', "'method' must be POST"),
        ('{"name": "x"}', "neither 'body', 'messages', 'prompt' nor 'input'"),
    ],
)
def test_a_bad_line_is_named_before_anything_is_sent(run, tmp_path, chatpool_server, line, reason):
    source = tmp_path / "in.jsonl"
    source.write_text(batch_line("a", "a") + "\n" + line + "\n" + batch_line("b", "b"))
    with pytest.raises(ConfigurationError, match="line 3 of .*in.jsonl cannot be used: ") as caught:
        run(source)
    assert reason in str(caught.value)
    assert chatpool_server.requests == []
    result = run(source, skip_bad_lines=True)
    assert (result.rows, result.succeeded, result.bad_line_count) == (2, 2, 1)
    assert result.bad_lines[0][0] == 3


def test_a_name_that_comes_twice_is_refused_before_anything_is_sent(run, tmp_path, chatpool_server):
    source = tmp_path / "in.jsonl"
    source.write_text(batch_line("a", "1") + batch_line("b", "2") + batch_line("a", "3"))
    with pytest.raises(ConfigurationError, match="line 3 of .*: the custom_id 'a' was there before"):
        run(source)
    assert chatpool_server.requests == []


def test_an_output_that_is_somebody_elses_is_left_alone(run, write_rows, target):
    target.write_text("precious\n")
    with pytest.raises(ConfigurationError, match="is there already"):
        run(write_rows(1))
    assert target.read_text() == "precious\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"limit": 0}, "limit must be at least 1"),
        ({"limit": 1, "sample": 1}, "limit or sample"),
        ({"url": "/v1/nonsense"}, "url must be one of"),
        ({"template": "{a}", "column": "b"}, "not both"),
        ({"template": "no place"}, "has no place"),
        ({"template": "{a!r}"}, "nothing but a name"),
        ({"template": "{a"}, "template '{a'"),
        ({"prices": (1, -1)}, "must not be negative"),
        ({"prices": "no/such/file.json"}, "prices cannot be read"),
        ({"processes": 0}, "processes"),
    ],
)
def test_options_that_cannot_work_are_refused(run, write_rows, options, words):
    with pytest.raises(ConfigurationError, match=words):
        run(write_rows(1), **options)


def test_no_number_of_processes_is_a_type_error(run, write_rows):
    with pytest.raises(TypeError, match="processes must be a whole number"):
        run(write_rows(1), processes=None)


def test_pool_options_beside_a_pool_are_refused(run, write_rows):
    with pytest.raises(TypeError, match="leave out max_workers="):
        run(write_rows(1), max_workers=3)


def test_other_options_are_body_fields_and_options_of_a_pool(write_rows, target, chatpool_server):
    options = {"base_url": chatpool_server.base_url, "max_workers": 2, "system": "Be brief."}
    chatpool.batch.run(write_rows(1), target, temperature=0, progress=False, **options)
    (request,) = chatpool_server.requests
    assert request.body["temperature"] == 0
    assert request.body["messages"][0] == {"role": "system", "content": "Be brief."}


def test_body_fields_with_the_names_of_arguments_go_into_extra_body(run, write_rows, chatpool_server):
    fields = {"timeout": 5, "temperature": 1}
    run(write_rows(1), temperature=0, extra_body=fields)
    (request,) = chatpool_server.requests
    assert {name: request.body[name] for name in fields} == fields
    assert "extra_body" not in request.body


@pytest.mark.parametrize("options", [{"extra_body": [1]}, {"on_error": "raise"}])
def test_what_is_no_body_field_is_refused_before_anything_is_sent(run, write_rows, chatpool_server, options):
    with pytest.raises(TypeError, match="extra_body"):
        run(write_rows(1), **options)
    assert not chatpool_server.requests


def test_openais_server_is_not_asked_without_a_model(tmp_path, target):
    source = tmp_path / "in.txt"
    source.write_text("hello\n")
    with pytest.raises(ConfigurationError, match="line 1 names no model"):
        chatpool.batch.run(source, target, api_key="k", progress=False)


# -- ends -----------------------------------------------------------------------------------------------------------


def test_a_fatal_error_leaves_what_was_not_sent_pending(run, write_rows, chatpool_server, ids, tmp_path, target):
    chatpool_server.set_script(Error(401))
    source = write_rows(500)
    result = run(source)
    assert type(result.fatal).__name__ == "AuthenticationError"
    sent = {request.prompt for request in chatpool_server.requests}
    assert set(ids(tmp_path / "out.errors.jsonl")) == sent
    assert len(sent) <= 4
    assert result.pending == 500 - len(sent)
    chatpool_server.set_script(None)
    assert run(source).succeeded == 500
    assert ids(tmp_path / "out.errors.jsonl") == []


def test_an_unknown_model_ends_its_own_rows_only(run, tmp_path, chatpool_server, ids, target):
    chatpool_server.set_script(lambda request: Error(404) if request.body["model"] == "gone" else None)
    source = tmp_path / "in.jsonl"
    lines = [batch_line(f"{model} {number}", "x", model=model) for number in range(40) for model in ("m", "gone")]
    source.write_text("".join(lines))
    result = run(source)
    assert len(ids(target)) == 40
    assert result.fatal is not None
    assert result.pending + result.failed == 40
    assert result.failed <= 8


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(write_rows, tmp_path, chatpool_server, ids):
    source, target = write_rows(200), tmp_path / "out.jsonl"
    program = f"""
import resource, sys
import chatpool
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
result = chatpool.batch.run({str(source)!r}, {str(target)!r}, base_url={chatpool_server.base_url!r}, progress=False)
print(result.succeeded)
"""

    def start(limit):
        return subprocess.run(
            [sys.executable, "-c", program, str(limit)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    ended = start(30_000)
    assert ended.returncode == 1
    assert f"OSError: [Errno {errno.EFBIG}] cannot write {tmp_path}" in ended.stderr
    assert "what was finished before is kept" in ended.stderr
    before = len(chatpool_server.requests)
    assert before < 200
    ended = start(10_000_000)
    assert ended.stdout == "200\n", ended.stderr
    assert sorted(ids(target)) == sorted(f"row {number}" for number in range(200))
    assert len(chatpool_server.requests) - 200 <= 16 + 1


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of Unix")
def test_a_folder_that_cannot_be_written_to_is_said(chatpool_server):
    program = "import sys\nfrom chatpool.cli import main\nsys.exit(main(sys.argv[1:]))"
    if os.getuid() == 0:  # whom nothing is forbidden
        program = "import os\nimport chatpool.cli\nos.setuid(65534)\n" + program
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)  # noqa: S103 - so that nobody else can write, but can look
        ended = subprocess.run(
            [
                sys.executable,
                "-c",
                program,
                "run",
                "-",
                "-o",
                f"{folder}/out.jsonl",
                "--base-url",
                chatpool_server.base_url,
            ],
            cwd=ROOT,
            input="hello",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 2
    assert ended.stderr == f"chatpool: cannot write {folder}/out.jsonl: Permission denied; choose another output\n"
    assert chatpool_server.requests == []


def test_a_second_run_on_the_same_output_is_refused(start_run, chatpool_server, write_rows, target, run):
    chatpool_server.set_script(Stall())
    source = write_rows(3)
    process = start_run(chatpool_server, source, target)
    chatpool_server.wait_for(3, timeout=60)
    with pytest.raises(ConfigurationError, match=f"in use by process {process.pid} on "):
        run(source)


def test_progress_is_logged_once_a_minute_where_nobody_looks(pool, write_rows, target, caplog, instant_waits):
    caplog.set_level(logging.INFO, "chatpool")
    chatpool.batch.run(write_rows(3), target, pool=pool)
    assert [record.getMessage() for record in caplog.records] == [
        f"{target.parent}/in.jsonl: OpenAI batch lines",
        "3 rows",
    ]


def test_usage_is_summed_and_priced(run, write_rows):
    result = run(write_rows(10), prices=(1_000_000, 2_000_000))
    assert result.usage.total_tokens == result.usage.prompt_tokens + result.usage.completion_tokens > 0
    dollars = result.usage.prompt_tokens + 2 * result.usage.completion_tokens
    assert f"${dollars:,.2f}" in result.summary()


def test_the_output_of_one_run_is_an_input_of_json_lines(run, write_rows, target):
    run(write_rows(2))
    assert all(json.loads(line) for line in target.read_text().splitlines())


@pytest.mark.parametrize("output", ["in.jsonl", ".", "/dev/null", ""])
def test_an_output_that_can_be_none_is_refused_and_leaves_nothing_behind(
    write_rows, chatpool_server, tmp_path, monkeypatch, output
):
    monkeypatch.chdir(tmp_path)
    source = write_rows(1)
    before = source.read_bytes()
    with pytest.raises(ConfigurationError, match="the input|must be a file"):
        chatpool.batch.run(source, output, base_url=chatpool_server.base_url, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    assert source.read_bytes() == before


@pytest.mark.parametrize("prices", [(float("nan"), 1), (1, float("inf")), (-1, 1)])
def test_prices_are_numbers_of_dollars(write_rows, tmp_path, prices):
    with pytest.raises(ConfigurationError, match="prices must not be negative"):
        chatpool.batch.run(write_rows(1), tmp_path / "out.jsonl", prices=prices)


def test_metadata_may_have_any_fields(chatpool_server, tmp_path, read_lines):
    source, meta = tmp_path / "in.jsonl", {"a": 1, "value": {"b": 2, "value": 3}}
    source.write_text(json.dumps({"prompt": "hi", "metadata": meta}) + "\n")
    for done_before in (0, 1):
        result = chatpool.batch.run(
            source, tmp_path / "out.jsonl", base_url=chatpool_server.base_url, model="m", progress=False
        )
        assert (result.succeeded, result.done_before) == (1, done_before)
        assert [line["metadata"] for line in read_lines(tmp_path / "out.jsonl")] == [meta]


@pytest.mark.skipif(sys.platform == "win32", reason="links as POSIX has them")
def test_an_output_that_is_a_link_stays_one_and_its_target_gets_the_new_lines(run, write_rows, ids, target, tmp_path):
    real = tmp_path / "real.jsonl"
    target.symlink_to(real)
    for rows in (3, 5):
        run(write_rows(rows))
        assert target.is_symlink()
        assert sorted(ids(real)) == [f"row {number}" for number in range(rows)]


def test_a_result_is_a_dict_for_json(run, write_rows, chatpool_server):
    chatpool_server.set_script({"row 0": Answer("one"), "row 1": Error(402, "no credit", code="insufficient_quota")})
    result = run(write_rows(2), prices=(1.0, 2.0))
    facts = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert (facts["rows"], facts["succeeded"], facts["failed"]) == (2, result.succeeded, result.failed)
    assert facts["usage"]["total_tokens"] == result.usage.total_tokens
    assert errors.from_dict(facts["fatal"]).status_code == 402
    assert facts["journal"] == str(result.journal)
    assert "prices" not in facts


def test_an_output_in_use_says_by_whom(run, write_rows, target):
    held = Journal(target.with_suffix(".journal"))
    with pytest.raises(JournalBusyError) as busy:
        run(write_rows(1))
    held.close()
    assert (busy.value.pid, busy.value.host) == (os.getpid(), socket.gethostname())
    assert os.path.basename(busy.value.path) in ("out.jsonl", "out.journal")
    assert run(write_rows(1)).succeeded == 1


# -- what a notebook shows ------------------------------------------------------------------------------------------


def test_a_result_is_shown_as_its_summary_and_in_a_notebook_as_a_table(write_rows, chatpool_server, tmp_path):
    chatpool_server.set_script(lambda request: Error(400) if request.prompt == "row 1" else None)
    options = {"base_url": chatpool_server.base_url, "progress": False, "prices": (20, 80)}
    result = chatpool.batch.run(write_rows(3), tmp_path / "out.jsonl", **options)
    assert repr(result) == f"<BatchResult: {result.summary()}>"
    shown = result._repr_html_()
    for words in (
        "3: 2 answered, 1 failed, 0 pending",
        "1 x BadRequestError: change the request: it is refused as it is",
        dollars(result.cost),
        str(tmp_path / "out.errors.jsonl"),
    ):
        assert f"<td>{words}</td>" in shown


def test_hostile_words_in_a_result_are_text():
    result = BatchResult(output="<b>\x1b", fatal=ChatPoolError("<script>\x1b[31m"), causes={"<i>": 1}, failed=1)
    result.bad_line(3, "<u>\u202e" * 1000)
    shown = result._repr_html_()
    assert not re.search("<(b|i|u|script)>|[\x1b\u202e]", shown)
    assert "\u202e" not in repr(result)
    assert len(shown) < 5000
